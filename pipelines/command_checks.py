"""Whether a command accepts what a solution wrote: domain `command`. A compiler, a prover, a linter decides.

The command comes from the settings alone. It is started without a shell, with the path of a file that holds the
solution's answer, in a process of its own that can read files, compute, and say something: no network, no other
process, no file written (`sandbox.enter_to_start`). Its exit code decides: 0 is correct, a listed one incorrect, and
all else is unscored, for a checker that crashes has not said that the solution is wrong.
"""

import os
import pathlib
import re
import shutil
import signal
from collections.abc import Sequence
from typing import NoReturn

from mcts.answers import Check, unscored
from pipelines import sandbox
from pipelines.errors import UserError
from schemas import Problem, Record, readable

DOMAIN = "command"
SOLUTION, GOLD = "{solution}", "{gold}"
_GOLD_FILE = "gold.txt"
_CHUNK = 1 << 16
_ADDRESS = re.compile(r"\b0x[0-9a-fA-F]{4,}\b")
_NOT_STARTED = 127


class CommandChecker(Record):
    """The command that decides about solutions of problems of the domain `command`."""

    command: tuple[str, ...] = ()
    """Program and arguments, each one word: `[lean,"{solution}"]`. `{solution}` stands for the path of a file with the
    solution's answer, `{gold}` for one with the problem's gold answer. Empty: there is none."""
    file_name: str = "solution.txt"
    """Name of the solution's file, for programs that go by its ending: `solution.lean`."""
    incorrect_exits: tuple[int, ...] = (1,)
    """Exit codes that say that the solution is wrong. 0 says that it is right, and any other one nothing."""
    cpu_secs: float = 30.0
    """CPU time of one check, over all threads."""
    wall_secs: float = 60.0
    """Time after which a check is given up that has used less than a twentieth of a core in it."""
    memory_mb: int = 4096
    """Address space of one check: what a program maps counts, whether it touches it or not."""
    max_output_kb: int = 1024
    """What a command may say; one that says more is ended, and the answer is unscored."""
    max_message_chars: int = 2000
    """Of what it says, how much is kept, from the beginning."""

    def __post_init__(self) -> None:
        if self.command and not any(SOLUTION in word for word in self.command[1:]):
            raise ValueError(
                f"checker.command: no argument holds {SOLUTION}, where the path of the solution's file is put, "
                f"got {list(self.command)}"
            )
        if self.command and "/" in self.command[0] and not os.path.isabs(self.command[0]):
            raise ValueError(
                f"checker.command: expected a program's name or its absolute path, got {self.command[0]!r}; the "
                "command runs in a folder of its own"
            )
        if not re.fullmatch(r"[A-Za-z0-9_][\w.-]{0,99}", self.file_name) or self.file_name == _GOLD_FILE:
            raise ValueError(f"checker.file_name: expected a name such as solution.lean, got {self.file_name!r}")
        wrong = [code for code in self.incorrect_exits if not 1 <= code <= 125]
        if wrong:
            raise ValueError(f"checker.incorrect_exits: expected codes in 1..125, got {wrong[0]}")
        for name in ("cpu_secs", "wall_secs", "memory_mb", "max_output_kb", "max_message_chars"):
            if getattr(self, name) <= 0:
                raise ValueError(f"checker.{name} must be above 0, got {getattr(self, name)}")


NO_COMMAND = CommandChecker()
"""The setting where no command decides about anything."""


def require_program(settings: CommandChecker) -> None:
    """Raises UserError where the command's program is not on this machine."""
    if settings.command and shutil.which(settings.command[0]) is None:
        raise UserError(
            f"checker.command: there is no program {settings.command[0]!r} that could be run here; install it, or give "
            "its absolute path"
        )


def require_command(settings: CommandChecker, problems: Sequence[Problem]) -> None:
    """Raises UserError where problems ask for a command and none is set."""
    asking = [problem.id for problem in problems if problem.domain == DOMAIN]
    if asking and not settings.command:
        raise UserError(
            f"{len(asking)} of {len(problems)} problems are of the domain command (first: {asking[0]!r}), and "
            f'checker.command is empty; give the program that decides about them, such as [lean,"{SOLUTION}"]'
        )


def place(answer: str, gold: str, settings: CommandChecker, folder: pathlib.Path) -> None:
    """Writes what the command is to look at into a folder, over what was there before."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in ((settings.file_name, answer), (_GOLD_FILE, gold)):
        (folder / name).write_text(text.rstrip("\n") + "\n", encoding="utf-8", errors="replace", newline="\n")


def start(settings: CommandChecker, folder: pathlib.Path, *, output: int, trouble: int) -> NoReturn:
    """Becomes the command, shut in; what it says goes to `output`.

    Args:
      settings: the command.
      folder: where `place` has put the files.
      output: pipe for all that the command writes.
      trouble: pipe that says why the command did not begin; it is closed where it did.
    """
    paths = {SOLUTION: folder / settings.file_name, GOLD: folder / _GOLD_FILE}
    words = list(settings.command)
    for gap, path in paths.items():
        words[1:] = [word.replace(gap, f"{path}") for word in words[1:]]
    program = shutil.which(words[0])
    env = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH", "LANG") if name in os.environ}
    os.chdir(folder)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores it, and a program would inherit that.
    try:
        sandbox.enter_to_start(output, trouble)
    except sandbox.SandboxUnavailable:
        os.write(trouble, b"no_sandbox")
        os._exit(_NOT_STARTED)
    try:
        os.execve(program or words[0], words, env | {"HOME": f"{folder}"})
    except OSError:
        os.write(trouble, b"no_checker")
    os._exit(_NOT_STARTED)


class Run(Record):
    """How a command went."""

    said: bytes
    """The beginning of what it wrote."""
    is_too_much: bool
    """Whether it was ended for writing too much."""
    trouble: bytes
    """Why it did not begin; empty where it did."""
    status: int
    """As `os.wait` gives it."""
    cpu_secs: float


def watch(child: int, settings: CommandChecker, *, output: int, trouble: int) -> Run:
    """Waits until a command that was started has ended, or says too much and is ended."""
    most, said, num_bytes = settings.max_output_kb * 1024, b"", 0
    while num_bytes <= most and (chunk := os.read(output, _CHUNK)):
        num_bytes += len(chunk)
        # A character has four bytes at most.
        said += chunk[: max(0, 4 * settings.max_message_chars - len(said))]
    if num_bytes > most:
        os.kill(child, signal.SIGKILL)
    _, status, used = os.wait4(child, 0)
    return Run(
        said=said,
        is_too_much=num_bytes > most,
        trouble=os.read(trouble, 100),
        status=status,
        cpu_secs=used.ru_utime + used.ru_stime,
    )


def decide(run: Run, answer: str, settings: CommandChecker, folder: pathlib.Path) -> tuple[Check, bool]:
    """What a command came to, and whether it would come to the same again: not so if something outside ended it."""
    if run.trouble:
        return unscored("no_sandbox" if run.trouble == b"no_sandbox" else "no_checker", answer), True
    said = _message(run.said, settings, folder)
    if run.is_too_much:
        return _failed(answer, f"it says more than {settings.max_output_kb} KB: {said}", settings), True
    if os.WIFSIGNALED(run.status):
        ended_by = os.WTERMSIG(run.status)
        if ended_by == signal.SIGSYS:
            return _failed(answer, f"it tries to start another process: {said}", settings), True
        # The hard limit, which holds where a program switched the timer's signal off, kills without a word.
        undone = ended_by == signal.SIGKILL and run.cpu_secs >= settings.cpu_secs
        is_spent = undone or ended_by in (signal.SIGPROF, signal.SIGXCPU)
        return unscored("timeout" if is_spent else "crashed", answer), is_spent
    code = os.WEXITSTATUS(run.status)
    if code == 0:
        return Check(outcome="correct", answer=answer, detail=said), True
    if code in settings.incorrect_exits:
        return Check(outcome="incorrect", answer=answer, detail=said), True
    return _failed(answer, f"exit code {code}: {said}", settings), True


def _failed(answer: str, why: str, settings: CommandChecker) -> Check:
    detail = why.strip()[: settings.max_message_chars]
    return Check(outcome="unscored", reason="checker_failed", answer=answer, detail=detail)


def _message(said: bytes, settings: CommandChecker, folder: pathlib.Path) -> str:
    """What a command says, without what is another in each run: where the files lie, and addresses of objects."""
    text = readable(said.decode(errors="replace")).replace(f"{folder}/", "").replace(f"{folder}", ".")
    return _ADDRESS.sub("0x0", text).strip()[: settings.max_message_chars]
