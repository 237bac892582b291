"""What ran out of tokens in its answer, in the stages: unscored in a tree, and unscored as a second solution."""

import pytest

from annotators.helping import HelpSettings
from annotators.verification import VerifySettings
from mcts.pairing import PairSettings
from mcts.settings import SearchSettings
from pipelines.expand_trees import ExpandTrees
from pipelines.settings import ActorSettings
from pipelines.templates import load_template
from pipelines.verify_critiques import VerifyCritiques
from pipelines.worker import holding
from schemas import Empanelled, Estimate, Posed
from tests.annotators.annotated import pair, problem
from tests.pipelines.scripted_critics import run_stage, spec_of
from tests.pipelines.test_verify_critiques import SURELY, of

# The gold answer is 20 and the answer line "Answer: 20 / 4", which is wrong; cut after its second word it reads right.


@pytest.fixture(scope="module")
def spec(tmp_path_factory):
    with spec_of(tmp_path_factory.mktemp("cut"), actor="long_answers") as spec, holding(spec):
        yield spec


# `Step 1: so it goes` has five words, the answer line four; the scripted engine's tokens are words.
@pytest.mark.parametrize(
    ("max_tokens", "outcomes"),
    [
        (9, {("Answer: 20 / 4\n", "incorrect", None)}),
        (7, {("Answer: 20", "unscored", "cut_off")}),
        (5, {("Step 1: so it goes", "unscored", "no_answer")}),
    ],
)
def test_a_rollout_that_was_cut_in_its_answer_is_no_answer(spec, max_tokens, outcomes):
    search = SearchSettings(root_rollouts=2, max_root_rollouts=2, max_rollouts=2)
    template = load_template("solve", key="actor.solve_template", gaps=frozenset({"problem"}))
    stage = ExpandTrees(spec, ActorSettings(max_tokens=max_tokens), search, PairSettings(), template, 1)
    outcome = run_stage(spec, stage, [Posed(problem=problem())], Posed)
    (tree,) = outcome.kept
    ends = {(node.step, node.outcome, node.unscored_reason) for node in tree.nodes if node.kind == "terminal"}
    assert ends == outcomes
    steps = [node.step for node in tree.nodes if node.kind == "step"]
    assert steps == ([] if max_tokens == 5 else ["Step 1: so it goes\n"])
    scored = 2 if max_tokens == 9 else 0
    assert tree.nodes[0].direct == Estimate(correct=0, scored=scored, unscored=2 - scored)


@pytest.mark.parametrize(("max_tokens", "estimate"), [(9, Estimate(scored=2)), (7, Estimate(unscored=2))])
def test_a_second_solution_that_was_cut_in_its_answer_is_unscored(spec, max_tokens, estimate):
    chosen = VerifySettings(help=HelpSettings(rollouts=2, max_rollouts=2))
    refine = load_template("refine", key="actor.refine_template", gaps=frozenset({"sections"}))
    stage = VerifyCritiques(spec, ActorSettings(max_tokens=max_tokens), chosen, refine, 1)
    (examined,) = run_stage(spec, stage, [of(pair(), SURELY)], Empanelled).kept
    (item,) = examined.verified
    assert item.with_critique == item.with_placebo == item.without_critique == estimate
    assert (item.refinement, item.refinement_answer) == ("", "")
