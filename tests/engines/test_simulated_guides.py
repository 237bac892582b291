"""Who values half-written solutions of the simulated world and chooses among whole ones."""

import json

import pytest
from simulated_texts import QUESTION, RIGHT, WORLD, WRONG, assert_close, frequency

from pipelines.engines.simulated import SimulatedSettings
from pipelines.engines.simulated.prompts import PromptError
from pipelines.engines.simulated.replies import reply
from pipelines.engines.simulated.world import success_rate

BEGUN = "".join(RIGHT.splitlines(keepends=True)[:1])
SLIPPED = "".join(WRONG.splitlines(keepends=True)[:2])


def value(solution, seed, settings):
    text = f"Problem:\n{QUESTION}\n\nSolution:\n{solution}\nValue:\n"
    return json.loads(reply(text, seed, settings))


def choice(seed, settings, candidates=f"[1]\n{WRONG}\n[2]\n{RIGHT}"):
    text = f"Problem:\n{QUESTION}\n\nCandidates:\n{candidates}\n\nWhat was said:\nDebater 1: [1] so\n\nChoice:\n"
    return json.loads(reply(text, seed, settings))["choice"]


def test_a_value_is_the_true_chance():
    for solution in (BEGUN, SLIPPED, RIGHT, WRONG):
        said = value(solution, 1, SimulatedSettings(meta_accuracy=1.0))
        rate = success_rate(QUESTION, solution.splitlines(), SimulatedSettings())
        assert said["value"] == round(200 * rate - 100), solution
        assert ("does not follow" in said["reason"]) == (solution in (SLIPPED, WRONG))
    assert value(RIGHT, 1, SimulatedSettings(meta_accuracy=1.0))["value"] == 100
    assert value(WRONG, 1, SimulatedSettings(meta_accuracy=1.0))["value"] == -100


def test_a_valuer_who_errs_says_the_contrary():
    said = value(RIGHT, 1, SimulatedSettings(meta_accuracy=0.0))
    assert said["value"] == -100
    assert "does not follow" in said["reason"]


def test_a_debater_sees_the_right_solution_as_often_as_it_may():
    settings = SimulatedSettings(meta_accuracy=0.8)
    # Who does not see it takes either: 0.8 + 0.2 / 2.
    assert_close(frequency(lambda seed: choice(seed, settings) == 2, 2000), 0.9, 2000)


def test_where_none_is_right_any_is_taken():
    settings = SimulatedSettings(meta_accuracy=1.0)
    picks = {choice(seed, settings, f"[1]\n{WRONG}\n[2]\n{WRONG}") for seed in range(50)}
    assert picks == {1, 2}


def test_a_debate_about_nothing_is_refused():
    with pytest.raises(PromptError, match="expected candidates"):
        choice(1, WORLD, "none")
