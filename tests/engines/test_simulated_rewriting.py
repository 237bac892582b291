"""The simulated world's answers to what stands around critiques: what critics are told, clean critiques, branches."""

import msgspec
import pytest

from annotators.critic import Agent, critique_prompt, sections
from annotators.crucial import Crucial, crucial_prompt
from annotators.fitting import misfit
from annotators.units import parse_critique
from pipelines.engines.simulated.claims import is_right_critique
from pipelines.engines.simulated.replies import reply
from pipelines.engines.simulated.settings import SimulatedSettings
from pipelines.engines.simulated.world import solution_steps
from pipelines.templates import load_template
from schemas import Critique, PathPair
from tests.annotators.annotated import branch, critique, pair, problem
from tests.engines.simulated_texts import QUESTION, RIGHT, WRONG, assert_close, frequency

GAPS = frozenset({"role", "critic", "sections"})
CRITIQUE = load_template("critique", key="panel.agents", gaps=GAPS)
CLEAN = load_template("clean", key="panel.agents", gaps=GAPS)
CRUCIAL = load_template("crucial", key="panel.crucial.template", gaps=frozenset({"sections"}))


def asked() -> PathPair:
    """The wrong solution parts from the right one in its second step of four; the answer is 62."""
    right, wrong = solution_steps(RIGHT), solution_steps(WRONG)
    made = pair(problem(QUESTION, "62"), prefix=right[:1], wrong=wrong[1:], right=right[1:], first_error=1)
    return msgspec.structs.replace(made, wrong=branch(wrong[1:], "64"), right=branch(right[1:], "62"))


def written(text: str, view="blind") -> Critique:
    path = asked()
    parsed = parse_critique(text, path.steps)
    return critique(path, wrong=parsed.first_wrong_step, units=parsed.units, view=view)


def is_right(made: Critique) -> bool:
    return is_right_critique(QUESTION, asked().steps, made.verdict, made.first_wrong_step, made.units)


class TestBranches:
    @pytest.mark.parametrize("accuracy", [0.0, 0.7, 1.0])
    def test_who_sees_the_branches_alone_is_right_as_often_as_set(self, accuracy):
        settings = SimulatedSettings(critic_accuracy=accuracy)
        prompt = critique_prompt(CRITIQUE, Agent(name="anna", view="branches"), sections(asked(), "branches"))
        assert_close(frequency(lambda seed: is_right(written(reply(prompt, seed, settings))), 1000), accuracy, 1000)

    def test_and_speaks_of_no_step_that_is_hidden(self):
        settings = SimulatedSettings(critic_accuracy=0.5)
        prompt = critique_prompt(CRITIQUE, Agent(name="anna", view="branches"), sections(asked(), "branches"))
        steps = {unit.step for seed in range(300) for unit in written(reply(prompt, seed, settings)).units}
        assert steps == {1, 2, 3}

    def test_branches_that_are_nothing_but_an_answer_are_read_too(self):
        right = solution_steps(RIGHT)
        path = pair(problem(QUESTION, "62"), prefix=right[:3], wrong=("Answer: 60",), right=right[3:], first_error=3)
        prompt = critique_prompt(CRITIQUE, Agent(name="anna", view="branches"), sections(path, "branches"))
        parsed = parse_critique(reply(prompt, 0, SimulatedSettings(critic_accuracy=1.0)), path.steps)
        assert (parsed.first_wrong_step, parsed.units[0].flaw) == (3, "The steps arrive at 62, not 60.")


LEAKING = "22 * 3 is 66, not 68. Redo the multiplication. So the final answer is 62."
FIRST = (
    "Step 1 is right: 17 + 5 is 22, as stated.\n"
    f'Step 2 is wrong: "22 * 3 = 68". {LEAKING}\n'
    "The first wrong step is step 2. The solution is incorrect."
)


def clean_prompt() -> str:
    agent = Agent(name="anna", role="clean", view="reference", second_look_at="bert")
    first = critique(asked(), agent="bert", wrong=1, text=FIRST, view="reference")
    return critique_prompt(CLEAN, agent, sections(asked(), "reference", first_critique=first))


class TestCleaning:
    def test_a_clean_critique_says_the_same_and_not_the_answer(self):
        made = written(reply(clean_prompt(), 0, SimulatedSettings(critic_accuracy=1.0)), "reference")
        assert [unit.flaw for unit in made.units] == [
            "17 + 5 is 22, as stated.",
            "22 * 3 is 66, not 68. Redo the multiplication.",
        ]
        assert misfit(made, asked(), "clean", critique(asked(), agent="bert", wrong=1)) == ""
        assert is_right(made)

    def test_a_share_leaves_the_answer_in(self):
        settings = SimulatedSettings(critic_accuracy=1.0, leak_rate=0.3)
        leaks = frequency(lambda seed: "final answer is 62" in reply(clean_prompt(), seed, settings), 1000)
        assert_close(leaks, 0.3, 1000)

    def test_a_share_says_something_else_of_the_steps(self):
        settings = SimulatedSettings(critic_accuracy=0.6)
        first = critique(asked(), agent="bert", wrong=1)
        kept = frequency(
            lambda seed: written(reply(clean_prompt(), seed, settings)).first_wrong_step == first.first_wrong_step, 1000
        )
        # Of those that do not keep it, as many come to the same step by writing another critique.
        other = frequency(
            lambda seed: (
                written(
                    reply(critique_prompt(CRITIQUE, Agent(name="anna"), sections(asked(), "blind")), seed, settings)
                ).first_wrong_step
                == 1
            ),
            1000,
        )
        assert_close(kept, 0.6 + 0.4 * other, 1000)


class TestCrucialInformation:
    def test_the_answer_is_told_where_it_is_shown(self):
        settings = SimulatedSettings()
        assert "62" not in reply(crucial_prompt(CRUCIAL, asked(), "blind"), 0, settings)
        assert "The reference answer is 62." in reply(crucial_prompt(CRUCIAL, asked(), "reference"), 0, settings)

    def test_a_share_works_it_out_unasked(self):
        settings = SimulatedSettings(leak_rate=0.25)
        prompt = crucial_prompt(CRUCIAL, asked(), "blind")
        told = frequency(lambda seed: "The final answer is 62." in reply(prompt, seed, settings), 1000)
        assert_close(told, 0.25, 1000)

    def test_what_critics_are_told_leaves_the_solution_as_it_is(self):
        told = Crucial(text="A step is right if its result is.", view="blind")
        settings = SimulatedSettings(critic_accuracy=1.0)
        prompt = critique_prompt(CRITIQUE, Agent(name="anna"), sections(asked(), "blind", crucial=told))
        assert is_right(written(reply(prompt, 0, settings)))


def test_a_composed_critique_keeps_a_doubt_before_what_settles_it():
    remarks = (
        "Step 1 is right: 17 + 5 is 22, as stated.\nStep 2 may look right: 22 * 3 is 68, as stated.\n"
        'Step 2 is wrong: "22 * 3 = 68". 22 * 3 is 66, not 68.\n'
        "The first wrong step is step 2. The solution is incorrect."
    )
    prompt = f"Problem:\n{QUESTION}\n\nSolution:\n{WRONG}\nRemarks:\n{remarks}\n\nComposed critique:\n"
    assert reply(prompt, 0, SimulatedSettings()) == remarks + "\n"
