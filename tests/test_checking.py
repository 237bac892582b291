import asyncio
import contextlib
import gc
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
import weakref

import pytest

from pipelines import checking
from pipelines.checking import CheckerPool
from schemas import Problem

ROOT = pathlib.Path(__file__).parents[1]
ENDLESS = "9^{9^{9^9}}"


def problem(gold="5", domain="math", metadata="{}"):
    return Problem(id="p", source="test", domain=domain, question="?", answer=gold, metadata=metadata)


@contextlib.contextmanager
def a_pool(**options):
    pool = CheckerPool(**{"cpu_seconds": 5.0, "wall_seconds": 60.0} | options)
    try:
        yield pool
    finally:
        pool.close()


def check(pool, answer, gold="5", domain="math", metadata="{}"):
    return asyncio.run(pool.check(f"Answer: {answer}", problem(gold, domain, metadata)))


def is_running(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def children_of(pid):
    return [int(child) for child in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


async def until(condition):
    for _ in range(600):
        if condition():
            return
        await asyncio.sleep(0.05)
    pytest.fail("waited 30 s in vain")


def test_cheap_answers_need_no_process():
    with a_pool() as pool:
        assert check(pool, "5.0").outcome == "correct"
        assert check(pool, "6").outcome == "incorrect"
        assert check(pool, "B", "B", "choice").outcome == "correct"
        assert asyncio.run(pool.check("I give up", problem())).reason == "no_answer"
        assert pool.pids == ()


def test_algebra_and_scorers_run_in_a_process():
    entry = {"answer": "x**2 + C", "metadata": {"variable": "x", "integrand": "2*x"}}
    metadata = json.dumps({"dataset": "simple_integration", "entry": entry})
    with a_pool() as pool:
        assert check(pool, "\\sqrt{25}").outcome == "correct"
        assert check(pool, "\\sqrt{26}").outcome == "incorrect"
        assert check(pool, "x*x + C", "", "reasoning_gym", metadata).outcome == "correct"
        assert check(pool, "x*x*x + C", "", "reasoning_gym", metadata).outcome == "incorrect"
        assert len(pool.pids) == 1


def test_spent_cpu_time_is_unscored_and_the_next_check_works():
    with a_pool(cpu_seconds=0.5) as pool:
        assert check(pool, ENDLESS).reason == "timeout"
        assert check(pool, "\\sqrt{25}").outcome == "correct"


def test_formula_that_never_ends_in_a_scorer_is_unscored():
    entry = {"answer": "x**2 + C", "metadata": {"variable": "x", "integrand": "2*x"}}
    metadata = json.dumps({"dataset": "simple_integration", "entry": entry})
    with a_pool(cpu_seconds=0.5) as pool:
        endless = check(pool, "(x+1)**999*(x+2)**999 + C", "", "reasoning_gym", metadata)
        assert endless.reason == "timeout"
        tower = check(pool, "9**9**9**9 + C", "", "reasoning_gym", metadata)
        assert tower.reason == "answer_unreadable"


def test_late_is_not_hanging():
    with a_pool(cpu_seconds=1.0, wall_seconds=1.0) as pool:
        pool._wall_seconds = 0.05  # Far less than the task takes: it computes, so it is waited for.
        assert check(pool, ENDLESS) == checking.unscored("timeout", ENDLESS)
        assert len(pool.pids) == 1


@pytest.mark.parametrize(("memory_mb", "outcome"), [(1, "unscored"), (1024, "incorrect")])
def test_memory_is_bounded_and_its_end_is_no_wrong_answer(memory_mb, outcome):
    powers = " + ".join(f"x^{{{power}}}" for power in range(160))
    with a_pool(memory_mb=memory_mb) as pool:
        assert check(pool, powers, "y").outcome == outcome
        assert check(pool, "5").outcome == "correct"


def test_wall_clock_ends_what_does_not_compute_and_is_not_kept():
    with a_pool(cpu_seconds=0.5, wall_seconds=0.5) as pool:
        task = checking._Task(answer=ENDLESS, gold="5", domain="math", metadata="{}")
        checker = pool._take()

        stopped = []

        def stop_the_task():
            while not children_of(checker.pid):
                time.sleep(0.001)
            stopped.extend(children_of(checker.pid))
            os.kill(stopped[0], signal.SIGSTOP)

        pool._idle.put(checker)
        stopper = threading.Thread(target=stop_the_task)
        stopper.start()
        reply = pool._ask(task)
        stopper.join()
        assert (reply.check.reason, reply.final) == ("timeout", False)
        asyncio.run(until(lambda: not is_running(stopped[0])))
        assert check(pool, "\\sqrt{25}").outcome == "correct"


async def killed_in_flight(pool, times, victim):
    """What a check that costs all its CPU time comes to while `victim(checker)` is killed so often during it."""
    in_flight = asyncio.create_task(pool.check(f"Answer: {ENDLESS}", problem()))
    killed = set()
    while len(killed) < times:
        await until(lambda: any(set(children_of(pid)) - killed for pid in pool.pids))
        (checker,) = pool.pids
        (task,) = children_of(checker)
        os.kill(victim(checker, task), signal.SIGKILL)
        killed.add(task)
        await until(lambda task=task: not is_running(task))
    return await in_flight


CHECKER, TASK = (lambda checker, task: checker), (lambda checker, task: task)


@pytest.mark.parametrize("victim", [CHECKER, TASK], ids=["checker", "task"])
@pytest.mark.parametrize(("times", "reason"), [(1, "timeout"), (2, "timeout"), (3, "crashed")])
def test_check_that_is_killed_is_done_again_a_bounded_number_of_times(victim, times, reason):
    async def scenario(pool):
        assert (await killed_in_flight(pool, times, victim)).reason == reason
        assert (await pool.check("Answer: \\sqrt{25}", problem())).outcome == "correct"

    with a_pool(cpu_seconds=1.0) as pool:
        asyncio.run(scenario(pool))


def test_checker_lives_on_when_its_task_is_killed():
    async def scenario(pool):
        await pool.check("Answer: \\sqrt{25}", problem())
        before = pool.pids
        await killed_in_flight(pool, 1, TASK)
        assert pool.pids == before

    with a_pool(cpu_seconds=0.5) as pool:
        asyncio.run(scenario(pool))


def test_checker_killed_while_idle_costs_no_check():
    with a_pool() as pool:
        check(pool, "\\sqrt{25}")
        os.kill(pool.pids[0], signal.SIGKILL)
        asyncio.run(until(lambda: not pool.pids))
        assert check(pool, "\\sqrt{36}", "6").outcome == "correct"


@pytest.mark.parametrize("moment", ["idle", "in flight"])
def test_nothing_survives_kill_9_of_the_parent(moment):
    script = f"""
        import asyncio, sys
        from pipelines.checking import CheckerPool
        from schemas import Problem

        async def main():
            pool = CheckerPool(cpu_seconds=100.0, wall_seconds=100.0)
            problem = Problem(id="p", source="test", domain="math", question="?", answer="5")
            await pool.check("Answer: \\\\sqrt{{25}}", problem)
            print(pool.pids[0], flush=True)
            if {moment == "in flight"}:
                await pool.check("Answer: {ENDLESS}", problem)
            await asyncio.sleep(100)

        asyncio.run(main())
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, text=True)
    checker = int(parent.stdout.readline())
    if moment == "in flight":
        asyncio.run(until(lambda: children_of(checker)))
    started = [checker, *children_of(checker)]
    parent.kill()
    parent.communicate()
    asyncio.run(until(lambda: not any(map(is_running, started))))


def test_equal_checks_are_computed_once_and_kept(monkeypatch):
    asked = []

    def ask(self, task):
        asked.append(task)
        return checking._Reply(check=checking.unscored("timeout", task.answer), final=True)

    monkeypatch.setattr(CheckerPool, "_ask", ask)

    async def scenario(pool):
        solutions = [f"Step {i}\nAnswer: \\sqrt{{25}}" for i in range(20)]
        results = await asyncio.gather(*(pool.check(solution, problem()) for solution in solutions))
        assert {result.reason for result in results} == {"timeout"}
        await pool.check(solutions[0], problem())

    with a_pool() as pool:
        asyncio.run(scenario(pool))
    assert len(asked) == 1


def test_what_ended_from_outside_is_asked_again(monkeypatch):
    asked = []

    def ask(self, task):
        asked.append(task)
        return checking._Reply(check=checking.unscored("crashed", task.answer), final=False)

    monkeypatch.setattr(CheckerPool, "_ask", ask)
    with a_pool() as pool:
        assert [check(pool, "\\sqrt{25}").reason for _ in range(2)] == ["crashed", "crashed"]
    assert len(asked) == 2 * checking._MAX_ATTEMPTS


def test_cancelled_caller_does_not_take_the_answer_from_others():
    async def scenario(pool):
        impatient = asyncio.create_task(pool.check("Answer: \\sqrt{25}", problem()))
        patient = asyncio.create_task(pool.check("Answer: \\sqrt{25}", problem()))
        await asyncio.sleep(0)
        impatient.cancel()
        assert (await patient).outcome == "correct"

    with a_pool() as pool:
        asyncio.run(scenario(pool))


def test_many_checks_at_once_in_two_processes():
    async def scenario(pool):
        return await asyncio.gather(
            *(pool.check(f"Answer: \\sqrt{{{number**2}}}", problem(str(number))) for number in range(2, 62)),
            *(pool.check(f"Answer: \\sqrt{{{number**2 + 1}}}", problem(str(number))) for number in range(2, 62)),
        )

    with a_pool(num_workers=2) as pool:
        outcomes = [result.outcome for result in asyncio.run(scenario(pool))]
        assert outcomes == ["correct"] * 60 + ["incorrect"] * 60
        assert len(pool.pids) == 2


def test_close_ends_what_is_under_way():
    async def scenario(pool):
        in_flight = asyncio.create_task(pool.check(f"Answer: {ENDLESS}", problem()))
        await until(lambda: pool.pids and children_of(pool.pids[0]))
        pids = [*pool.pids, *children_of(pool.pids[0])]
        await asyncio.to_thread(pool.close)
        assert (await in_flight).reason == "crashed"
        await until(lambda: not any(map(is_running, pids)))
        with pytest.raises(RuntimeError, match="this CheckerPool is closed; make a new one"):
            await pool.check("Answer: \\sqrt{25}", problem())

    with a_pool() as pool:
        asyncio.run(scenario(pool))


def test_forgotten_pool_leaves_no_process():
    pool = CheckerPool()
    check(pool, "\\sqrt{25}")
    (checker,), reference = pool.pids, weakref.ref(pool)
    del pool
    gc.collect()
    asyncio.run(until(lambda: reference() is None and not is_running(checker)))


@pytest.mark.parametrize("options", [{"num_workers": 0}, {"cpu_seconds": 0}, {"cpu_seconds": 20}, {"memory_mb": 0}])
def test_senseless_limits_are_refused(options):
    with pytest.raises(ValueError, match="need num_workers >= 1, 0 < cpu_seconds <= wall_seconds and memory_mb >= 1"):
        CheckerPool(**options)


def test_checker_loads_neither_beam_nor_the_environment_of_its_parent(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    with a_pool() as pool:
        check(pool, "\\sqrt{25}")
        (checker,) = pool.pids
        assert b"secret" not in pathlib.Path(f"/proc/{checker}/environ").read_bytes()
        assert "apache_beam" not in pathlib.Path(f"/proc/{checker}/maps").read_text()


def hostile_answers():
    """Five hundred answers by families, the same on every run."""
    rng = random.Random(7)
    for n in range(25):
        digits, depth = rng.randint(5, 10**6), rng.choice([5, 50, 400, 10_000])
        noise = "".join(map(chr, rng.choices([*range(32), *range(127, 160), 0x202E, 0x2066, 0xD800, 0xFFFF], k=9)))
        yield from (
            "^".join(["9"] * (n + 2)),
            "9" + "^{9" * (n + 1) + "}" * (n + 1),
            "{" * 10 ** (1 + n % 6),
            "\\frac{1}{" * depth + "2" + "}" * depth,
            "\\sqrt{" * depth + "2" + "}" * depth,
            "(" * min(depth, 900) + "x" + ")" * min(depth, 900),
            f"5{noise}",
            f"{noise}5{noise}",
            "1" * digits,
            f"1e{digits}{digits}",
            f"2^{{{digits}{digits}{digits}}}",
            f"{digits}!!" + "!" * (n % 3),
            f"(x+1)^{{{digits}}} - x^{{{n}}}",
            f"\\sum_{{k=1}}^{{{digits}{digits}}} \\frac{{1}}{{k^{n}}}",
            f"\\int_0^{{{n}}} x^{{x^x}} \\sin(x^{n}) dx",
            "\\binom{" + str(digits) + "}{" + str(digits // 2) + "}",
            ", ".join(str(rng.random()) for _ in range(n * 8)),
            "x" * (n * 70) + "=" * n,
            "\\left[" * n + "\\begin{pmatrix} 1 & 2" + "\\\\ 3 & 4" * n + "\\end{pmatrix}",
            "".join(rng.choices("0123456789+-*/^_{}()[]\\$%&|<>=,.;:!?~ xyzπ√∞", k=rng.randint(1, 1_900))),
        )


def cpu_of(pid):
    """CPU seconds of a process with its ended children."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_five_hundred_hostile_answers_cost_at_most_their_cpu_seconds():
    cpu_seconds, inline, sandboxed = 0.5, [], []

    async def scenario(pool):
        await pool.check("Answer: \\sqrt{21}", problem())
        (checker,) = pool.pids
        for n, answer in enumerate(hostile_answers()):
            solution = f"Answer: {answer}" if n % 2 else f"so \\boxed{{{answer}}}"
            here, there = time.process_time(), cpu_of(checker)
            result = await pool.check(solution, problem("\\sqrt{5}"))
            assert result.outcome != "correct", answer[:200]
            inline.append(time.process_time() - here)
            sandboxed.append(cpu_of(checker) - there)
        assert (await pool.check("Answer: \\sqrt{20}/2", problem("\\sqrt{5}"))).outcome == "correct"
        assert pool.pids == (checker,)  # The same process from the first to the last.

    with a_pool(cpu_seconds=cpu_seconds) as pool:
        asyncio.run(scenario(pool))
    assert len(sandboxed) == 500
    assert max(sandboxed) <= cpu_seconds + 0.1  # The fork and the clock's ticks come on top.
    assert max(inline) < 0.1
