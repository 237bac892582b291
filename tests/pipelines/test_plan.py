import pytest

from pipelines.config import compose
from pipelines.plan import Inputs, make_plan
from schemas import Problem, Rejection

BASE = ["engine=scripted", "problems=simulated"]


def problem(number: int, **fields) -> Problem:
    plain = {"id": f"p{number}", "source": "s", "domain": "math", "question": f"What is {number} + 1?", "answer": "2"}
    return Problem(**plain | fields)


def inputs(count: int = 3, unread: tuple[Rejection, ...] = ()) -> Inputs:
    return Inputs(problems=tuple(problem(i) for i in range(count)), unread=unread)


def plan(*overrides: str, of: Inputs | None = None):
    return make_plan(compose([*BASE, *overrides]), of or inputs())


def test_equal_settings_and_inputs_make_equal_plans():
    assert plan() == plan()


@pytest.mark.parametrize(("count", "num_shards"), [(1, 1), (4, 1), (5, 2), (8, 2), (9, 3)])
def test_shards_are_as_many_as_problems_need(count, num_shards):
    made = plan("runner.problems_per_shard=4", of=inputs(count))
    assert made.num_shards == num_shards
    assert set(made.shards_of(inputs(count))) <= set(range(num_shards))


@pytest.mark.parametrize(
    "other",
    [
        Inputs(problems=(problem(0), problem(1)), unread=()),
        Inputs(problems=(problem(0), problem(2), problem(1)), unread=()),
        Inputs(problems=(problem(0), problem(1), problem(2, answer="3")), unread=()),
        inputs(unread=(Rejection(stage="ReadProblems", key="f:1", problem_id="", reason="bad_json"),)),
    ],
    ids=["fewer", "order", "answer", "unread"],
)
def test_other_inputs_are_another_config(other):
    assert plan(of=other).config_digest != plan().config_digest


def test_other_settings_are_another_config_but_not_another_folder():
    assert plan("seed=1").config_digest != plan().config_digest
    assert plan("out=x", "journal=y").config_digest == plan().config_digest


def test_another_text_of_a_template_is_another_config(tmp_path):
    path = tmp_path / "mine.txt"
    digests = []
    for text in ("Solve {problem}", "Solve {problem}!"):
        path.write_text(text)
        digests.append(plan(f"actor.solve_template={path}").config_digest)
    assert digests[0] != digests[1]


def test_each_critic_has_its_template_and_no_meta_critic_needs_none():
    made = plan("panel.agents=[{name:a},{name:b}]", "panel.meta_template=''")
    assert list(made.critics) == ["a", "b"]
    assert made.critics["a"].gaps <= {"role", "critic", "sections"}
    assert made.meta is None


@pytest.mark.parametrize(
    ("override", "begins"),
    [
        ("actor.solve_template=nope", "actor.solve_template: no prompt template 'nope'"),
        ("actor.refine_template=nope", "actor.refine_template: no prompt template 'nope'"),
        ("panel.meta_template=nope", "panel.meta_template: no prompt template 'nope'"),
        ("panel.agents=[{name:a,template:nope}]", "panel.agents[a].template: no prompt template 'nope'"),
        ("actor.solve_template=critique", "actor.solve_template: template 'critique' has the gaps "),
        ("actor.refine_template=solve", "actor.refine_template: template 'solve' has the gaps ['problem']"),
    ],
)
def test_a_template_that_does_not_fit_is_named_by_its_setting(override, begins):
    with pytest.raises(ValueError, match=r".") as caught:
        plan(override)
    assert str(caught.value).startswith(begins)
