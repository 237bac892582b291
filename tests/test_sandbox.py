"""What a program that runs in the sandbox can reach: no network, no file but for reading, no other process."""

import asyncio
import os
import pathlib
import re
import socket
import struct
import subprocess
import sys
import textwrap

import pytest

from pipelines import sandbox
from pipelines.checking import CheckerPool
from schemas import Problem

ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture(scope="module")
def pool():
    pool = CheckerPool(cpu_seconds=1.0, wall_seconds=30.0, memory_mb=256)
    yield pool
    pool.close()


def outcome(pool, program, gold="assert add(1, 2) == 3"):
    problem = Problem(id="p", source="test", domain="code", question="?", answer=gold)
    return asyncio.run(pool.check(f"```python\n{textwrap.dedent(program).strip()}\n```", problem)).outcome


def test_whether_this_machine_can_hold_a_program_in_is_tried_and_the_caller_stays_free(monkeypatch, tmp_path):
    assert sandbox.can_hold_in()
    (tmp_path / "made").write_text("The caller can still write.")
    # An interpreter in which the filter is refused ends with an error.
    refused = tmp_path / "python"
    refused.write_text("#!/bin/sh\nexit 1\n")
    refused.chmod(0o755)
    monkeypatch.setattr(sys, "executable", f"{refused}")
    assert not sandbox.can_hold_in()


def test_no_network(pool):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.2)
        port = listener.getsockname()[1]
        for kind in ("socket.create_connection(('127.0.0.1', PORT))", "socket.socket(socket.AF_UNIX)", "datagrams()"):
            program = f"""
                import socket
                def datagrams():
                    socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)[0].sendto(b"x", "/dev/log")
                {kind.replace("PORT", str(port))}
                def add(a, b): return a + b"""
            assert outcome(pool, program) == "incorrect", kind
        with pytest.raises(TimeoutError):
            listener.accept()


@pytest.mark.parametrize(
    "action",
    [
        "open('PATH/new', 'w')",
        "open('PATH/old', 'a')",
        "open('PATH/old', 'r+')",
        "os.open('PATH/new', os.O_RDONLY | os.O_CREAT)",
        "os.open('PATH/old', os.O_RDONLY | os.O_TRUNC)",
        "os.open('PATH', os.O_RDWR | os.O_TMPFILE)",
        "os.remove('PATH/old')",
        "os.rename('PATH/old', 'PATH/new')",
        "os.truncate('PATH/old', 0)",
        "os.mkdir('PATH/new')",
        "os.rmdir('PATH/folder')",
        "os.symlink('PATH/old', 'PATH/new')",
        "os.link('PATH/old', 'PATH/new')",
        "os.chmod('PATH/old', 0)",
        "os.utime('PATH/old', (0, 0))",
        "os.mkfifo('PATH/new')",
        "os.setxattr('PATH/old', 'user.x', b'x')",
        "os.ftruncate(os.open('PATH/old', os.O_RDONLY), 0)",
        "os.memfd_create('new')",
    ],
)
def test_no_file_is_changed(pool, tmp_path, action):
    (tmp_path / "old").write_text("kept")
    (tmp_path / "folder").mkdir()
    before = os.stat(tmp_path / "old")
    program = f"""
        import errno, os
        try:
            {action.replace("PATH", str(tmp_path))}
        except OSError as error:
            assert error.errno in (errno.EPERM, errno.EACCES), error
            def add(a, b): return a + b"""
    # Right is who was refused for want of permission, and of nothing else.
    assert outcome(pool, program) == "correct"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "old"]
    assert (tmp_path / "old").read_text() == "kept"
    assert (before.st_mode, before.st_mtime_ns) == (
        os.stat(tmp_path / "old").st_mode,
        os.stat(tmp_path / "old").st_mtime_ns,
    )


def test_neither_keys_nor_open_files_nor_our_modules_are_handed_on(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    program = """
        import os, sys
        def is_open(fd):
            try:
                os.fstat(fd)
            except OSError:
                return False
            return True
        files = len(list(filter(is_open, range(3, 1000))))
        ours = [name for name in sys.modules if name.startswith(("pipelines", "mcts"))]
        def seen(): return files, ours, "OPENAI_API_KEY" in os.environ"""
    pool = CheckerPool(cpu_seconds=1.0)
    try:
        # The two are the verdict's pipe and the token's.
        assert outcome(pool, program, "assert seen() == (2, [], False)") == "correct"
    finally:
        pool.close()


@pytest.mark.parametrize(
    "missing", ["sandbox.platform.machine = lambda: 'riscv64'", "sandbox._PR_SET_SECCOMP = 10_000"]
)
def test_without_a_sandbox_nothing_is_run(tmp_path, missing):
    script = f"""
        import os
        from pipelines import code_tests, sandbox
        {missing}
        token = b"t" * code_tests.TOKEN_BYTES
        (secret, give), (read, result) = os.pipe(), os.pipe()
        os.write(give, token)
        program = "open({str(tmp_path / "ran")!r}, 'w')"
        if not os.fork():
            code_tests.judge(program, "assert True", "{{}}", secret=secret, result=result)
        os.wait()
        print(code_tests.read_check(program, "assert True", read, token).reason)
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout == "no_sandbox\n"
    assert not (tmp_path / "ran").exists()


def run_filter(machine, number, *arguments, architecture=None, make=sandbox._filter):
    """What the kernel would do with a call: the filter's instructions, interpreted after `linux/filter.h`."""
    known = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
    words = [*arguments, *[0] * (6 - len(arguments))]
    data = struct.pack("<IIQ6Q", number, architecture or known[machine], 0, *words)
    code = list(struct.iter_unpack("=HBBI", make(machine)))
    at, value = 0, 0
    while True:
        operation, if_true, if_false, constant = code[at]
        at += 1
        match operation:
            case 0x20:
                value = int.from_bytes(data[constant : constant + 4], "little")
            case 0x54:
                value &= constant
            case 0x15:
                at += if_true if value == constant else if_false
            case 0x25:
                at += if_true if value > constant else if_false
            case 0x06:
                names = {0x7FFF0000: "pass", 0x80000000: "kill", 0x00050001: "EPERM", 0x00050026: "ENOSYS"}
                return names[constant]


# Calls by their numbers on x86-64 and ARM64, as `man 2 syscalls` and the kernel's tables have them.
@pytest.mark.parametrize(
    ("x86_64", "aarch64", "arguments", "expected"),
    [
        (0, 63, (0,), "pass"),  # read
        (257, 56, (0, 0, os.O_RDONLY | os.O_CLOEXEC), "pass"),  # openat
        (257, 56, (0, 0, os.O_WRONLY), "EPERM"),
        (257, 56, (0, 0, os.O_RDWR), "EPERM"),
        (257, 56, (0, 0, os.O_CREAT), "EPERM"),
        (257, 56, (0, 0, os.O_TRUNC | os.O_CLOEXEC), "EPERM"),
        (437, 437, (0, 0, 0), "EPERM"),  # openat2
        (41, 198, (2, 1, 0), "EPERM"),  # socket
        (53, 199, (1, 1 | 0o2000000, 0), "pass"),  # socketpair of stream sockets
        (53, 199, (1, 2, 0), "EPERM"),  # socketpair of datagram sockets
        (53, 199, (2, 1, 0), "EPERM"),
        (56, 220, (0x3D0F00,), "pass"),  # clone as pthread_create calls it
        (56, 220, (0x1200011,), "EPERM"),  # clone as fork calls it
        (435, 435, (0, 88), "ENOSYS"),  # clone3
        (59, 221, (), "EPERM"),  # execve
        (322, 281, (), "EPERM"),  # execveat
        (62, 129, (1, 9), "EPERM"),  # kill
        (424, 424, (3, 9), "EPERM"),  # pidfd_send_signal
        (101, 117, (16, 1), "EPERM"),  # ptrace
        (311, 271, (1,), "EPERM"),  # process_vm_writev
        (425, 425, (), "EPERM"),  # io_uring_setup
        (157, 167, (1, 0), "EPERM"),  # prctl
        (38, 103, (2, 0), "EPERM"),  # setitimer
        (302, 261, (0, 7, 0, 0x7FFF00000000), "pass"),  # prlimit64 that only asks
        (302, 261, (0, 7, 0x7FFF00000000, 0), "EPERM"),
        (302, 261, (0, 7, 0x10, 0), "EPERM"),
        (72, 25, (0, 1, 0), "pass"),  # fcntl F_GETFD
        (72, 25, (0, 8, 1), "EPERM"),  # fcntl F_SETOWN
        (16, 29, (0, 0x5412, 0), "EPERM"),  # ioctl TIOCSTI
        (28, 233, (0, 0, 4), "pass"),  # madvise MADV_DONTNEED
        (28, 233, (0, 0, 100), "EPERM"),  # madvise MADV_HWPOISON
        (263, 35, (), "EPERM"),  # unlinkat
        (9_999, 9_999, (), "ENOSYS"),
        (0x40000000, 0x40000000, (), "ENOSYS"),  # read of x32
    ],
)
def test_filter_of_both_architectures(x86_64, aarch64, arguments, expected):
    assert run_filter("x86_64", x86_64, *arguments) == expected
    assert run_filter("aarch64", aarch64, *arguments) == expected


@pytest.mark.parametrize(
    ("x86_64", "aarch64", "arguments", "expected"),
    [
        (59, 221, (), "pass"),  # execve
        (157, 167, (15,), "pass"),  # prctl PR_SET_NAME
        (157, 167, (1, 0), "EPERM"),  # prctl PR_SET_PDEATHSIG
        (257, 56, (0, 0, os.O_WRONLY), "EPERM"),  # openat
        (56, 220, (17,), "kill"),  # clone that is a fork
        (56, 220, (0x10F00,), "pass"),  # clone of a thread
        (41, 198, (2, 1), "EPERM"),  # socket
        (62, 129, (1, 9), "EPERM"),  # kill
        (38, 103, (2, 0), "EPERM"),  # setitimer
    ],
)
def test_a_process_that_becomes_a_program_may_do_that_and_no_more(x86_64, aarch64, arguments, expected):
    assert run_filter("x86_64", x86_64, *arguments, make=sandbox._filter_to_start) == expected
    assert run_filter("aarch64", aarch64, *arguments, make=sandbox._filter_to_start) == expected


def test_the_older_forks_of_x86_64_end_it():
    assert {run_filter("x86_64", number, make=sandbox._filter_to_start) for number in (57, 58)} == {"kill"}
    assert run_filter("x86_64", 57) == "EPERM"


def test_the_older_open_of_x86_64_reads_only():
    assert run_filter("x86_64", 2, 0, os.O_RDONLY) == "pass"
    assert run_filter("x86_64", 2, 0, os.O_WRONLY) == run_filter("x86_64", 2, 0, os.O_CREAT) == "EPERM"


def test_calls_of_another_architecture_kill():
    assert run_filter("x86_64", 3, architecture=0x40000003) == "kill"  # 32-bit x86
    assert run_filter("aarch64", 3, architecture=0x40000028) == "kill"  # 32-bit ARM


@pytest.mark.parametrize(
    ("column", "header"),
    [(1, "/usr/include/x86_64-linux-gnu/asm/unistd_64.h"), (2, "/usr/include/asm-generic/unistd.h")],
)
def test_numbers_are_the_kernels(column, header):
    if not os.path.exists(header):
        pytest.skip(f"{header} is not there; it comes with the C library's headers")
    text = pathlib.Path(header).read_text()
    numbers = {name: number for name, number in re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", text)}
    numbers |= {"newfstatat": numbers.get("newfstatat") or numbers.get("fstatat")}
    for line in ",".join((sandbox._ALLOWED, sandbox._TO_START, sandbox._FORKS)).split(","):
        name, *known = line.split()
        assert known[column - 1] == numbers.get(name, "-"), name
