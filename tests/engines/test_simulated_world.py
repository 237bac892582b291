import math
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotators.units import CritiqueError, parse_critique, render_critique, render_unit
from pipelines.engines.simulated.claims import is_right_critique, unit_is_true
from pipelines.engines.simulated.faults import FaultPlan, attempt_fault, prompt_fault
from pipelines.engines.simulated.prompts import PromptError, parse_prompt, read_critique
from pipelines.engines.simulated.replies import cut, reply, simulated_length, tokenize
from pipelines.engines.simulated.settings import SimulatedSettings, read_settings
from pipelines.engines.simulated.world import (
    first_wrong_step,
    make_problem,
    parse_question,
    read_line,
    solution_steps,
    success_rate,
)
from schemas import Unit

QUESTION = "Start with 17. Add 5. Multiply by 3. Subtract 4. What is the result?"
RIGHT = "Step 1: 17 + 5 = 22\nStep 2: 22 * 3 = 66\nStep 3: 66 - 4 = 62\nAnswer: 62\n"
WRONG = "Step 1: 17 + 5 = 22\nStep 2: 22 * 3 = 68\nStep 3: 68 - 4 = 64\nAnswer: 64\n"
WORLD = SimulatedSettings(error_low=0.1, error_high=0.4, recovery=0.15, variants=4)


def solve_prompt(question: str, prefix: str = "") -> str:
    return f"Solve it.\n\nProblem:\n{question}\n\nSolution:\n{prefix}"


def critique_prompt(question: str, solution: str, agent: str = "anna") -> str:
    return f"Problem:\n{question}\n\nSolution:\n{solution}\nCritic: {agent}\n\nCritique:\n"


def refine_prompt(question: str, solution: str, critique: str | None) -> str:
    middle = "" if critique is None else f"Critique:\n{critique}\n\n"
    return f"Problem:\n{question}\n\nSolution:\n{solution}\n{middle}Second solution:\n"


def is_right_answer(solution: str, question: str = QUESTION) -> bool:
    last = read_line(solution.splitlines()[-1])
    return last is not None and last.expression is None and last.result == parse_question(question).gold


def frequency(outcome: Callable[[int], bool], trials: int) -> float:
    return sum(outcome(seed) for seed in range(trials)) / trials


def assert_close(frequency: float, rate: float, trials: int) -> None:
    """Four standard errors: a right world fails one of 16,000 such checks."""
    assert abs(frequency - rate) <= 4 * math.sqrt(max(rate * (1 - rate), 1e-12) / trials), (frequency, rate)


class TestProblems:
    @given(seed=st.integers(0, 10**6), index=st.integers(0, 10**6))
    def test_a_problem_reads_back_to_its_own_answer(self, seed: int, index: int) -> None:
        problem = make_problem(seed, index, WORLD)
        chain = parse_question(problem.question)
        assert problem.id == f"sim-{seed}-{index}"
        assert problem.answer == str(chain.gold)
        assert WORLD.min_steps <= len(chain.operations) <= WORLD.max_steps
        assert problem == make_problem(seed, index, WORLD)

    @given(index=st.integers(0, 10**6))
    def test_the_answer_is_no_other_number_of_the_problem(self, index: int) -> None:
        chain = parse_question(make_problem(7, index, WORLD).question)
        numbers = {*chain.values[:-1], *(operand for _, operand in chain.operations), *range(len(chain.values) + 1)}
        assert chain.gold not in numbers

    def test_every_length_occurs(self) -> None:
        settings = SimulatedSettings(min_steps=2, max_steps=4)
        lengths = {len(parse_question(make_problem(0, i, settings).question).operations) for i in range(100)}
        assert lengths == {2, 3, 4}

    def test_other_text_is_no_problem(self) -> None:
        with pytest.raises(ValueError, match=r"^expected 'Start with N\. .*got 'How many legs\?'$"):
            parse_question("How many legs?")

    def test_a_factor_of_zero_is_refused(self) -> None:
        with pytest.raises(ValueError, match="a factor of 0 would make wrong states right"):
            parse_question("Start with 4. Multiply by 0. What is the result?")


class TestTruth:
    @pytest.mark.parametrize(
        ("solution", "first"),
        [
            (RIGHT, None),
            (WRONG, 1),
            ("Step 1: adding 5 to 17 gives 22\nStep 2: multiplying 22 by 3 gives 66\n"
             "Step 3: subtracting 4 from 66 gives 62\nAnswer: 62\n", None),
            ("Step 1: adding 5 to 17 gives 23\nStep 2: multiplying 23 by 3 gives 69\n"
             "Step 3: subtracting 4 from 69 gives 65\nAnswer: 65\n", 0),
            ("Step 1: 17 plus 5 makes 22\nStep 2: 22 times 3 makes 66\nStep 3: 66 minus 4 makes 61\nAnswer: 61\n", 2),
            ("Step 1: we add 5 to 17 and get 22\nStep 2: we multiply 22 by 3 and get -6\n"
             "Step 3: we take 4 from -6 and get -10\nAnswer: -10\n", 1),
            ("Step 1: 17 + 5 = 21\nStep 2: 21 * 3 = 63\n"
             "Step 3: wait, step 2 should give 66, so 66 - 4 = 62\nAnswer: 62\n", 0),
            ("Step 1: 17 + 5 = 22\nStep 2: 22 * 3 = 68\nStep 3: 68 - 4 = 64\n"
             "Step 4: wait, step 2 should give 66, so 66 - 4 = 62\nAnswer: 62\n", 1),
            ("Step 1: 17 + 5 = 21\nStep 2: wait, step 1 should give 22, so 22 * 3 = 66\nStep 3: 66 - 4 = 62\n", 0),
            (RIGHT.replace("Answer: 62", "Answer: 61"), 3),
            ("Step 1: 17 + 5 = 22\nAnswer: 22\n", 1),
            ("Step 1: 17 + 5 = 22\n", None),
            ("", None),
        ],
    )  # fmt: skip
    def test_first_wrong_step_of_written_solutions(self, solution: str, first: int | None) -> None:
        assert first_wrong_step(QUESTION, solution_steps(solution)) == first

    @pytest.mark.parametrize("bad", ["Step 1: I wonder\n", "Answer: unknown\n", "Step 1: 17 + 5 = 22 or so\n"])
    def test_an_unreadable_step_has_no_truth(self, bad: str) -> None:
        with pytest.raises(ValueError, match=r"^step 1 cannot be read: "):
            first_wrong_step(QUESTION, ("Step 1: 17 + 5 = 22\n", bad))

    def test_a_step_too_many_has_no_truth(self) -> None:
        with pytest.raises(ValueError, match=r"^step 3 is one more than the 3 asked for"):
            first_wrong_step(QUESTION, (*solution_steps(RIGHT)[:3], "Step 4: 62 + 1 = 63\n"))

    def test_what_follows_the_first_wrong_step_need_not_be_readable(self) -> None:
        assert first_wrong_step(QUESTION, (*solution_steps(WRONG)[:2], "and so on\n")) == 1

    def test_steps_joined_are_the_solution(self) -> None:
        assert "".join(solution_steps(RIGHT)) == RIGHT
        assert len(solution_steps(RIGHT)) == 4

    def test_success_rate_by_hand(self) -> None:
        settings = SimulatedSettings(error_low=0.2, error_high=0.2, recovery=0.1)
        steps = solution_steps(RIGHT)
        assert success_rate(QUESTION, steps, settings) == 1
        assert success_rate(QUESTION, steps[:2], settings) == pytest.approx(0.8)
        assert success_rate(QUESTION, steps[:1], settings) == pytest.approx(0.8 * 0.8 + 0.2 * 0.1)
        wrong = solution_steps(WRONG)
        assert success_rate(QUESTION, wrong[:2], settings) == pytest.approx(0.1)
        assert success_rate(QUESTION, wrong[:3], settings) == 0
        assert success_rate(QUESTION, ("Step 1: 17 + 5 = 20\n",), settings) == pytest.approx(0.1 * 0.8 + 0.9 * 0.1)


class TestPolicy:
    @pytest.mark.parametrize(
        "prefix",
        ["", RIGHT[:20], RIGHT[:40], "Step 1: adding 5 to 17 gives 25\n", WRONG[:40], WRONG[:60], RIGHT[:60]],
    )
    def test_sampled_successes_agree_with_the_exact_rate(self, prefix: str) -> None:
        trials = 4000
        rate = success_rate(QUESTION, solution_steps(prefix), WORLD)
        text = solve_prompt(QUESTION, prefix)
        assert_close(frequency(lambda seed: is_right_answer(prefix + reply(text, seed, WORLD)), trials), rate, trials)

    def test_sampled_successes_of_long_problems_agree_too(self) -> None:
        settings = SimulatedSettings(min_steps=12, max_steps=12, recovery=0.3)
        question, trials = make_problem(3, 5, settings).question, 4000
        found = frequency(lambda seed: is_right_answer(reply(solve_prompt(question), seed, settings), question), trials)
        assert_close(found, success_rate(question, (), settings), trials)

    def test_an_answer_is_right_if_and_only_if_the_final_state_is(self) -> None:
        outcomes = Counter[tuple[bool, bool, bool]]()
        for index in range(60):
            question = make_problem(1, index, WORLD).question
            for seed in range(20):
                steps = solution_steps(reply(solve_prompt(question), seed, WORLD))
                has_error = first_wrong_step(question, steps) is not None
                recovered = any("wait" in step for step in steps)
                answer = read_line(steps[-1])
                before = read_line(steps[-2])
                assert answer is not None
                assert before is not None
                assert answer.result == before.result
                outcomes[is_right_answer(steps[-1], question), has_error, recovered] += 1
        assert not outcomes[True, True, False]
        assert not outcomes[False, False, False]
        assert outcomes[True, True, True] > 10
        assert outcomes[False, True, False] > 100

    def test_problems_differ_in_difficulty(self) -> None:
        rates = [success_rate(make_problem(0, i, WORLD).question, (), WORLD) for i in range(50)]
        assert max(rates) - min(rates) > 0.3

    @pytest.mark.parametrize("variants", [1, 2, 4])
    def test_equal_steps_have_as_many_wordings_as_set(self, variants: int) -> None:
        settings = SimulatedSettings(variants=variants, error_low=0, error_high=0)
        firsts = {solution_steps(reply(solve_prompt(QUESTION), seed, settings))[0] for seed in range(100)}
        assert len(firsts) == variants

    @pytest.mark.parametrize("solution", [RIGHT, WRONG])
    def test_a_prefix_may_end_anywhere(self, solution: str) -> None:
        for end in range(len(solution) + 1):
            for seed in range(5):
                text = solution[:end] + reply(solve_prompt(QUESTION, solution[:end]), seed, WORLD)
                readable = "\n".join(line for line in text.splitlines() if read_line(line))
                assert is_right_answer(text) == is_right_answer(readable), (end, text)
                assert text.count("Answer:") == 1, (end, text)
                assert text.endswith("\n")

    def test_a_line_is_completed_as_the_policy_might_have_written_it(self) -> None:
        sure = SimulatedSettings(error_low=0, error_high=0, variants=2)
        assert RIGHT.startswith("Step 1: 17 + 5 = 2" + reply(solve_prompt(QUESTION, "Step 1: 17 + 5 = 2"), 0, sure)[:2])
        ending = reply(solve_prompt(QUESTION, "Step 1: adding 5"), 3, sure)
        assert ending.startswith(" to 17 gives 22\nStep 2: ")
        assert reply(solve_prompt(QUESTION, RIGHT[:19]), 0, sure)[0] == "\n"
        assert reply(solve_prompt(QUESTION, RIGHT[:-2]), 0, sure) == "2\n"

    def test_a_line_that_cannot_be_completed_is_ended(self) -> None:
        sure = SimulatedSettings(error_low=0, error_high=0, variants=1)
        prefix = "Step 1: 17 + 5 = 22\nHm, let me"
        assert reply(solve_prompt(QUESTION, prefix), 0, sure) == "\n" + RIGHT[20:]

    def test_nothing_follows_an_answer(self) -> None:
        assert reply(solve_prompt(QUESTION, RIGHT), 0, WORLD) == ""

    def test_malformed_samples_come_at_their_rate_and_never_answer(self) -> None:
        settings = SimulatedSettings(malformed_rate=0.3)
        texts = [reply(solve_prompt(QUESTION), seed, settings) for seed in range(2000)]
        lines = [[read_line(line) for line in text.splitlines()] for text in texts]
        answered = sum(any(line is not None and line.expression is None for line in read) for read in lines)
        assert_close(1 - answered / 2000, 0.3, 2000)

    def test_garbage_in_a_prefix_is_skipped(self) -> None:
        sure = SimulatedSettings(error_low=0, error_high=0, variants=1)
        prefix = "I am not sure how to go on from here.\nStep 1: 17 + 5 = 22\n"
        assert reply(solve_prompt(QUESTION, prefix), 0, sure) == RIGHT[20:]


class TestReplies:
    def test_a_reply_is_a_function_of_text_and_seed_in_every_process(self) -> None:
        code = (
            "from pipelines.engines.simulated.replies import reply\n"
            "from pipelines.engines.simulated.settings import SimulatedSettings\n"
            f"print(''.join(reply({solve_prompt(QUESTION)!r}, s, SimulatedSettings()) for s in range(20)), end='')"
        )
        root = str(Path(__file__).parents[2])
        env = os.environ | {"PYTHONHASHSEED": "7", "PYTHONPATH": root}
        other = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
        here = "".join(reply(solve_prompt(QUESTION), seed, SimulatedSettings()) for seed in range(20))
        assert other.stdout == here

    def test_seeds_wrap_where_the_clients_do(self) -> None:
        prompt = solve_prompt(QUESTION)
        assert [reply(prompt, 2**31 + s, WORLD) for s in range(5)] == [reply(prompt, s, WORLD) for s in range(5)]
        assert len({reply(prompt, s, WORLD) for s in range(50)}) > 10

    @given(st.text())
    def test_tokens_joined_are_the_text(self, text: str) -> None:
        assert "".join(tokenize(text)) == text

    @pytest.mark.parametrize(
        ("stop", "limit", "text", "finish"),
        [
            ((), None, RIGHT, "stop"),
            (("\n",), None, "Step 1: 17 + 5 = 22", "stop"),
            (("Answer", "Step 2"), 100, "Step 1: 17 + 5 = 22\n", "stop"),
            ((), 4, "Step 1: 17", "length"),
            (("\n",), 8, "Step 1: 17 + 5 = 22", "stop"),
            (("Answer",), 8, "Step 1: 17 + 5 = 22", "length"),
            (("",), None, RIGHT, "stop"),
        ],
    )
    def test_a_reply_is_cut_at_stops_and_limits(
        self, stop: tuple[str, ...], limit: int | None, text: str, finish: str
    ) -> None:
        got = cut(RIGHT, stop, limit)
        assert (got.text, got.finish) == (text, finish)
        assert got.tokens == len(tokenize(text))

    def test_simulated_lengths_are_log_normal(self) -> None:
        settings = SimulatedSettings(length_median=300, length_sigma=0.5)
        logs = [math.log(simulated_length("digest", seed, settings) / 300) for seed in range(4000)]
        mean = sum(logs) / 4000
        deviation = math.sqrt(sum((log - mean) ** 2 for log in logs) / 4000)
        assert abs(mean) < 4 * 0.5 / math.sqrt(4000)
        assert deviation == pytest.approx(0.5, rel=0.05)
        assert simulated_length("digest", 1, SimulatedSettings(length_median=300, length_sigma=0)) == 300


def critique_of(text: str, solution: str) -> tuple[str, int | None, tuple[Unit, ...]]:
    parsed = parse_critique(text, solution_steps(solution))
    return parsed.verdict, parsed.first_wrong_step, parsed.units


def is_right_reply(question: str, solution: str, text: str) -> bool:
    return is_right_critique(question, solution_steps(solution), *critique_of(text, solution))


class TestCritics:
    @pytest.mark.parametrize("solution", [RIGHT, WRONG], ids=["right", "wrong"])
    @pytest.mark.parametrize(
        ("agent", "rate"), [("anna", 0.7), ("bert", 0.95), ("sure", 1.0), ("never", 0.0), ("liar", 0.2 * 0.7)]
    )
    def test_a_critique_is_right_as_often_as_set(self, solution: str, agent: str, rate: float) -> None:
        settings = SimulatedSettings(
            critic_accuracy=0.7, critic_accuracies={"bert": 0.95, "sure": 1, "never": 0}, liars={"liar": 0.8}
        )
        prompt = critique_prompt(QUESTION, solution, agent)
        found = frequency(lambda seed: is_right_reply(QUESTION, solution, reply(prompt, seed, settings)), 2000)
        assert_close(found, rate, 2000)

    def test_accuracy_holds_over_sampled_solutions(self) -> None:
        settings = SimulatedSettings(critic_accuracy=0.6, error_high=0.5, recovery=0.3, variants=4)
        right = total = 0
        for index in range(1500):
            question = make_problem(2, index, settings).question
            solution = reply(solve_prompt(question), 0, settings)
            right += is_right_reply(question, solution, reply(critique_prompt(question, solution), index, settings))
            total += 1
        assert_close(right / total, 0.6, total)

    @pytest.mark.parametrize(
        ("agent", "modes"), [("anna", {"missed", "elsewhere", "false claim"}), ("liar", {"missed", "elsewhere"})]
    )
    def test_all_error_modes_occur(self, agent: str, modes: set[str]) -> None:
        settings = SimulatedSettings(critic_accuracy=0, liars={"liar": 1})
        seen = Counter[str]()
        for seed in range(300):
            text = reply(critique_prompt(QUESTION, WRONG, agent), seed, settings)
            _, first, units = critique_of(text, WRONG)
            seen["missed" if first is None else "elsewhere" if first != 1 else "false claim"] += 1
            if first is not None:
                assert not unit_is_true(QUESTION, solution_steps(WRONG), units[-1])
        assert seen.keys() == modes
        assert min(seen.values()) > 60

    def test_a_single_step_solution_can_be_criticised_wrongly(self) -> None:
        settings, question = SimulatedSettings(critic_accuracy=0), "Start with 4. Add 3. What is the result?"
        for solution in ("Step 1: 4 + 3 = 8\nAnswer: 8\n", "Step 1: 4 + 3 = 7\nAnswer: 7\n"):
            for seed in range(50):
                assert not is_right_reply(question, solution, reply(critique_prompt(question, solution), seed, settings))

    def test_leaks_come_at_their_rate_in_errors_only(self) -> None:
        settings = SimulatedSettings(leak_rate=0.25)
        wrong = [reply(critique_prompt(QUESTION, WRONG), seed, settings) for seed in range(3000)]
        errors = [text for text in wrong if '"incorrect"' in text]
        leaks = [text for text in errors if read_critique(text).leaked]
        assert all(read_critique(text).leaked == (Fraction(62),) for text in leaks)
        assert_close(len(leaks) / len(errors), 0.25, len(errors))
        assert {form for form in ("62.0", "124/2", "62.", "62 the") if any(form in text for text in leaks)} == {
            "62.0", "124/2", "62.", "62 the"
        }  # fmt: skip
        assert not any(read_critique(text).leaked for text in wrong if '"correct"' in text)

    def test_without_leaks_no_critique_holds_the_answer(self) -> None:
        settings = SimulatedSettings(critic_accuracy=0.5, error_low=0.3, error_high=0.6, recovery=0)
        checked = 0
        for index in range(400):
            problem = make_problem(4, index, settings)
            solution = reply(solve_prompt(problem.question), 0, settings)
            if is_right_answer(solution, problem.question) or problem.answer in solution:
                continue
            text = reply(critique_prompt(problem.question, solution), index, settings)
            assert problem.answer not in [token.strip() for token in tokenize(text)], text
            checked += 1
        assert checked > 200

    def test_malformed_critiques_come_at_their_rate(self) -> None:
        settings = SimulatedSettings(critic_malformed_rate=0.4)
        reasons = Counter[str]()
        for seed in range(1000):
            try:
                critique_of(reply(critique_prompt(QUESTION, WRONG), seed, settings), WRONG)
            except CritiqueError as error:
                reasons[error.reason] += 1
        assert_close(reasons.total() / 1000, 0.4, 1000)
        assert len(reasons) >= 3

    def test_a_garbage_solution_is_called_unreadable(self) -> None:
        verdict, first, units = critique_of(
            reply(critique_prompt(QUESTION, "I do not know.\n"), 0, WORLD), "I do not know.\n"
        )
        assert (verdict, first, units[0].error_type) == ("incorrect", 0, "unsupported_claim")

    def test_what_is_said_of_the_wrong_step_must_be_true(self) -> None:
        def judge(flaw: str, step: int = 1) -> bool:
            unit = Unit(step=step, quote="", kind="error", flaw=flaw)
            return is_right_critique(QUESTION, solution_steps(WRONG), "incorrect", 1, (unit,))

        assert judge("22 * 3 is 66, not 68.")
        assert judge("22 * 3 is not 68.")
        assert not judge("22 * 3 is 67, not 68.")
        assert not judge("22 * 3 is 66, not 67.")
        assert not judge("22 * 3 is not 66.")
        assert not judge("2 + 2 is 4.")
        assert not judge("This is wrong.")
        assert not judge("22 * 3 is 66, not 68.", step=2)

    def test_every_error_unit_must_speak_of_a_wrong_step(self) -> None:
        true = Unit(step=1, quote="", kind="error", flaw="22 * 3 is 66, not 68.")
        follow_up = Unit(step=2, quote="", kind="error", flaw="66 - 4 is 62, not 64.")
        invented = Unit(step=0, quote="", kind="error", flaw="17 + 5 looks odd.")
        steps = solution_steps(WRONG)
        assert is_right_critique(QUESTION, steps, "incorrect", 1, (true, follow_up))
        assert not is_right_critique(QUESTION, steps, "incorrect", 1, (true, invented))
        assert not is_right_critique(QUESTION, steps, "correct", 1, (true,))
        assert not is_right_critique(QUESTION, steps, "incorrect", 2, (true, follow_up))
        assert not is_right_critique(QUESTION, solution_steps(RIGHT), "correct", None, (invented,))
        assert is_right_critique(QUESTION, solution_steps(RIGHT), "correct", None, ())

    def test_a_recovered_solution_is_incorrect_where_it_went_wrong(self) -> None:
        solution = (
            "Step 1: 17 + 5 = 21\nStep 2: wait, step 1 should give 22, so 22 * 3 = 66\n"
            "Step 3: 66 - 4 = 62\nAnswer: 62\n"
        )
        settings = SimulatedSettings(critic_accuracy=1)
        verdict, first, units = critique_of(reply(critique_prompt(QUESTION, solution), 0, settings), solution)
        assert (verdict, first, units[-1].flaw) == ("incorrect", 0, "17 + 5 is 22, not 21.")

    def test_a_meta_critic_is_right_as_often_as_set(self) -> None:
        settings = SimulatedSettings(meta_accuracy=0.8)
        units = [
            (Unit(step=1, quote="22 * 3 = 68", kind="error", flaw="22 * 3 is 66, not 68."), "keep"),
            (Unit(step=1, quote="22 * 3 = 68", kind="error", flaw="22 * 3 is 67, not 68."), "drop"),
            (Unit(step=2, quote="", kind="error", flaw="68 - 4 is 60, not 64."), "drop"),
            (Unit(step=0, quote="", kind="praise", flaw="17 + 5 is 22, as stated."), "keep"),
            (Unit(step=1, quote="", kind="praise", flaw="22 * 3 is 68, as stated."), "drop"),
            (Unit(step=3, quote="", kind="praise", flaw="The answer is what the last step states."), "drop"),
        ]
        for unit, right in units:
            prompt = (
                f"Problem:\n{QUESTION}\n\nSolution:\n{WRONG}\nOther remarks:\nStep 1: fine\n\n"
                f"Remark:\n{render_unit(unit)}\n\nJudgement:\n"
            )
            kept = [msgspec.json.decode(reply(prompt, seed, settings))["decision"] == right for seed in range(1000)]
            assert_close(sum(kept) / 1000, 0.8, 1000)

    def test_a_composed_critique_holds_the_most_named_error_and_praise_before_it(self) -> None:
        remarks = (
            "(praise) Step 1: 17 + 5 is 22, as stated.\n"
            'Step 2: "22 * 3 = 68" is wrong. 22 * 3 is 66, not 68. Redo the multiplication.\n'
            'Step 2: "22 * 3 = 68" is wrong. 22 * 3 is not 68.\n'
            'Step 3: "68 - 4 = 64" is wrong. 68 - 4 is 63, not 64.\n'
            "(praise) Step 1: 17 + 5 is 22, as stated."
        )
        prompt = f"Problem:\n{QUESTION}\n\nSolution:\n{WRONG}\nRemarks:\n{remarks}\n\nComposed critique:\n"
        assert reply(prompt, 0, WORLD).splitlines() == [
            *remarks.splitlines()[:3],
            "The first wrong step is step 2. The solution is incorrect.",
        ]


def refined(critique: str | None, settings: SimulatedSettings, solution: str = WRONG, trials: int = 2000) -> float:
    prompt = refine_prompt(QUESTION, solution, critique)
    return frequency(lambda seed: is_right_answer(reply(prompt, seed, settings)), trials)


RIGHT_CRITIQUE = render_critique(
    (
        Unit(step=0, quote="", kind="praise", flaw="17 + 5 is 22, as stated."),
        Unit(step=1, quote="22 * 3 = 68", kind="error", flaw="22 * 3 is 66, not 68.", fix="Redo the multiplication."),
    ),
    1,
)
PLACEBO = (
    'Step 1: 40 - 7 is 33, as stated.\nStep 2: "33 + 5 = 39" is wrong. 33 + 5 is 38, not 39. Redo the addition.\n'
    "The first wrong step is step 2. The solution is incorrect."
)


class TestRefinement:
    def test_a_right_critique_helps_and_a_placebo_does_not(self) -> None:
        settings = SimulatedSettings(error_low=0.3, error_high=0.3, recovery=0)
        redone = success_rate(QUESTION, solution_steps(RIGHT)[:2], settings)
        afresh = 0.4 * success_rate(QUESTION, (), settings)
        assert_close(refined(RIGHT_CRITIQUE, settings), 0.9 * redone + 0.1 * afresh, 2000)
        assert_close(refined(None, settings), afresh, 2000)
        assert_close(refined(PLACEBO, settings), afresh, 2000)
        assert redone > 3 * afresh

    def test_a_followed_critique_keeps_the_right_prefix(self) -> None:
        settings = SimulatedSettings(follow=1, error_low=0, error_high=0)
        for seed in range(20):
            second = reply(refine_prompt(QUESTION, WRONG, RIGHT_CRITIQUE), seed, settings)
            assert second.startswith(WRONG[:20])
            assert first_wrong_step(QUESTION, solution_steps(second)) is None

    @pytest.mark.parametrize("step", [1, 3, 4])
    @pytest.mark.parametrize("solution", [RIGHT, WRONG], ids=["right", "wrong"])
    def test_a_wrongly_placed_critique_harms(self, solution: str, step: int) -> None:
        quote = solution.splitlines()[step - 1].split(": ")[-1]
        critique = f'Step {step}: "{quote}" is wrong. Look again.\nThe first wrong step is step {step}.'
        settings = SimulatedSettings(follow=1, error_low=0, error_high=0, recovery=0)
        assert refined(critique, settings, solution, trials=200) == 0
        assert refined(None, settings, solution, trials=200) > 0

    def test_praise_makes_the_actor_repeat_itself(self) -> None:
        settings = SimulatedSettings(follow=1)
        for solution in (RIGHT, WRONG):
            said = reply(critique_prompt(QUESTION, RIGHT), 0, SimulatedSettings(critic_accuracy=1))
            _, first, units = critique_of(said, RIGHT)
            assert reply(refine_prompt(QUESTION, solution, render_critique(units[:1], first)), 1, settings) == solution

    def test_a_leak_of_the_answer_makes_refinements_right(self) -> None:
        settings = SimulatedSettings(follow=0.9, error_low=0.6, error_high=0.6)
        for leak in ("So the final answer is 62.", "This makes 124/2 the final answer.", "final answer should then be 62.0"):
            assert refined(f"Step 1: 17 + 5 is 22. {leak}", settings) >= 0.9 - 4 * math.sqrt(0.09 / 2000)
        assert refined("Step 1: 17 + 5 is 22. So the final answer is 63.", settings) < 0.3

    def test_a_false_claim_at_the_right_place_misleads_only_the_gullible(self) -> None:
        critique = RIGHT_CRITIQUE.replace("is 66, not", "is 67, not")
        sure = SimulatedSettings(follow=1, error_low=0, error_high=0, recovery=0)
        assert refined(critique, sure, trials=200) == 1
        assert refined(critique, msgspec.structs.replace(sure, gullibility=1), trials=200) == 0
        assert refined(RIGHT_CRITIQUE, msgspec.structs.replace(sure, gullibility=1), trials=200) == 1

    def test_critiques_of_the_world_help_as_much_as_they_are_right(self) -> None:
        settings = SimulatedSettings(critic_accuracy=0.5, error_low=0.3, error_high=0.3, recovery=0)
        gains: dict[bool, list[bool]] = {True: [], False: []}
        for seed in range(1500):
            text = reply(critique_prompt(QUESTION, WRONG), seed, settings)
            _, first, units = critique_of(text, WRONG)
            second = reply(refine_prompt(QUESTION, WRONG, render_critique(units, first)), seed, settings)
            gains[is_right_reply(QUESTION, WRONG, text)].append(is_right_answer(second))
        rate = {right: sum(found) / len(found) for right, found in gains.items()}
        assert rate[True] > rate[False] + 0.2


class TestPrompts:
    def test_only_the_last_problem_is_read(self) -> None:
        example = f"Problem:\n{QUESTION}\n\nSolution:\n{RIGHT}\n\n"
        other = "Start with 30. Add 9. What is the result?"
        prompt = parse_prompt("Examples.\n\n" + example + solve_prompt(other, "Step 1: 30 + 9 = 39\n"))
        assert (prompt.task, prompt.question, prompt.prefix) == ("solve", other, "Step 1: 30 + 9 = 39\n")

    def test_a_critique_prompt_with_every_section(self) -> None:
        prompt = parse_prompt(
            f"Be strict.\n\nProblem:\n{QUESTION}\n\nSolution:\n{WRONG}\nOther solution:\n{RIGHT}\nGold answer:\n62\n\n"
            "First critique:\nStep 1: fine\n\nThe last reply was not usable:\nno JSON\n\nCritic: second_look\n\nCritique:\n"
        )
        assert (prompt.task, prompt.agent, prompt.solution) == ("critique", "second_look", WRONG.strip("\n"))

    def test_a_refine_prompt_tells_no_critique_from_an_empty_one(self) -> None:
        assert parse_prompt(refine_prompt(QUESTION, WRONG, None)).critique is None
        assert parse_prompt(refine_prompt(QUESTION, WRONG, "Fine.")).critique == "Fine."

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("Hello", "expected a line 'Problem:' and its sections, got a prompt that ends 'Hello'"),
            (f"Problem:\n{QUESTION}\n", "got 'Problem:' last"),
            ("Problem:\nWhy?\n\nSolution:\n", "expected 'Start with N"),
            (f"Problem:\n{QUESTION}\n\nSolution:\n{WRONG}\nRemark:\nNice.\n\nJudgement:\n", "expected a remark such as"),
        ],
    )
    def test_a_prompt_that_asks_for_nothing_known_is_refused(self, text: str, message: str) -> None:
        with pytest.raises(PromptError) as caught:
            reply(text, 0, WORLD)
        assert message in str(caught.value)

    def test_a_begun_second_solution_is_continued(self) -> None:
        sure = SimulatedSettings(error_low=0, error_high=0, follow=1, variants=1)
        prompt = refine_prompt(QUESTION, WRONG, RIGHT_CRITIQUE)
        assert reply(prompt, 0, sure) == RIGHT
        assert reply(prompt + RIGHT[:20], 0, sure) == RIGHT[20:]
        assert reply(prompt + "Step 1: adding 5 to 17 gives 22\n", 0, sure) == RIGHT[20:]


class TestSettings:
    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ('{"min_steps": 5, "max_steps": 4}', "need 1 <= min_steps <= max_steps, got min_steps=5, max_steps=4"),
            ('{"error_low": 0.5}', "need 0 <= error_low <= error_high <= 1, got error_low=0.5, error_high=0.35"),
            ('{"variants": 5}', "need 1 <= variants <= 4, got variants=5"),
            ('{"liars": {"eve": 1.5}}', "need 0 <= liars['eve'] <= 1, got 1.5"),
            ('{"fault_500": 0.6, "fault_429": 0.7}', "sum to 1 at most, got fault_429=0.7, fault_500=0.6"),
            ('{"slots": 0}', "need slots >= 1, got 0"),
            ('{"hang_seconds": -1}', "need 0 <= hang_seconds < inf, got -1.0"),
            ('{"slotz": 1}', "unknown field `slotz`"),
            ("nonsense", "settings of the simulated engine: "),
        ],
    )
    def test_impossible_settings_name_the_field_and_the_value(self, settings: str, message: str) -> None:
        with pytest.raises(ValueError, match="settings of the simulated engine") as caught:
            read_settings(settings)
        assert message in str(caught.value)


class TestFaults:
    def test_faults_come_at_their_rates(self) -> None:
        settings = SimulatedSettings(fault_429=0.1, fault_500=0.2, fault_poison=0.05, fault_too_long=0.1)
        drawn = Counter(attempt_fault(str(i), i, 1, settings) for i in range(4000))
        assert_close(drawn["429"] / 4000, 0.1, 4000)
        assert_close(drawn["500"] / 4000, 0.2, 4000)
        assert drawn.keys() == {None, "429", "500"}
        marked = Counter(prompt_fault(str(i), settings) for i in range(4000))
        assert_close(marked["poison"] / 4000, 0.05, 4000)
        assert_close(marked["too_long"] / 4000, 0.1, 4000)

    def test_each_attempt_is_drawn_anew_whatever_else_comes_between(self) -> None:
        settings = SimulatedSettings(fault_500=0.5)
        alone, mixed = FaultPlan(settings), FaultPlan(settings)
        expected = [alone.next_fault("a", 1) for _ in range(20)]
        assert set(expected) == {None, "500"}
        seen = []
        for i in range(20):
            mixed.next_fault(f"other {i}", i)
            seen.append(mixed.next_fault("a", 1))
        assert seen == expected
        other = SimulatedSettings(fault_500=0.5, fault_seed=1)
        assert [FaultPlan(other).next_fault(str(i), 0) for i in range(20)] != [
            FaultPlan(settings).next_fault(str(i), 0) for i in range(20)
        ]
