"""ScopeFeedback on a scripted actor and judge: what is asked, and where every tree ends; and the recipe as a run."""

import datasets
import pytest

from annotators.scoping import SCOPE_REJECTIONS, ScopeSettings
from pipelines.config import compose
from pipelines.engines.simulated.wishes import WORDS, scope_of
from pipelines.run import Watcher, run
from pipelines.scope_feedback import ScopeFeedback
from pipelines.settings import ActorSettings
from pipelines.templates import load_template
from pipelines.worker import holding
from schemas import Estimate, Node, Tree
from tests.annotators.annotated import problem, provenance
from tests.pipelines.scripted_critics import Outcome, run_stage, section, spec_of

TEMPLATES = {
    name: load_template(name, key="scope", gaps=frozenset({"sections"})) for name in ("scope", "follows", "revise")
}
RIGHT = "Step 1: 7 + 8 + 5 = 20\nAnswer: 20\n"


@pytest.fixture(scope="module")
def spec(tmp_path_factory):
    with spec_of(tmp_path_factory.mktemp("wishes"), actor="wishes") as spec, holding(spec):
        yield spec


def tree(what: str, answer: str = RIGHT) -> Tree:
    """A tree with one solution; the question says how the scripted judge and actor behave."""
    root = Node(parent=-1, step="", depth=0, kind="root", direct=Estimate(correct=1, scored=1))
    outcome = "correct" if answer.endswith("20\n") else "incorrect"
    leaf = Node(parent=0, step=answer, depth=1, kind="terminal", answer="20", outcome=outcome)
    return Tree(
        id=f"tree of {what}",
        problem=problem(f"Calculate 7 + 8 + 5, {what}.", name=what),
        nodes=(root, leaf),
        provenance=provenance(),
        settings_digest="",
        stopped="samples",
        calls=1,
        rollouts=1,
        completion_tokens=1,
        dropped_tokens=0,
    )


def scoped(spec, *trees: Tree) -> Outcome:
    stage = ScopeFeedback(spec, ActorSettings(), ScopeSettings(feedback="Whisper."), TEMPLATES, 1)
    return run_stage(spec, stage, trees, Tree)


def test_each_scope_makes_a_pair_and_revised_answers_are_checked(spec):
    outcome = scoped(spec, *(tree(f"lying {scope}") for scope in ("in", "near", "out")))
    assert {item.problem.id: item.scope for item in outcome.kept} == {
        "lying in": "in",
        "lying near": "near",
        "lying out": "out",
    }
    for item in outcome.kept:
        assert (item.first, item.revised, item.feedback) == (RIGHT, f"whispered\n{RIGHT}", "Whisper.")
        assert (item.first_outcome, item.revised_outcome) == ("correct", "correct")
    assert (outcome.rejected, outcome.failed) == ([], [])


@pytest.mark.parametrize(
    ("what", "answer", "reason"),
    [
        ("lying in", " \n", "no_answer"),
        ("lying somewhere", RIGHT, "scope_unclear"),
        ("lying in, revised to nothing", RIGHT, "no_revision"),
        ("lying in, revised as it was", RIGHT, "unchanged"),
        ("lying in, judged by turns", RIGHT, "change_unclear"),
        ("lying in, revised talking", RIGHT, "talks_of_feedback"),
        ("lying in, revised aloud", RIGHT, "not_followed"),
        ("lying in", f"whispered\n{RIGHT}", "followed_before"),
        ("lying in, revised wrongly", RIGHT, "loses_answer"),
    ],
)
def test_every_other_tree_is_rejected_by_name(spec, what, answer, reason):
    outcome = scoped(spec, tree(what, answer))
    assert (outcome.kept, [item.reason for item in outcome.rejected]) == ([], [reason])
    assert reason in SCOPE_REJECTIONS


def test_nothing_is_revised_for_a_problem_whose_scope_nobody_can_tell(spec):
    asked = scoped(spec, tree("lying somewhere else")).asked[""]
    assert [request.num_samples for request in asked] == [3]
    assert section(asked[0].prompt, "User feedback") == "Whisper."


def test_c3po_prefers_what_was_revised_where_the_feedback_belongs_and_nowhere_else(tmp_path):
    words = "recipe=c3po problems=simulated problems.num_problems=24 engine=simulated actor=plain"
    words += (
        f" engine.world.meta_accuracy=1.0 export.validation_share=0.0 runner.problems_per_shard=24 out={tmp_path}/out"
    )
    books = run(compose(words.split()), Watcher()).books
    assert all(stage.balanced for stage in books.stages)
    rows = datasets.load_dataset(f"{tmp_path}/out", "dpo", split="train", cache_dir=str(tmp_path / "cache")).to_list()
    assert {row["scope"] for row in rows} >= {"in", "near"}
    for row in rows:
        question = row["prompt"][0]["content"].partition("Problem:\n")[2].strip()
        assert row["scope"] == scope_of(question)
        preferred, other = (row[side][0]["content"].startswith(WORDS.strip()) for side in ("chosen", "rejected"))
        assert (preferred, other) == (row["scope"] == "in", row["scope"] != "in")
