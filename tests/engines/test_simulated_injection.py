"""The sneaky generator of the simulated world, and an actor that a hint misleads."""

import msgspec
import pytest

from annotators.critic import layout
from pipelines.engines.simulated import first_wrong_step, reply, solution_steps
from pipelines.engines.simulated.prompts import parse_prompt
from pipelines.engines.simulated.settings import SimulatedSettings
from pipelines.engines.simulated.world import read_line
from pipelines.templates import load_template
from tests.engines.simulated_texts import QUESTION, RIGHT, WORLD, assert_close, frequency, solve_prompt

SHOWN = frozenset({"sections"})
FAULTLESS = SimulatedSettings(error_low=0.0, error_high=0.0)
STEPS = solution_steps(RIGHT)


def world(**settings):
    return msgspec.structs.replace(WORLD, **settings)


def inject_prompt(index: int) -> str:
    parts = {"Problem": QUESTION, "Steps before": "".join(STEPS[:index]), "Step to change": STEPS[index]}
    template = load_template("inject", key="paths.template", gaps=SHOWN)
    return template.fill({"sections": layout(parts | {"Kind of error": "calculation: a wrong result"})})


def hint_prompt(prefix: str = "") -> str:
    template = load_template("inject_hint", key="paths.hint_template", gaps=SHOWN)
    return template.fill({"sections": layout({"Problem": QUESTION, "Hint": "Go wrong."})}) + prefix


def test_the_shipped_prompts_are_read_as_what_they_ask_for():
    edit, hint = parse_prompt(inject_prompt(1)), parse_prompt(hint_prompt(STEPS[0]))
    assert (edit.task, edit.step, edit.question) == ("inject", "Step 2: 22 * 3 = 66", QUESTION)
    assert (hint.task, hint.is_misled, hint.prefix) == ("solve", True, STEPS[0])
    assert not parse_prompt(solve_prompt(QUESTION)).is_misled


@pytest.mark.parametrize("index", [0, 1, 2])
def test_an_error_is_a_wrong_result_of_the_same_operation(index):
    before = read_line(STEPS[index])
    for seed in range(40):
        changed = reply(inject_prompt(index), seed, world(harmless_errors=0.0))
        line = read_line(changed)
        assert changed.startswith(f"Step {index + 1}: ")
        assert (line.expression, line.result == before.result) == (before.expression, False)
        assert first_wrong_step(QUESTION, [*STEPS[:index], changed]) == index


@pytest.mark.parametrize("index", [0, 1, 2])
def test_a_harmless_error_is_the_same_result_in_other_words(index):
    before = read_line(STEPS[index])
    for seed in range(40):
        changed = reply(inject_prompt(index), seed, world(harmless_errors=1.0))
        line = read_line(changed)
        assert (line.expression, line.result) == (before.expression, before.result)
        assert changed != STEPS[index]


def test_the_share_of_harmless_errors_is_the_set_one():
    def is_harmless(seed: int) -> bool:
        return read_line(reply(inject_prompt(1), seed, world(harmless_errors=0.3))).result == 66

    assert_close(frequency(is_harmless, 2000), 0.3, 2000)


def test_a_begun_step_is_gone_on_with():
    whole, rest = (reply(inject_prompt(1) + begun, 5, world(harmless_errors=0.0)) for begun in ("", "Step 2: "))
    assert whole.startswith("Step 2: ")
    assert read_line("Step 2: " + rest).result != 66


def test_the_answer_cannot_be_changed():
    assert reply(inject_prompt(3), 0, WORLD) == STEPS[3]


@pytest.mark.parametrize("done", [0, 1, 2])
def test_a_misled_actor_errs_in_its_next_step_and_goes_on_from_there(done):
    prefix = "".join(STEPS[:done])
    for seed in range(40):
        said = reply(hint_prompt(prefix), seed, FAULTLESS)
        misled = reply(hint_prompt(prefix), seed, msgspec.structs.replace(FAULTLESS, harmless_errors=0.0))
        assert first_wrong_step(QUESTION, solution_steps(prefix + misled)) == done
        assert "\nAnswer: " in misled
        # The policy of this world never errs by itself.
        assert first_wrong_step(QUESTION, solution_steps(prefix + said)) in (None, done)


def test_nobody_is_misled_in_the_middle_of_a_line_or_behind_the_last_step():
    settings = msgspec.structs.replace(FAULTLESS, harmless_errors=0.0, variants=1)
    assert (
        reply(hint_prompt("Step 1: 17 + 5"), 0, settings)
        == " = 22\nStep 2: 22 * 3 = 66\nStep 3: 66 - 4 = 62\nAnswer: 62\n"
    )
    assert reply(hint_prompt("".join(STEPS[:3])), 0, settings) == "Answer: 62\n"
