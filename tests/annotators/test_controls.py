"""What goes on to verification, and the placebo that it is compared with."""

from annotators.controls import FALLBACK_PLACEBO, choose_candidates, choose_placebos
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
