import math
from collections import Counter
from fractions import Fraction

import msgspec
import pytest

from annotators.units import CritiqueError, parse_critique, render_critique, render_unit
from pipelines.engines.simulated.claims import is_right_critique, unit_is_true
from pipelines.engines.simulated.prompts import PromptError, parse_prompt, read_critique
from pipelines.engines.simulated.replies import reply, tokenize
from pipelines.engines.simulated.settings import SimulatedSettings
from pipelines.engines.simulated.world import (
    first_wrong_step,
    make_problem,
    solution_steps,
    success_rate,
)
from schemas import Unit
from tests.engines.simulated_texts import (
    QUESTION,
    RIGHT,
    WORLD,
    WRONG,
    assert_close,
    critique_prompt,
    frequency,
    is_right_answer,
    refine_prompt,
    solve_prompt,
)


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
                assert not is_right_reply(
                    question, solution, reply(critique_prompt(question, solution), seed, settings)
                )

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
        denied = Unit(step=1, quote="", kind="error", flaw="22 * 3 is not 66.")
        invented = Unit(step=0, quote="", kind="error", flaw="17 + 5 looks odd.")
        steps = solution_steps(WRONG)
        assert is_right_critique(QUESTION, steps, "incorrect", 1, (true, follow_up))
        assert not is_right_critique(QUESTION, steps, "incorrect", 1, (true, invented))
        assert not is_right_critique(QUESTION, steps, "incorrect", 1, (true, denied))
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
                f"Problem:\n{QUESTION}\n\nSolution:\n{WRONG}\nOther remarks:\nStep 1 is right: fine\n\n"
                f"Remark:\n{render_unit(unit)}\n\nJudgement:\n"
            )
            kept = [msgspec.json.decode(reply(prompt, seed, settings))["decision"] == right for seed in range(1000)]
            assert_close(sum(kept) / 1000, 0.8, 1000)

    def test_a_composed_critique_holds_the_most_named_error_and_praise_before_it(self) -> None:
        remarks = (
            "Step 1 is right: 17 + 5 is 22, as stated.\n"
            'Step 2 is wrong: "22 * 3 = 68". 22 * 3 is 66, not 68. Redo the multiplication.\n'
            'Step 2 is wrong: "22 * 3 = 68". 22 * 3 is not 68.\n'
            'Step 3 is wrong: "68 - 4 = 64". 68 - 4 is 63, not 64.\n'
            "Step 1 is right: 17 + 5 is 22, as stated."
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
    "Step 1 is right: 40 - 7 is 33, as stated.\n"
    'Step 2 is wrong: "33 + 5 = 39". 33 + 5 is 38, not 39. Redo the addition.\n'
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
        for leak in (
            "So the final answer is 62.",
            "This makes 124/2 the final answer.",
            "final answer should then be 62.0",
        ):
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
        before = "Examples.\n" + refine_prompt(QUESTION, WRONG, "Fine.") + RIGHT + "\n"
        assert parse_prompt(before + refine_prompt(QUESTION, WRONG, None)).critique is None

    def test_a_critique_prompt_with_every_section(self) -> None:
        prompt = parse_prompt(
            f"Be strict.\n\nProblem:\n{QUESTION}\n\nSolution:\n{WRONG}\nOther solution:\n{RIGHT}\nGold answer:\n62\n\n"
            "First critique:\nStep 1 is right: fine\n\nThe last reply was not usable:\nno JSON\n\n"
            "Critic: second_look\n\nCritique:\n"
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
            (
                f"Problem:\n{QUESTION}\n\nSolution:\n{WRONG}\nRemark:\nNice.\n\nJudgement:\n",
                "expected a remark such as",
            ),
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
