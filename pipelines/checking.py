"""Checking answers without trusting them: the expensive comparisons run in processes that can be killed.

A pool keeps a few checkers, each a fresh interpreter (never a fork of the caller, which may have many threads) that has
loaded math-verify and forks once a task. So every task starts from the same state, cannot harm the next one, and is
stopped by the kernel: by `ITIMER_PROF` after its CPU seconds, whatever it is doing, and by `RLIMIT_AS` at its memory.

CPU time decides, so that a busy machine does not change an outcome. The wall clock is the last resort, and ends only
what hangs without computing. A command from outside is started in place of such a task (`command_checks`). Requests
and replies are length-prefixed msgpack; nothing is ever unpickled.
"""

import asyncio
import collections
import contextlib
import ctypes
import gc
import importlib
import logging
import os
import pathlib
import queue
import select
import signal
import subprocess
import sys
import tempfile
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import NoReturn

import msgspec

from mcts import answers
from mcts.answers import Check, unscored
from pipelines import code_tests, command_checks, sandbox
from pipelines.command_checks import NO_COMMAND, CommandChecker
from pipelines.engines.keys import hide_secrets
from pipelines.framing import Gone, is_ready, read_frame, write_frame
from schemas import Problem, Record, digest

_ROOT = pathlib.Path(__file__).resolve().parents[1]
_START_SECONDS = 120.0
_CACHE_SIZE = 50_000
_MAX_ATTEMPTS = 3
"""Times that an answer is checked whose check something outside ended: it must not stay unscored for that."""
_LEAST_SHARE = 0.05
"""Part of a core that a program must use, or it counts as waiting."""
_PROGRAMS = ("code", command_checks.DOMAIN)
"""Domains in which what a model wrote runs, or what is given it does: that may wait in a loop, and compute a little."""
_PR_SET_PDEATHSIG = 1


class _Task(Record, frozen=True):
    answer: str
    gold: str
    domain: str
    metadata: str


class _Limits(Record, frozen=True):
    cpu_seconds: float
    memory_mb: int
    parent: int
    """Process that must live: the checker dies with it."""
    command: CommandChecker = NO_COMMAND
    folder: str = ""
    """Where a command's files are put; empty where there is no command."""


class _Reply(Record, frozen=True):
    check: Check
    final: bool
    """Whether the same task would end the same way again: not so if something from outside ended it."""


class _Checker:
    """One process that checks, and the pipes to it. Used by one thread at a time."""

    def __init__(self, limits: _Limits) -> None:
        # Library threads would not survive the fork of a task, and hashing must not depend on the run.
        path = os.pathsep.join([f"{_ROOT}", *filter(None, sys.path)])
        env = {"PYTHONPATH": path, "PYTHONHASHSEED": "0", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        # Nothing else of the environment is passed on: scorers evaluate what models write, and keys live there.
        env |= {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH", "LANG") if name in os.environ}
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "pipelines.checking", msgspec.json.encode(limits).decode()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=env,
            start_new_session=True,
        )
        assert self._process.stdin
        assert self._process.stdout
        self._requests, self._replies = self._process.stdin.fileno(), self._process.stdout.fileno()

    @property
    def pid(self) -> int:
        return self._process.pid

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def ask(self, task: _Task, wall_seconds: float) -> _Reply:
        """Raises `Gone` when the process ended, TimeoutError when it did not answer in time."""
        write_frame(self._requests, msgspec.msgpack.encode(task))
        if not is_ready(self._replies, _START_SECONDS):
            raise TimeoutError("the libraries do not load")
        read_frame(self._replies)  # They are loaded, and the task begins.
        spent = 0
        least = wall_seconds * _LEAST_SHARE * os.sysconf("SC_CLK_TCK") if task.domain in _PROGRAMS else 1
        while not is_ready(self._replies, wall_seconds):
            # A busy machine only makes a task late: it is given up when it stops computing, or by its own timer.
            before, spent = spent, self._ticks()
            if spent - before < max(least, 1):
                raise TimeoutError("the task hangs without computing")
        return msgspec.msgpack.decode(read_frame(self._replies), type=_Reply)

    def _ticks(self) -> int:
        """CPU time of the task under way in clock ticks; 0 where there is none or the system does not tell."""
        try:
            children = pathlib.Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
            stats = [pathlib.Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split() for child in children]
        except OSError:
            return 0
        return sum(int(fields[11]) + int(fields[12]) for fields in stats)

    def kill(self) -> None:
        """Kills the process and, where it still lives, the task under way; a dead checker's task dies by itself."""
        if self.is_alive():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()

    def close(self) -> None:
        self.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


def _close_all(checkers: set[_Checker]) -> None:
    for checker in list(checkers):
        checker.close()


class CheckerPool:
    """Checks answers for one worker: any number of concurrent checks, from one event loop at a time.

    Equal (answer, gold, domain, metadata) are computed once. Outcomes that would come again are kept, a spent CPU limit
    among them: it does not depend on the load, and paying for it again would only cost as much again. Where the wall
    clock or a signal from outside ended a check, nothing is kept.
    """

    def __init__(
        self,
        *,
        num_workers: int = 1,
        cpu_seconds: float = 5.0,
        wall_seconds: float = 10.0,
        memory_mb: int = 1024,
        command: CommandChecker = NO_COMMAND,
    ) -> None:
        """No process is started before the first check that needs one.

        Args:
          num_workers: processes that check at the same time.
          cpu_seconds: CPU time of one check.
          wall_seconds: time after which a check is given up that has not computed in it.
          memory_mb: address space that one check may take beyond what the loaded libraries hold.
          command: what decides about answers of the domain `command`, under limits of its own.
        """
        if num_workers < 1 or cpu_seconds <= 0 or wall_seconds < cpu_seconds or memory_mb < 1:
            raise ValueError(
                "need num_workers >= 1, 0 < cpu_seconds <= wall_seconds and memory_mb >= 1, got "
                f"{num_workers=}, {cpu_seconds=}, {wall_seconds=}, {memory_mb=}"
            )
        self._folder = tempfile.TemporaryDirectory(prefix="wrongturn-checks-") if command.command else None
        self._limits = _Limits(
            cpu_seconds=cpu_seconds,
            memory_mb=memory_mb,
            parent=os.getpid(),
            command=command,
            folder=self._folder.name if self._folder else "",
        )
        self._wall_seconds = wall_seconds
        self._executor = ThreadPoolExecutor(num_workers, thread_name_prefix="checker")
        self._idle: queue.SimpleQueue[_Checker] = queue.SimpleQueue()
        self._checkers: set[_Checker] = set()
        self._kept: collections.OrderedDict[str, Check] = collections.OrderedDict()
        self._running: dict[str, asyncio.Task[Check]] = {}
        self._closed = threading.Event()
        self._finalizer = weakref.finalize(self, _close_all, self._checkers)

    @property
    def pids(self) -> tuple[int, ...]:
        """Checker processes that run at the moment."""
        return tuple(checker.pid for checker in list(self._checkers) if checker.is_alive())

    async def check(self, solution: str, problem: Problem) -> Check:
        """Finds the answer of a solution and decides about it, inline where that is cheap.

        Raises:
          RuntimeError: it takes a process, and the pool was closed.
        """
        answer = answers.find_answer(solution, problem.domain)
        if answer is None:
            return unscored("no_answer")
        decided = answers.quick(answer, problem.answer, problem.domain, problem.metadata)
        if decided is not None:
            return decided
        task = _Task(answer=answer, gold=problem.answer, domain=problem.domain, metadata=problem.metadata)
        return await self._once(task)

    async def _once(self, task: _Task) -> Check:
        key = digest(task)
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        if key not in self._running:
            self._running[key] = asyncio.create_task(self._compute(key, task))
            self._running[key].add_done_callback(lambda _: self._running.pop(key, None))
        # Shielded: others may wait for the same answer when this caller is cancelled.
        return await asyncio.shield(self._running[key])

    async def _compute(self, key: str, task: _Task) -> Check:
        if self._closed.is_set():
            raise RuntimeError("this CheckerPool is closed; make a new one")
        for _ in range(_MAX_ATTEMPTS):
            reply = await asyncio.get_running_loop().run_in_executor(self._executor, self._ask, task)
            if reply.final:
                self._kept[key] = reply.check
                if len(self._kept) > _CACHE_SIZE:
                    self._kept.popitem(last=False)
            if reply.final or self._closed.is_set():
                break
        return reply.check

    def _ask(self, task: _Task) -> _Reply:
        checker = self._take()
        if checker is None:
            return _Reply(check=unscored("crashed", task.answer), final=False)
        try:
            is_command = task.domain == command_checks.DOMAIN
            reply = checker.ask(task, self._limits.command.wall_secs if is_command else self._wall_seconds)
        except (Gone, TimeoutError, OSError, msgspec.DecodeError) as error:
            self._checkers.discard(checker)
            checker.close()
            reason: answers.Reason = "timeout" if isinstance(error, TimeoutError) else "crashed"
            logging.getLogger(__name__).warning("a check ended from outside (%r) and is unscored: %s", error, reason)
            return _Reply(check=unscored(reason, task.answer), final=False)
        self._idle.put(checker)
        check = msgspec.structs.replace(reply.check, detail=hide_secrets(reply.check.detail))
        return msgspec.structs.replace(reply, check=check)

    def _take(self) -> _Checker | None:
        """A checker that lives; None once the pool is closed."""
        while not self._closed.is_set():
            try:
                checker = self._idle.get_nowait()
            except queue.Empty:
                checker = _Checker(self._limits)
                self._checkers.add(checker)
                if self._closed.is_set():
                    checker.kill()
            if checker.is_alive():
                return checker
            self._checkers.discard(checker)
            checker.close()
        return None

    def close(self) -> None:
        """Kills the processes, from any thread and also twice; checks under way end as `crashed`."""
        self._closed.set()
        for checker in list(self._checkers):
            checker.kill()
        self._executor.shutdown(wait=True)
        _close_all(self._checkers)
        if self._folder:
            self._folder.cleanup()


def _die_with(parent: int) -> None:
    """Has the kernel kill this process when its parent ends, also with kill -9."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _serve(limits: _Limits) -> NoReturn:
    """The checker process: loads, then forks for each request until its input ends."""
    requests, replies = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1):  # Libraries that print must not write into the replies.
        os.dup2(nothing, stream)
    logging.disable()
    for answer in (r"\sqrt{4}", "(x+1)^2", r"[0, \pi)", "x < 3", r"\{1, a\}"):
        answers.compare(answer, "x + 1", "math")  # Fills the parser's tables, which every task then inherits.
    gc.freeze()  # Else the collector of each task would touch, and so copy, every page that it shares with this.
    while True:
        try:
            task = msgspec.msgpack.decode(read_frame(requests), type=_Task)
        except Gone:
            os._exit(0)
        if task.domain == "reasoning_gym":
            importlib.import_module("reasoning_gym")
        write_frame(replies, b"")
        is_command = task.domain == command_checks.DOMAIN and limits.command.command
        reply = (
            _as_command(task, limits, requests, replies) if is_command else _in_fork(task, limits, requests, replies)
        )
        write_frame(replies, msgspec.msgpack.encode(reply))


def _as_command(task: _Task, limits: _Limits, requests: int, replies: int) -> _Reply:
    """Starts the command on the task's answer. It ends with this process, whoever ends this one."""
    settings, folder, checker = limits.command, pathlib.Path(limits.folder, f"{os.getpid()}"), os.getpid()
    command_checks.place(task.answer, task.gold, settings, folder)
    (output, to_parent), (trouble, about_start) = os.pipe(), os.pipe()
    child = os.fork()
    if not child:
        for pipe in (output, trouble, requests, replies):
            os.close(pipe)
        _die_with(checker)
        sandbox.limit(settings.cpu_secs, settings.memory_mb)
        command_checks.start(settings, folder, output=to_parent, trouble=about_start)
    os.close(to_parent)
    os.close(about_start)
    run = command_checks.watch(child, settings, output=output, trouble=trouble)
    os.close(output)
    os.close(trouble)
    check, is_final = command_checks.decide(run, task.answer, settings, folder)
    return _Reply(check=check, final=is_final)


def _in_fork(task: _Task, limits: _Limits, requests: int, replies: int) -> _Reply:
    result, to_parent = os.pipe()
    secret, to_child = os.pipe()
    checker = os.getpid()
    child = os.fork()
    if not child:
        for pipe in (result, to_child, requests, replies):
            os.close(pipe)
        _run_task(task, limits, checker, to_parent, secret)
    token = code_tests.new_token()
    os.write(to_child, token)
    for pipe in (to_parent, to_child, secret):
        os.close(pipe)
    poll = select.poll()
    poll.register(result, select.POLLIN)
    poll.register(requests, select.POLLIN)
    if any(pipe == requests for pipe, _ in poll.poll()):  # One request at a time: this can only be its end.
        os.kill(child, signal.SIGKILL)
        os._exit(0)
    check = _read_result(task, result, token)
    os.close(result)
    if task.domain == "code":
        os.kill(child, signal.SIGKILL)  # It may have closed the pipe, or written nonsense, and go on.
    _, status, used = os.wait4(child, 0)
    if check is not None:
        return _Reply(check=check, final=True)
    ended_by = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    # The hard limit, which holds where a program switched the timer's signal off, kills without a word.
    undone = ended_by == signal.SIGKILL and used.ru_utime + used.ru_stime >= limits.cpu_seconds
    spent = undone or ended_by in (signal.SIGPROF, signal.SIGXCPU)
    return _Reply(check=unscored("timeout" if spent else "crashed", task.answer), final=spent)


def _read_result(task: _Task, result: int, token: bytes) -> Check | None:
    """What the task found; None where it ended without."""
    if task.domain == "code":
        return code_tests.read_check(task.answer, task.gold, result, token)
    try:
        return msgspec.msgpack.decode(read_frame(result), type=Check)
    except Gone:
        return None


def _run_task(task: _Task, limits: _Limits, checker: int, result: int, secret: int) -> NoReturn:
    """Runs in the forked process, which ends with it."""
    _die_with(checker)
    sandbox.limit(limits.cpu_seconds, limits.memory_mb)
    if task.domain == "code":
        code_tests.judge(task.answer, task.gold, task.metadata, secret=secret, result=result)
    try:
        check = answers.compare(task.answer, task.gold, task.domain, task.metadata)
    except MemoryError:
        check = unscored("crashed", task.answer)
    write_frame(result, msgspec.msgpack.encode(check))
    os._exit(0)


if __name__ == "__main__":
    _given = msgspec.json.decode(sys.argv[1], type=_Limits)
    _die_with(_given.parent)
    _serve(_given)
