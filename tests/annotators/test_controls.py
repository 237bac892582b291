"""What goes on to verification, and the placebo that it is compared with."""

import itertools

import pytest

from annotators.controls import (
    FALLBACK_PLACEBO,
    choose_candidates,
    choose_placebos,
    shard_quota,
    undoubted_surplus,
)
from schemas import Criticised
from tests.annotators.annotated import alone, criticised, critique, pair, problem


def spoken(name: str, answer: str, *texts: str) -> Criticised:
    path = pair(problem(answer=answer, name=f"problem of {name}"), name=name)
    return Criticised(
        path=path,
        critiques=tuple(critique(path, agent=f"agent{i}", text=text) for i, text in enumerate(texts)),
    )


def test_a_placebo_is_of_another_problem_and_closest_in_length():
    items = [
        spoken("a", "1", "a" * 100, "a" * 120),
        spoken("b", "2", "b" * 109, "b" * 10),
        spoken("c", "3", "c" * 112, "c" * 1000),
    ]
    # Mean lengths: 110, 59.5 and 556.
    assert choose_placebos(items) == {"a": "b" * 109, "b": "a" * 100, "c": "a" * 120}


def test_a_placebo_has_the_length_of_the_average_critique():
    items = [spoken("a", "1", "a" * 10, "a" * 90), spoken("b", "2", "b" * 10, "b" * 52, "b" * 90)]
    assert choose_placebos(items)["a"] == "b" * 52


def test_a_placebo_says_of_its_solution_what_is_true_of_this_one_even_if_it_is_longer():
    other = pair(problem(answer="5", name="other"), name="other")
    short = critique(other, agent="praises", wrong=None, text="p" * 50)
    long = critique(other, agent="blames", wrong=0, text="b" * 500)
    pool = Criticised(path=other, critiques=(short, long))
    wrong, right = spoken("a", "1", "a" * 50), criticised(alone(problem(answer="2", name="r"), name="r"), anna=None)
    placebos = choose_placebos([pool, wrong, right])
    assert placebos["a"] == "b" * 500
    assert placebos["r"] == "p" * 50


def test_other_paths_of_the_same_problem_and_problems_with_the_same_answer_give_no_placebo():
    same = problem(answer="1")
    items = [criticised(pair(same, name="a"), anna=0), criticised(pair(same, name="b"), anna=1), spoken("c", "1", "c")]
    assert set(choose_placebos(items).values()) == {FALLBACK_PLACEBO}


def test_a_critique_without_units_is_no_placebo_and_a_path_without_critiques_gets_one():
    other = pair(problem(answer="5", name="other"), name="other")
    empty = Criticised(path=other, critiques=(critique(other, wrong=None, units=()),))
    assert choose_placebos([empty, criticised(pair(), anna=0)])["pair1"] == FALLBACK_PLACEBO
    silent = Criticised(path=other, critiques=())
    near = "x" * (len(FALLBACK_PLACEBO) - 3)
    assert choose_placebos([silent, spoken("a", "1", "short", near)])["other"] == near


def test_placebos_do_not_depend_on_order():
    items = [spoken(name, name, *(name * i + str(i) for i in range(3, 6))) for name in "abcdef"]
    assert choose_placebos(items[::-1]) == choose_placebos(items)


def test_candidates_are_what_is_wanted_the_composed_one_first():
    anna, bert = critique(pair(), agent="anna", text="a"), critique(pair(), agent="bert", text="b")
    panel = critique(pair(), agent="panel", text="p")
    assert choose_candidates([anna, bert], panel, "both") == (panel.id, anna.id, bert.id)
    assert choose_candidates([anna, bert], panel, "agents") == (anna.id, bert.id)
    assert choose_candidates([anna, bert], panel, "composed") == (panel.id,)
    assert choose_candidates([anna, bert], None, "both") == (anna.id, bert.id)
    assert choose_candidates([anna, bert], None, "composed") == ()


def test_equal_texts_are_one_candidate_the_first():
    anna, bert = critique(pair(), agent="anna", text="same"), critique(pair(), agent="bert", text="same")
    panel = critique(pair(), agent="panel", text="same")
    assert choose_candidates([anna, bert], panel, "both") == (panel.id,)
    assert choose_candidates([anna, bert], None, "both") == (anna.id,)


def test_critiques_that_another_critic_was_shown_are_not_finished():
    path = pair()
    first, second, alone_ = (critique(path, agent=agent, text=agent) for agent in ("first", "second", "alone"))
    composed = critique(path, agent="panel", text="panel")
    said = (first, second, alone_)
    assert choose_candidates(said, composed, "finished", {"first"}) == (second.id, alone_.id)
    assert choose_candidates(said, composed, "agents", {"first"}) == (first.id, second.id, alone_.id)


@pytest.mark.parametrize(("total", "num_shards"), [(250, 1), (250, 7), (250, 1000), (0, 3)])
def test_the_parts_of_all_shards_add_up_to_the_whole(total, num_shards):
    parts = [shard_quota(total, index, num_shards) for index in range(num_shards)]
    assert sum(parts) == total
    assert max(parts) - min(parts) <= 1


def right(name: str, **named: int | None) -> Criticised:
    return criticised(alone(name=name), **named)


def test_only_right_paths_that_nobody_doubted_are_counted_and_which_stay_their_digests_decide():
    """DeepCritic's rule: all wrong ones, right ones with a self-correction, and so many others."""
    plain = [right(f"plain{i}", first=None, deep=None) for i in range(5)]
    others = [
        right("taken back", first=1, deep=None),
        right("doubted to the end", first=None, deep=2),
        criticised(pair(name="wrong"), first=0, deep=0),
        right("silent"),
    ]
    names = {item.path.id for item in plain}
    fallen = undoubted_surplus([*plain, *others], 3)
    assert len(fallen) == 2
    assert fallen < names
    for order in itertools.permutations(plain):
        assert undoubted_surplus([*others, *order], 3) == fallen
    assert undoubted_surplus([*plain, *others], 5) == frozenset()
    assert undoubted_surplus([*plain, *others], 0) == names
    assert undoubted_surplus([*plain, *others], 2) > fallen
