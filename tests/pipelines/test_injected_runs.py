"""Errors put into right paths by models: what is refused before start, who is asked what, and what is true of it."""

import asyncio
import functools
import re
from collections import Counter

import datasets
import msgspec
import pytest
from hypothesis import given, settings

from annotators.units import ERROR_TYPES
from mcts.answers import compare
from mcts.base import Rollout
from mcts.injected import EDIT_STATES, REWRITE_REJECTIONS, InjectedTree, InjectSettings, Place
from mcts.pairing import PairSettings
from mcts.settings import SearchSettings
from pipelines.config import compose
from pipelines.engines import serve_all
from pipelines.engines.settings import Scripted
from pipelines.engines.simulated import SimulatedSettings, first_wrong_step, make_problem, reply
from pipelines.errors import UserError
from pipelines.expand_trees import ExpandTrees
from pipelines.injecting import inject_templates, rewriting, shown
from pipelines.main import main
from pipelines.meter import METER
from pipelines.settings import ActorSettings
from pipelines.shards import read_rows
from pipelines.sight import check_sight
from pipelines.templates import load_template
from pipelines.worker import WorkerSpec, holding
from schemas import Image, Problem, Provenance, Tree
from schemas.arrow import from_row
from tests.hostile.corpus import SPECIAL_TOKENS, texts

SOLVE = load_template("solve", key="actor.solve_template", gaps=frozenset({"problem"}))
ALL = InjectSettings(how=("edit", "hot", "hint"))
TEMPLATES = inject_templates(ALL, SOLVE)
PROBLEM = Problem(id="p", source="s", domain="math", question="What is 4 + 3 - 2?", answer="GOLD")
STEPS = ("Step 1: 4 + 3 = 7\n", "Step 2: 7 - 2 = 5\n", "Answer: 5")
ACTOR = ActorSettings(temperature=0.3, max_tokens=99)


# Before start.


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("paths.num_samples=99", "search.max_rollouts=40 does not even pay for paths.num_samples=99"),
        ("paths.error_types=[calculation,sloth]", "paths.error_types: unknown 'sloth', expected some of calculation, "),
        ("paths.how=[edit,cold]", "paths.how[1]: Invalid enum value 'cold', expected one of edit, hint, hot"),
        ("search.step_rule=tokens", "search.step_rule=tokens cuts no steps that could be changed one at a time"),
        ("paths.engine=sneaky", "paths.engine is 'sneaky', expected one of the engines (none) or nothing"),
    ],
)
def test_settings_that_do_not_fit_are_refused_before_any_work(override, message):
    with pytest.raises(UserError, match=f"^{re.escape(message)}"):
        compose(["paths=injected", override])


@pytest.mark.parametrize("key", ["template", "hint_template"])
def test_a_template_that_is_not_there_is_named_by_its_setting(key):
    with pytest.raises(UserError, match=rf"^paths\.{key}: no prompt template 'nope'"):
        inject_templates(msgspec.structs.replace(ALL, **{key: "nope"}), SOLVE)


def test_only_the_ways_that_are_taken_need_prompts():
    assert inject_templates(InjectSettings(how=("hot",), template="nope", hint_template="nope"), SOLVE) == {
        "hot": SOLVE
    }
    assert inject_templates(compose([]).paths, SOLVE) == {}


def test_all_named_errors_are_described():
    assert set(InjectSettings().error_types) <= set(ERROR_TYPES)
    assert set(compose(["paths=injected_sums"]).paths.error_types) <= set(ERROR_TYPES)


def test_who_puts_errors_in_must_see_what_the_problem_shows():
    other = ["+engines.other.kind=openai", "+engines.other.url=http://h:1", "+engines.other.model=m"]
    sees = ["engine=openai", "engine.url=http://h:2", "engine.model=n", "engine.style=chat", "engine.images=true"]
    pictured = [msgspec.structs.replace(PROBLEM, images=(Image(bytes=b"x", media_type="image/png"),))]
    check_sight(compose(["paths=injected", *sees, *other]), pictured)
    with pytest.raises(UserError, match=r"^engines\.other \(kind openai, for whoever puts errors into steps\)"):
        check_sight(compose(["paths=injected", "paths.engine=other", *sees, *other]), pictured)


# What is asked.


def request(how, index=1):
    place = Place(steps=STEPS, index=index, how=how, error_type="" if how == "hot" else "calculation")
    return rewriting(place, PROBLEM, TEMPLATES[how], ALL, ACTOR)


def test_an_edit_is_shown_problem_steps_before_step_and_kind_of_error():
    edit = request("edit")
    assert edit.prompt.endswith(
        "\n\nProblem:\nWhat is 4 + 3 - 2?\n\nSteps before:\nStep 1: 4 + 3 = 7\n\nStep to change:\nStep 2: 7 - 2 = 5\n\n"
        f"Kind of error:\ncalculation: {ERROR_TYPES['calculation']}\n\nChanged step:\n"
    )
    assert (edit.prefix, edit.sampling.temperature, edit.sampling.max_tokens) == ("Step 2: ", 1.0, 160)
    assert edit.sampling.stop == ("\n\n",)
    assert "Steps before:" not in request("edit", index=0).prompt


def test_a_hot_actor_is_asked_as_ever_but_for_its_temperature():
    hot = request("hot")
    assert (hot.prompt, hot.prefix) == (SOLVE.fill({"problem": PROBLEM.question}), STEPS[0])
    assert hot.sampling == msgspec.structs.replace(ACTOR.sampling(), temperature=1.0)


def test_a_misled_actor_is_shown_a_hint_and_goes_on_from_the_step_before():
    hint = request("hint")
    assert hint.prefix == STEPS[0]
    assert (
        "\n\nHint:\nThe next step holds an error that nobody notices. calculation: the right operation" in hint.prompt
    )
    assert hint.prompt.endswith(".\n\nSolution:\n")


def test_nobody_who_writes_a_wrong_step_is_shown_the_gold_answer_or_what_comes_after():
    for how in TEMPLATES:
        asked = request(how, index=0)
        assert "GOLD" not in asked.prompt + asked.prefix
        assert STEPS[1].strip() not in asked.prompt + asked.prefix


@pytest.mark.parametrize("name", ["inject", "inject_sums"])
def test_no_text_of_a_problem_or_a_step_opens_a_section(name):
    template = load_template(name, key="paths.template", gaps=frozenset({"sections"}))
    names = ("Problem", "Steps before", "Step to change", "Kind of error", "Changed step", "Solution", "Critique")

    @settings(max_examples=30, deadline=None)
    @given(texts(), texts(), texts())
    def holds(question, before, step):
        place = Place(steps=(before, step, "Answer: 5"), index=1, how="edit", error_type="calculation")
        problem = msgspec.structs.replace(PROBLEM, question=question)
        asked = rewriting(place, problem, template, ALL, ACTOR).prompt
        own = template.text.partition("{sections}")[0]
        opened = [
            line[:-1] for line in asked[len(own) :].splitlines() if line.rstrip()[:-1] in names and line[-1:] == ":"
        ]
        assert opened == ["Problem", "Steps before", "Step to change", "Kind of error", "Changed step"]
        assert list(shown(place, problem)) == opened[:-1]
        assert not [token for token in SPECIAL_TOKENS if token in asked]

    holds()


# What is true of it.


def grown(problem, paths, world, seed=0):
    """The tree of a problem in the simulated world, without any server."""

    def say(prompt, prefix, number):
        return reply(prompt + prefix, number, world)

    async def policy(prefix, *, num_samples, first_sample):
        prompt = SOLVE.fill({"problem": problem.question})
        said = [say(prompt, prefix, seed + i) for i in range(first_sample, first_sample + num_samples)]
        return [Rollout(text=text, tokens=len(text.split())) for text in said]

    async def rewrite(place, *, sample):
        asked = rewriting(place, problem, TEMPLATES[place.how], paths, ACTOR)
        text = say(asked.prompt, asked.prefix, seed + sample)
        return Rollout(text=text, tokens=len(text.split()))

    async def verifier(solution):
        return compare(solution.rpartition("Answer: ")[2].strip(), problem.answer, problem.domain)

    provenance = Provenance(model="m", revision="", engine="simulated", prompt_digest="", sampling="", seed=seed)
    growing = InjectedTree(
        paths,
        rewrite,
        problem,
        policy=policy,
        verifier=verifier,
        settings=SearchSettings(max_located=0),
        pairing=PairSettings(),
        provenance=provenance,
    )
    return asyncio.run(growing.grow())


def is_first_wrong(tree, node):
    steps = tree.steps(node)
    return first_wrong_step(tree.problem.question, steps) == len(steps) - 1


@pytest.mark.parametrize("how", ["edit", "hot", "hint"])
def test_steps_that_are_flawed_are_first_wrong_ones_in_a_world_that_knows(how):
    world = SimulatedSettings(harmless_errors=0.5)
    trees = [grown(make_problem(1, i, world), InjectSettings(how=(how,)), world) for i in range(40)]
    truth = Counter(
        (edit.state, is_first_wrong(tree, edit.node)) for tree in trees for edit in tree.edits if edit.node is not None
    )
    assert truth["proved", True] >= 5
    assert truth["proved", False] == 0
    harmless = sum(number for (_, is_wrong), number in truth.items() if not is_wrong)
    assert harmless >= 10
    assert {state for state, _ in truth} <= set(EDIT_STATES)
    assert {reason for tree in trees for edit in tree.edits for reason in edit.unusable} <= set(REWRITE_REJECTIONS)


def sneaky(prompt: str, prefix: str, seed: int) -> str:
    """Another model, which always arrives at the same number."""
    return "0 + 0 = 99\n"


def test_edits_are_asked_of_the_engine_that_is_named_and_counted_on_the_meter(tmp_path):
    paths = InjectSettings(how=("edit", "hot"), engine="other", max_edits=2)
    stage_of = functools.partial(
        ExpandTrees, actor=ActorSettings(), search=SearchSettings(), pairing=PairSettings(), template=SOLVE, seed=0
    )
    problem = msgspec.structs.replace(PROBLEM, answer="5")
    before = METER.read().elements
    with serve_all({"": Scripted(), "other": Scripted(rule=f"{__name__}:sneaky")}) as endpoints:
        spec = WorkerSpec(
            endpoints=endpoints,
            journal=str(tmp_path / "journal.sqlite"),
            checker_processes=1,
            checker_cpu_secs=2.0,
            max_in_flight=4,
        )
        with holding(spec) as worker:
            stage = stage_of(spec, paths=paths, injecting=inject_templates(paths, SOLVE))
            (tree,) = worker.submit(stage._expand(worker, problem)).result()
            asked = worker.model_of("other").engine.history
    edit, hot = tree.edits
    assert tree.nodes[edit.node].step == f"Step {tree.nodes[edit.node].depth}: 0 + 0 = 99\n"
    assert [(request.prefix, request.first_sample) for request in asked] == [
        (f"Step {tree.nodes[edit.node].depth}: ", 0)
    ]
    assert hot.node is None or "99" not in tree.nodes[hot.node].step
    counted = Counter(METER.read().elements) - Counter(before)
    assert counted == Counter(f"ExpandTrees/edits {edit.state}" for edit in tree.edits)


# Whole runs.


@pytest.mark.slow
def test_spc_meets_each_proved_error_once_and_right_steps_and_both_sides_have_a_row_of_each_meeting(tmp_path):
    out, cache = tmp_path / "out", str(tmp_path / "cache")
    words = ["problems=simulated", "engine=simulated", "actor=plain", "problems.num_problems=8"]
    assert main(["run", "recipe=spc", *words, f"out={out}"]) == 0
    trees = {row["id"]: from_row(row, Tree) for row in read_rows(out, "trees")}
    pairs = list(read_rows(out, "pairs"))
    assert pairs
    met = Counter()
    for pair in pairs:
        tree = trees[pair["tree_id"]]
        node = (*pair["prefix_nodes"], *pair["wrong"]["nodes"])[pair["first_error"]]
        assert tree.nodes[node].flawed
        assert is_first_wrong(tree, node)
        met[tree.id, node] += 1
    assert set(met.values()) == {1}
    rows = datasets.load_dataset(str(out), "rl", split="train", cache_dir=cache).to_list()
    rewards = Counter((row["task"], row["label"], row["reward"]) for row in rows)
    for reward in (1.0, -1.0):
        # Where an error was put in, what one side wins the other one loses.
        assert rewards["criticise", "incorrect", reward] == rewards["spoil", "incorrect", -reward] > 0
    # Who says of every step that it is wrong loses where it holds.
    assert rewards["criticise", "correct", 1.0] > 0
    assert rewards["criticise", "correct", -1.0] > 0
    assert rewards.total() == len(rows) == sum(rewards[key] for key in rewards if key[0] in ("criticise", "spoil"))
    asked = [(row["prompt"][0]["content"], row["completion"][0]["content"]) for row in rows if row["task"] != "spoil"]
    assert len(set(asked)) == len(asked)


@pytest.mark.slow
def test_auto_math_critique_takes_three_ways_in_turn_and_keeps_what_helps(tmp_path):
    out, cache = tmp_path / "out", str(tmp_path / "cache")
    words = ["problems=simulated", "engine=simulated", "actor=plain", "problems.num_problems=8"]
    assert main(["run", "recipe=auto_math_critique", *words, f"out={out}"]) == 0
    for row in read_rows(out, "trees"):
        ways = [edit["how"] for edit in row["edits"]]
        assert ways == ["hot", "edit", "hint"][: len(ways)]
    kept = [row for row in read_rows(out, "verified") if row["decision"] == "kept"]
    assert kept
    for row in kept:
        seconds, without = row["with_critique"], row["without_critique"]
        assert seconds["correct"] > 0.25 * seconds["scored"]
        assert seconds["correct"] * without["scored"] >= without["correct"] * seconds["scored"]
    assert len(datasets.load_dataset(str(out), "sft", split="train", cache_dir=cache))
