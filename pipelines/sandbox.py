"""What a process may no longer do once it runs a program that a model wrote. Linux on x86-64 and ARM64.

`limit` bounds time, memory and files. `enter` is for programs: a seccomp filter lets pass the system calls that a
computation in Python needs and refuses all others, so that the process can neither write, create, rename or delete a
file, nor start another process or program, signal one, change a limit, or reach a network. Files can be read. Where the
kernel does not take the filter `enter` raises, and the program must not be run.

`enter_to_start` is for a program of somebody else's that is given what a model wrote, such as a compiler: the process
may besides become that program, and others after it, but stays one that can only read, compute and say something.

The filter is a list of what is allowed, so that a call nobody thought of is refused too. Numbers are those of
`asm/unistd_64.h` and `asm-generic/unistd.h`, the filter's layout that of `linux/filter.h` and `linux/seccomp.h`.
"""

import ctypes
import inspect
import math
import os
import pathlib
import platform
import resource
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

# Name, number on x86-64, number on ARM64; `-` where the architecture has no such call.
_ALLOWED = """
read 0 63, write 1 64, close 3 57, stat 4 -, fstat 5 80, lstat 6 -, poll 7 -, lseek 8 62, mmap 9 222, mprotect 10 226,
munmap 11 215, brk 12 214, rt_sigaction 13 134, rt_sigprocmask 14 135, rt_sigreturn 15 139, pread64 17 67, readv 19 65,
writev 20 66, access 21 -, pipe 22 -, select 23 -, sched_yield 24 124, mremap 25 216, mincore 27 232, dup 32 23,
dup2 33 -, pause 34 -, nanosleep 35 101, getitimer 36 102, alarm 37 -, getpid 39 172, exit 60 93, uname 63 160,
getdents 78 -, getcwd 79 17, chdir 80 49, fchdir 81 50, readlink 89 -, umask 95 166, gettimeofday 96 169,
getrlimit 97 163, getrusage 98 165, sysinfo 99 179, times 100 153, getuid 102 174, getgid 104 176, geteuid 107 175,
getegid 108 177, getppid 110 173, getpgrp 111 -, getpgid 121 155, getsid 124 156, getgroups 115 158, getresuid 118 148,
getresgid 120 150, rt_sigpending 127 136, rt_sigtimedwait 128 137, rt_sigsuspend 130 133, sigaltstack 131 132,
statfs 137 43, fstatfs 138 44, gettid 186 178, time 201 -, futex 202 98, sched_getaffinity 204 123,
set_tid_address 218 96, epoll_create 213 -, getdents64 217 61, restart_syscall 219 128, clock_gettime 228 113,
clock_getres 229 114, clock_nanosleep 230 115, exit_group 231 94, epoll_wait 232 -, epoll_ctl 233 21,
get_mempolicy 239 236, newfstatat 262 79, readlinkat 267 78, faccessat 269 48, pselect6 270 72, ppoll 271 73,
set_robust_list 273 99, epoll_pwait 281 22, eventfd2 290 19, epoll_create1 291 20, dup3 292 24, pipe2 293 59,
getcpu 309 168, getrandom 318 278, statx 332 291, rseq 334 293, close_range 436 436, faccessat2 439 439,
epoll_pwait2 441 441, sendto 44 206, recvfrom 45 207, shutdown 48 210, getsockname 51 204, getsockopt 55 209,
open 2 -, clone 56 220, openat 257 56, fcntl 72 25, ioctl 16 29, madvise 28 233, prlimit64 302 261, socketpair 53 199
"""
_TO_START = """
execve 59 221, arch_prctl 158 -, prctl 157 167, wait4 61 260, fadvise64 221 223, membarrier 324 283
"""
"""Besides, for a process that becomes another program: what that program's start and its threads call."""
_FORKS = "fork 57 -, vfork 58 -"
"""Calls that end such a process, as does a `clone` that is one: a compiler whose driver may not start it would say that
the solution is wrong."""
_CLONE3 = 435
_NEWEST = 450
"""Highest number that this list knows of. Later ones are answered as by an older kernel, for which libraries care."""

_ALL = 0xFFFFFFFF
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_CLONE_THREAD = 0x10000
# Conditions on a call's arguments: (32-bit word of the arguments, mask, allowed values), and all must hold. Argument
# i is words 2i and 2i + 1, the low half first; the kernel reads only the low half of an int.
_CONDITIONS: dict[str, tuple[tuple[int, int, tuple[int, ...]], ...]] = {
    "open": ((2, _WRITES, (0,)),),
    "openat": ((4, _WRITES, (0,)),),
    "clone": ((0, _CLONE_THREAD, (_CLONE_THREAD,)),),
    # Not F_SETOWN and F_SETSIG, which have the kernel send signals, and no locks.
    "fcntl": ((2, _ALL, (0, 1, 2, 3, 4, 1030)),),
    # TCGETS, TIOCGWINSZ, FIONREAD, FIONBIO, FIONCLEX and FIOCLEX.
    "ioctl": ((2, _ALL, (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)),),
    # Not MADV_HWPOISON, which takes memory from the whole machine.
    "madvise": ((4, _ALL, (0, 1, 2, 3, 4, 8, 14, 15, 16, 17)),),
    # No new limits: their address is null.
    "prlimit64": ((4, _ALL, (0,)), (5, _ALL, (0,))),
    # What asyncio wakes its loop with: AF_UNIX and SOCK_STREAM, which reaches nobody else.
    "socketpair": ((0, _ALL, (1,)), (2, 0xF, (1,))),
    # PR_SET_NAME and PR_GET_NAME: threads get names. Not PR_SET_PDEATHSIG, by which it would outlive who started it.
    "prctl": ((0, _ALL, (15, 16)),),
}

_ARCHITECTURES = {"x86_64": (0xC000003E, 1), "aarch64": (0xC00000B7, 2)}
"""`AUDIT_ARCH` and column of `_ALLOWED`, for each `platform.machine()`."""

_LOAD, _AND, _EQUAL, _ABOVE, _RETURN = 0x20, 0x54, 0x15, 0x25, 0x06
_KILL, _PASS, _REFUSE, _UNKNOWN = 0x80000000, 0x7FFF0000, 0x00050001, 0x00050026  # 1 is EPERM, 0x26 ENOSYS.
_NUMBER_AT, _ARCH_AT, _ARGUMENTS_AT = 0, 4, 16

_PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS, _SECCOMP_MODE_FILTER = 22, 38, 2
_MAX_FILES = 64
_MAX_FILES_TO_START = 1024
"""Provers open the libraries that a solution imports, one file each."""


class SandboxUnavailable(Exception):
    """This machine cannot hold a program in; nothing was run."""


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def can_hold_in() -> bool:
    """Whether the filter comes into force on this machine; tried in a process of its own."""
    root = pathlib.Path(__file__).resolve().parents[1]
    shut_in = "from pipelines import sandbox; sandbox.enter()"
    # A fresh interpreter: a fork of the caller may have locks that nobody would ever give back.
    tried = subprocess.run(
        [sys.executable, "-P", "-c", shut_in],
        env={**os.environ, "PYTHONPATH": f"{root}"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
    )
    return tried.returncode == 0


def limit(cpu_seconds: float, memory_mb: int) -> None:
    """Bounds CPU time (seconds), further address space (MiB), and files to read only, for the calling process."""
    held = int(pathlib.Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    memory = held + memory_mb * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # The timer ends a task to the hundredth of a second; the limit, in whole seconds, holds if the timer was undone:
    # at the hard limit comes SIGKILL, which cannot be ignored.
    backstop = math.ceil(cpu_seconds) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (backstop, backstop))
    signal.setitimer(signal.ITIMER_PROF, cpu_seconds)


def enter(*keep: int) -> None:
    """Shuts the calling process in for good: it must have one thread, and ends when the program it is for has ended.

    Standard input, output and error become the null device, all other files are closed but `keep`.

    Raises:
      SandboxUnavailable: the filter is not in force. The process may be half shut in and is good for nothing else.
    """
    nothing = os.open(os.devnull, os.O_RDWR)
    _hold(nothing, nothing, keep, _MAX_FILES)
    _install(_filter(platform.machine()))
    sys.addaudithook(_guard())


def enter_to_start(output: int, *keep: int) -> None:
    """The same for a process that then becomes another program, by `os.execve`; what that says goes to `output`.

    Where it tries to start a process it is ended by SIGSYS.

    Raises:
      SandboxUnavailable: see `enter`.
    """
    _hold(os.open(os.devnull, os.O_RDONLY), output, keep, _MAX_FILES_TO_START)
    _install(_filter_to_start(platform.machine()))


def _hold(source: int, output: int, keep: Sequence[int], max_files: int) -> None:
    """Makes the standard streams of two files, closes all others but `keep`, and lets few be opened."""
    for stream, file in ((0, source), (1, output), (2, output)):
        os.dup2(file, stream)
    first = 3
    for last in (*sorted(keep), os.sysconf("SC_OPEN_MAX")):
        os.closerange(first, last)
        first = last + 1
    resource.setrlimit(resource.RLIMIT_NOFILE, (max_files, max_files))


def _filter_to_start(machine: str) -> bytes:
    return _filter(machine, _ALLOWED + "," + _TO_START, _FORKS)


def _filter(machine: str, calls: str = _ALLOWED, deadly: str = "") -> bytes:
    """The filter's instructions for an architecture, as `struct sock_filter[]`.

    Args:
      machine: as `platform.machine()` names it.
      calls: those that pass, written as `_ALLOWED` is.
      deadly: those that end the process, likewise; where there are any, a `clone` that is no thread does, too.

    Raises:
      SandboxUnavailable: the architecture is not known, or not the one that this interpreter was built for.
    """
    if machine not in _ARCHITECTURES or sys.maxsize < 2**32 or sys.byteorder != "little":
        raise SandboxUnavailable(f"programs run on 64-bit {' and '.join(_ARCHITECTURES)} only, this is {machine}")
    architecture, column = _ARCHITECTURES[machine]
    instructions = [
        (_LOAD, 0, 0, _ARCH_AT),
        (_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER_AT),
        # The x32 calls of x86-64 have numbers from 0x40000000 on, and end here too.
        (_ABOVE, 0, 1, _NEWEST),
        (_RETURN, 0, 0, _UNKNOWN),
        # Its flags lie in memory, where a filter cannot look; without it the C library takes `clone`.
        (_EQUAL, 0, 1, _CLONE3),
        (_RETURN, 0, 0, _UNKNOWN),
    ]
    for line in filter(None, deadly.split(",")):
        number = line.split()[column]
        if number != "-":
            instructions += [(_EQUAL, 0, 1, int(number)), (_RETURN, 0, 0, _KILL)]
    for line in calls.split(","):
        name, *numbers = line.split()
        if numbers[column - 1] != "-":
            allowed = _allow(_CONDITIONS.get(name, ()), _KILL if deadly and name == "clone" else _REFUSE)
            instructions += [(_EQUAL, 0, len(allowed), int(numbers[column - 1])), *allowed]
    instructions.append((_RETURN, 0, 0, _REFUSE))
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in instructions)


def _allow(conditions: tuple[tuple[int, int, tuple[int, ...]], ...], otherwise: int) -> list[tuple[int, int, int, int]]:
    """Instructions that let a call pass if all conditions hold; `otherwise` says what becomes of it where not."""
    block = []
    for word, mask, values in conditions:
        block += [(_LOAD, 0, 0, _ARGUMENTS_AT + 4 * word), (_AND, 0, 0, mask)]
        # The last of them falls through to the refusal, the others first pass by those that follow.
        block += [(_EQUAL, len(values) - i, 0, value) for i, value in enumerate(values)]
        block.append((_RETURN, 0, 0, otherwise))
    return [*block, (_RETURN, 0, 0, _PASS)]


def _install(instructions: bytes) -> None:
    library = ctypes.CDLL(None, use_errno=True)
    program = _Program(length=len(instructions) // 8, instructions=instructions)
    for option, value, pointer in (
        (_PR_SET_NO_NEW_PRIVS, 1, None),
        (_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(program)),
    ):
        if library.prctl(option, ctypes.c_ulong(value), pointer, ctypes.c_ulong(0), ctypes.c_ulong(0)):
            raise SandboxUnavailable(f"the kernel takes no seccomp filter: {os.strerror(ctypes.get_errno())}")
    # Some emulators say yes and do nothing.
    try:
        os.close(os.open(os.devnull, os.O_WRONLY))
    except PermissionError:
        return
    raise SandboxUnavailable("the kernel took the seccomp filter and does not apply it")


_EVENT_NAMES = (
    "sys.addaudithook sys.settrace sys.setprofile sys.monitoring.register_callback sys._current_frames "
    "sys._current_exceptions gc.get_objects gc.get_referrers gc.get_referents"
)
_EVENTS = frozenset(_EVENT_NAMES.split())
_FRAMES = frozenset(["tb_frame", "gi_frame", "cr_frame", "ag_frame"])


def _guard() -> Callable[[str, tuple[Any, ...]], None]:
    """An audit hook by which a program cannot simply look at, or steer, the interpreter that runs its tests.

    Refused are tracing, walking the collector's objects, memory through ctypes, and frames to code that comes from no
    file: a solution would find the expected values there. Libraries may look at frames, `namedtuple` does.

    This is no wall: who knows CPython well gets around it. The wall is the filter.
    """
    # Bound here, since the program can replace what a module or `builtins` holds.
    events, frames, refusal, inspecting = _EVENTS, _FRAMES, PermissionError, inspect.__file__
    get_frame, get_ident, inside = sys._getframe, threading.get_ident, set[int]()

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in events or event.startswith("ctypes."):
            raise refusal(f"solutions may not use {event}")
        looks = event == "sys._getframe" or (event == "object.__getattr__" and arguments[1] in frames)
        thread = get_ident() if looks else 0
        if not looks or thread in inside:
            return
        inside.add(thread)  # To ask for the caller's frame is such an event itself.
        frame = get_frame(1)
        inside.discard(thread)
        while frame.f_code.co_filename == inspecting and frame.f_back is not None:
            frame = frame.f_back
        if frame.f_code.co_filename.startswith("<"):
            raise refusal(f"solutions may not use {event}")

    return hook
