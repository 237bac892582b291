"""The recipes whose point is how critiques come about: what each sets, and what holds of every row of a run."""

from collections import Counter
from pathlib import Path

import pytest

from annotators.leaks import find_leak
from pipelines.config import compose
from pipelines.evaluate.critics import choose, panel_of
from pipelines.run import Watcher, run
from pipelines.shards import read_rows
from schemas import Critique, CritiqueDpoRow, Panel, PathAlone, PathPair, Rejection, Verified
from schemas.arrow import from_row

WORLD = ("problems=simulated", "engine=simulated", "actor=plain", "problems.num_problems=12", "seed=3")


class Made:
    """What a run with a recipe has written."""

    def __init__(self, out: Path) -> None:
        self._out = out
        self.critiques = self.rows("critiques", Critique)
        self.verified = self.rows("verified", Verified)
        self.kept = [item for item in self.verified if item.decision == "kept"]
        self.rejections = self.rows("rejections", Rejection)
        self.paths = {path.id: path for path in (*self.rows("pairs", PathPair), *self.rows("alone", PathAlone))}

    def rows(self, table, record):
        return [from_row(row, record) for row in read_rows(self._out, table)]

    def path_of(self, item: Verified):
        return self.paths[item.critique.path_id]

    def rejected(self, stage: str) -> Counter[str]:
        return Counter(item.reason for item in self.rejections if item.stage == stage)


def make(folder: Path, *overrides: str) -> Made:
    out = folder / "out"
    result = run(compose([*WORLD, *overrides, f"out={out}"]), Watcher())
    assert not result.failure_share
    assert all(stage.balanced for stage in result.books.stages)
    return Made(out)


def test_deepcritic_has_its_constants():
    settings = compose(["recipe=deepcritic"])
    first, deep = settings.panel.agents
    assert (first.temperature, deep.temperature, deep.tries, deep.until) == (0.7, 1.0, 16, "step_labels")
    assert (deep.second_look_at, settings.panel.style, settings.panel.max_undoubted) == (first.name, "merged", 250)
    assert (settings.paths.num_samples, settings.actor.temperature) == (8, 1.0)
    assert (settings.paths.locate, settings.paths.completions_per_step) == ("completions", 8)
    # All eight may be wrong: each is completed from, and has a row.
    assert (settings.search.max_located, settings.pairing.max_pairs) == (8, 8)
    assert settings.search.max_rollouts >= 8 + 8 * 8 * 15, "15 steps of each before the last"


def test_mmc_has_its_constants():
    settings = compose(["recipe=mmc"])
    assert (settings.search.rule, settings.search.step_rule, settings.search.step_tokens) == (
        "greedy_value",
        "tokens",
        30,
    )
    (agent,) = settings.panel.agents
    assert (agent.view, agent.until, agent.engine) == ("branches", "fork", "")


def test_critic_cot_cleans_in_sixteen_tries_what_a_critic_with_the_reference_wrote():
    settings = compose(["recipe=critic_cot"])
    cleaners = [agent for agent in settings.panel.agents if agent.role == "clean"]
    assert {agent.second_look_at for agent in cleaners} == settings.panel.shown
    assert {(agent.tries, agent.until, agent.correct) for agent in cleaners} == {(16, "clean", True)}
    assert {agent.view for agent in settings.panel.agents} == {"reference"}


def test_multi_critique_has_four_critics_who_are_told_what_is_crucial():
    settings = compose(["recipe=multi_critique"])
    assert len(settings.panel.agents) == 4
    assert settings.panel.crucial.template == "crucial"
    assert settings.verify.help.looks() == (4 * 8,)


def test_who_is_evaluated_is_not_picked_by_the_labels():
    panel = compose(["recipe=deepcritic"]).panel
    asked = panel_of(choose("deep", panel.agents), panel).agents
    assert [(agent.name, agent.tries, agent.until) for agent in asked] == [
        ("first", 1, "readable"),
        ("deep", 1, "readable"),
    ]


@pytest.mark.slow
def test_every_critique_of_deepcritic_has_all_step_labels_and_few_looks_are_paid_for(tmp_path):
    made = make(tmp_path, "recipe=deepcritic", "panel.max_undoubted=3")
    assert made.kept
    for item in made.kept:
        path = made.path_of(item)
        assert item.critique.first_wrong_step == (path.first_error if isinstance(path, PathPair) else None)
    plain = [item for item in made.kept if not item.has_error and not item.critique.corrects]
    assert len(plain) == 3
    assert made.rejected("AggregateCritiques")["undoubted"] > 0
    looks = [critique for critique in made.critiques if critique.agent == "deep"]
    assert Counter(look.tries for look in looks)[1] > len(looks) / 2
    for item in made.kept:
        assert ("may look" in item.critique.text) == item.critique.corrects


@pytest.mark.slow
def test_what_still_leaks_after_all_tries_is_in_no_table_of_critic_cot(tmp_path):
    """In this world every critique that names an error leaks, and whoever cleans it leaves that in."""
    made = make(tmp_path, "recipe=critic_cot", "engine.world.leak_rate=1.0", "problems.num_problems=6")
    raw = [item for item in made.critiques if item.agent in ("first", "second")]
    leaking = {item.path_id for item in raw if find_leak(item, made.paths[item.path_id])}
    assert leaking
    fallen = [item for item in made.rejections if item.reason == "no_try_fits"]
    assert {item.key.split("/")[0] for item in fallen} == leaking
    assert all(item.detail.startswith("none of 16 tries: ") for item in fallen)
    assert not [item for item in made.verified if find_leak(item.critique, made.path_of(item))]


@pytest.mark.slow
def test_of_wrong_solutions_critic_cot_keeps_what_its_author_makes_good(tmp_path):
    made = make(tmp_path, "recipe=critic_cot", "engine.world.leak_rate=0.3", "engine.world.critic_accuracy=0.6")
    assert {item.critique.correction_outcome for item in made.kept if item.has_error} == {"correct"}
    assert {item.critique.first_wrong_step for item in made.kept if not item.has_error} == {None}
    failed = [item for item in made.verified if item.critique.correction_outcome == "incorrect"]
    assert failed
    assert all("unit_dropped" in item.reasons for item in failed)
    pairs = made.rows("critique_dpo", CritiqueDpoRow)
    assert pairs
    assert all(row.rejected_reasons for row in pairs)


@pytest.mark.slow
def test_multi_critique_prefers_what_judging_and_second_solutions_prefer(tmp_path):
    made = make(tmp_path, "recipe=multi_critique", "engine.world.critic_accuracy=0.6", "engine.world.leak_rate=0.2")
    assert all(critique.informed and critique.view == "reference" for critique in made.critiques)
    panels = made.rows("panels", Panel)
    assert {item.decision for panel in panels for item in panel.judged} >= {"keep", "drop"}
    pairs = made.rows("critique_dpo", CritiqueDpoRow)
    assert pairs
    for row in pairs:
        assert row.chosen_estimate.rate > row.rejected_estimate.rate
        assert row.margin > 0
    assert not [item for item in made.kept if find_leak(item.critique, made.path_of(item))]


@pytest.mark.slow
def test_mmc_keeps_what_points_at_the_fork(tmp_path):
    """Steps are lines here: the world's critics read no others."""
    made = make(tmp_path, "recipe=mmc", "search.step_rule=marker", "engine.world.critic_accuracy=0.5")
    assert made.kept
    assert {item.critique.first_wrong_step - made.path_of(item).divergence for item in made.kept} == {0}
    assert made.rejected("WriteCritiques")["no_try_fits"] > 0


@pytest.mark.slow
def test_ref_critic_keeps_what_is_right_and_makes_right(tmp_path):
    made = make(tmp_path, "recipe=ref_critic", "engine.world.critic_accuracy=0.5")
    assert made.kept
    assert made.rejected("VerifyCritiques")
    for item in made.kept:
        assert (item.critique.verdict == "incorrect") == item.has_error
        assert item.with_critique.correct > item.with_critique.scored / 2
    assert all(item.with_critique.scored for item in made.verified)
