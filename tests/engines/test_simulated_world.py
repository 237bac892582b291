import math
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.engines.simulated.faults import FaultPlan, attempt_fault, prompt_fault
from pipelines.engines.simulated.replies import cut, reply, simulated_length, tokenize
from pipelines.engines.simulated.settings import SimulatedSettings, read_settings
from pipelines.engines.simulated.world import (
    error_rate,
    first_wrong_step,
    make_problem,
    parse_question,
    read_line,
    solution_steps,
    success_rate,
)
from tests.engines.simulated_texts import (
    QUESTION,
    RIGHT,
    WORLD,
    WRONG,
    assert_close,
    frequency,
    is_right_answer,
    solve_prompt,
)


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

    def test_steps_of_a_problem_differ_in_their_error_rates(self) -> None:
        chain = parse_question(make_problem(0, 0, WORLD).question)
        rates = {error_rate(chain, done, WORLD) for done in range(len(chain.operations))}
        assert len(rates) == len(chain.operations)
        assert all(WORLD.error_low <= rate <= WORLD.error_high for rate in rates)

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
        back = "Step 4: wait, step 2 should give 66, so 66 - 4 = 62\n"
        assert success_rate(QUESTION, (*wrong[:3], back), settings) == 1
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

    def test_other_prompts_of_the_same_problem_draw_for_themselves(self) -> None:
        pairs = [
            (reply(solve_prompt(QUESTION), s, WORLD), reply("x" + solve_prompt(QUESTION), s, WORLD)) for s in range(99)
        ]
        assert sum(one != other for one, other in pairs) > 20

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
