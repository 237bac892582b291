"""Whom a panel believes: votes, skills, the rollouts' posterior, named ties."""

import itertools

import msgspec
import pytest

from annotators.consensus import Consensus, location_prior, reach_consensus
from schemas import Criticised, PathPair
from tests.annotators.annotated import alone, criticised, pair

# crowd-kit 1.4 passes arguments to pandas that pandas 4 will no longer take.
pytestmark = pytest.mark.filterwarnings("ignore:The (inplace|copy) keyword:DeprecationWarning")


def located(name: str, first_error: int, num_steps: int = 4) -> PathPair:
    """A wrong path whose rollouts are sure that `first_error` is the first wrong step."""
    return pair(name=name, wrong=("x\n",) * num_steps, first_error=first_error)


def unsure(name: str, *posterior: float) -> PathPair:
    """A wrong path of which the rollouts think this."""
    path = located(name, posterior.index(max(posterior)), len(posterior))
    return msgspec.structs.replace(path, posterior=posterior)


def said(consensus: Consensus) -> tuple[str, int | None]:
    return consensus.verdict, consensus.first_wrong_step


def test_without_a_critique_there_is_no_consensus():
    assert reach_consensus([]) == {}
    assert reach_consensus([Criticised(path=pair(), critiques=())]) == {}


def test_a_path_without_a_critique_is_left_out():
    silent = Criticised(path=pair(name="silent"), critiques=())
    assert set(reach_consensus([silent, criticised(pair(), anna=0)])) == {"pair1"}


def test_the_prior_is_the_rollouts_posterior_with_a_doubt_for_every_place():
    # Three steps and none: 0.05 / 4 each, and 0.95 of what the rollouts say.
    prior = location_prior(unsure("p", 0.1, 0.7, 0.2))
    assert prior == pytest.approx({"0": 0.1075, "1": 0.6775, "2": 0.2025, "none": 0.0125})
    assert location_prior(alone()) == pytest.approx({"0": 0.0125, "1": 0.0125, "2": 0.0125, "none": 0.9625})


@pytest.mark.parametrize("names", [{"anna": 2}, {"anna": 2, "bert": 2, "cleo": 2}])
def test_what_all_say_is_agreed_on(names):
    consensus = reach_consensus([criticised(located("p", 2), **names)])["p"]
    assert said(consensus) == ("incorrect", 2)
    assert consensus.confidence > 0.95
    assert [(vote.agent, vote.first_wrong_step) for vote in consensus.votes] == list(names.items())


def test_one_vote_makes_no_expert():
    # Skill 1 of one vote, shrunk towards 3 of 5: (1 + 3) / (1 + 5).
    (vote,) = reach_consensus([criticised(located("p", 2), anna=2)])["p"].votes
    assert vote.reliability == pytest.approx(4 / 6)


def test_the_posterior_is_the_prior_times_every_votes_likelihood():
    # One voter of skill 2/3 names step 1. Places 0, 1, none: priors 0.95 * (.4, .6, 0) + 0.05 / 3 each; the vote
    # multiplies by 1/6, 2/3, 1/6.
    consensus = reach_consensus([criticised(unsure("p", 0.4, 0.6), anna=1)])["p"]
    weights = [(0.38 + 0.05 / 3) / 6, (0.57 + 0.05 / 3) * 2 / 3, 0.05 / 3 / 6]
    assert said(consensus) == ("incorrect", 1)
    assert consensus.confidence == pytest.approx(weights[1] / sum(weights))


def test_all_say_that_nothing_is_wrong():
    consensus = reach_consensus([criticised(alone(), anna=None, bert=None)])["alone1"]
    assert said(consensus) == ("correct", None)
    assert [vote.verdict for vote in consensus.votes] == ["correct", "correct"]


def test_rollouts_that_are_sure_outweigh_one_critic_but_not_all():
    assert said(reach_consensus([criticised(located("p", 0), anna=1)])["p"]) == ("incorrect", 0)
    together = reach_consensus([criticised(located("p", 0), anna=1, bert=1, cleo=1)])["p"]
    assert said(together) == ("incorrect", 1)


def test_critics_decide_where_rollouts_are_unsure():
    consensus = reach_consensus([criticised(unsure("p", 0.45, 0.35, 0.2), anna=1, bert=1)])["p"]
    assert said(consensus) == ("incorrect", 1)


def test_a_tie_is_named_and_not_broken():
    """Anna and Bert are each right as often as the other, and part where the rollouts cannot tell."""
    items = [criticised(unsure("p", 0.5, 0.5), anna=0, bert=1), criticised(unsure("q", 0.5, 0.5), anna=1, bert=0)]
    for consensus in reach_consensus(items).values():
        assert said(consensus) == ("tie", None)
        assert consensus.confidence <= 0.5


def test_who_names_neither_of_two_places_leaves_them_tied():
    assert said(reach_consensus([criticised(unsure("p", 0.5, 0.5), anna=None)])["p"]) == ("tie", None)


def honest_with_liar(num_paths: int = 12) -> list[Criticised]:
    """Anna and Bert are right but for one path each; the liar never is."""
    items = []
    for i in range(num_paths):
        truth = i % 3
        anna = (truth + 1) % 3 if i == 3 else truth
        bert = (truth + 2) % 3 if i == 7 else truth
        items.append(criticised(located(f"p{i:02}", truth), anna=anna, bert=bert, liar=(truth + 1) % 3))
    return items


def test_a_consistent_liar_is_believed_least_and_never_wins():
    items = honest_with_liar()
    consensus = reach_consensus(items)
    for i, item in enumerate(items):
        assert said(consensus[item.path.id]) == ("incorrect", i % 3)
    reliability = {vote.agent: vote.reliability for vote in consensus["p00"].votes}
    # Shrunk towards three right votes of five: none of 12 makes 3 of 17, eleven of 12 make 14 of 17.
    assert reliability["liar"] == pytest.approx(3 / 17, abs=0.05)
    assert reliability["anna"] == pytest.approx(14 / 17, abs=0.05)
    assert reliability["bert"] == pytest.approx(14 / 17, abs=0.05)


def test_two_liars_who_agree_do_not_win_where_others_were_right_before():
    items = [
        criticised(located(f"p{i:02}", i % 3), anna=i % 3, bert=i % 3, liar=(i + 1) % 3, other=(i + 2) % 3)
        for i in range(12)
    ]
    items.append(criticised(unsure("q", 0.4, 0.6), anna=0, liar=1, other=1))
    assert said(reach_consensus(items)["q"]) == ("incorrect", 0)


def test_a_path_that_only_a_liar_criticised_goes_with_the_rollouts():
    items = [*honest_with_liar(), criticised(located("q", 0), liar=1)]
    assert said(reach_consensus(items)["q"]) == ("incorrect", 0)


def test_the_order_of_paths_changes_nothing():
    items = honest_with_liar(6)
    expected = reach_consensus(items)
    assert reach_consensus(items[::-1]) == expected
    assert reach_consensus([*items[3:], *items[:3]]) == expected


def test_the_order_of_critiques_changes_nothing_that_counts():
    items = honest_with_liar(6)
    expected = reach_consensus(items)
    for order in itertools.permutations(range(3)):
        turned = [Criticised(path=item.path, critiques=tuple(item.critiques[i] for i in order)) for item in items]
        found = reach_consensus(turned)
        assert {key: said(each) for key, each in found.items()} == {key: said(each) for key, each in expected.items()}
        assert found["p00"].confidence == pytest.approx(expected["p00"].confidence)


def test_nothing_is_agreed_on_that_the_path_does_not_have():
    items = [
        criticised(located("p0", 1, num_steps=3), cleo=1),
        criticised(located("p1", 2, num_steps=3), cleo=1, bert=0, anna=2),
        criticised(located("p2", 0, num_steps=1), anna=None),
    ]
    for item in items:
        found = reach_consensus(items)[item.path.id]
        assert found.first_wrong_step is None or found.first_wrong_step < len(item.path.steps)
