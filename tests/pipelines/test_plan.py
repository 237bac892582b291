import io

import pytest
from rich.console import Console

from pipelines import plan as plans
from pipelines.config import compose
from pipelines.display import Display
from pipelines.errors import UserError
from pipelines.plan import Inputs, make_plan
from schemas import Image, Problem, Rejection

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


SEEING = ("engine=openai", "engine.url=http://127.0.0.1:1", "engine.model=m", "engine.images=true")
PICTURE = (Image(bytes=b"\x89PNG\r\n\x1a\n", media_type="image/png"),)


def of_domain(*domains: str) -> Inputs:
    return Inputs(problems=tuple(problem(i, domain=domain) for i, domain in enumerate(domains)), unread=())


@pytest.mark.parametrize(
    ("need", "of", "what"),
    [
        ("images", inputs(), "3 of 3 problems have no images (first: 'p0')"),
        (
            "images",
            Inputs(problems=(problem(0, images=PICTURE), problem(1)), unread=()),
            "1 of 2 problems have no images (first: 'p1')",
        ),
        ("code", of_domain("code", "math"), "1 of 2 problems are not of the domain code (first: 'p1')"),
        ("command", of_domain("code"), "1 of 1 problems are not of the domain command (first: 'p0')"),
    ],
)
def test_problems_that_lack_what_they_must_have_are_refused(need, of, what):
    with pytest.raises(UserError) as caught:
        plan(*SEEING, f"needs=[{need}]", of=of)
    assert str(caught.value).startswith(f"needs={need}: {what}")


def test_what_problems_need_shapes_no_row():
    pictured = Inputs(problems=(problem(0, images=PICTURE),), unread=())
    assert plan(*SEEING, "needs=[images]", of=pictured) is not None
    assert compose([*BASE, "needs=[images]"]).config_digest() == compose(BASE).config_digest()
    assert plan("needs=[code]", of=of_domain("code")).num_shards == 1


@pytest.mark.parametrize("recipe", ["gui_critic", "critic_lean"])
def test_recipes_for_other_problems_refuse_those_of_the_simulated_world(recipe):
    with pytest.raises(UserError, match=r"^needs=(images|command): 3 of 3 problems "):
        plan(f"recipe={recipe}", "actor=plain")


@pytest.mark.parametrize("domain", ["code", "command"])
def test_answers_that_nothing_can_run_are_refused_before_any_work(monkeypatch, domain):
    words = ("checker.command=[cat,'{solution}']",)
    assert plan(*words, of=of_domain("math", domain)).num_shards == 1
    monkeypatch.setattr(plans, "can_hold_in", lambda: False)
    with pytest.raises(UserError, match=r"^1 of 2 problems are of the domain code or command \(first: 'p1'\), whose"):
        plan(*words, of=of_domain("math", domain))
    assert plan(*words, of=of_domain("math", "exact")).num_shards == 1
    # Workers elsewhere look for themselves.
    cloud = "runner.project=p runner.region=r runner.temp_location=gs://bucket/t out=gs://bucket/o journal=redis://r.example:6379/0"
    assert plan(*words, "runner=dataflow", *cloud.split(), of=of_domain(domain)).num_shards == 1


def test_who_is_to_suggest_the_right_action_is_asked_for_it():
    asked, others = (plan(word).context.critique_instruction.text for word in ("export.suggestions=true", "seed=0"))
    assert "without giving the final answer" in others
    assert "which action to do instead" in asked
    assert "final answer" not in asked
    made = plan("recipe=gui_critic", *SEEING, of=Inputs(problems=(problem(0, images=PICTURE),), unread=()))
    (critic,) = made.critics.values()
    for text in (critic.text, made.context.critique_instruction.text):
        assert "which action to do instead" in text
        assert "final answer" not in text


def said_of(*overrides: str) -> str:
    shown = io.StringIO()
    Display(Console(file=shown, width=300)).planned(plan(*overrides), inputs(), 0, (0,), num_finished=0)
    return shown.getvalue()


def test_the_header_names_critics_where_some_are_asked():
    assert "critics anna, ben\n" in said_of("panel=single", "panel.agents=[{name:anna},{name:ben}]")
    assert "critics none\n" in said_of("recipe=nft")
    assert "critics none\n" in said_of("recipe=interactive")


def test_settings_by_which_nothing_but_trees_is_written_are_said_before_any_work():
    warned = "No row but those of trees will be written"
    assert warned in said_of("recipe=c3po", "scope.feedback=''")
    assert warned in said_of("recipe=interactive", "loop=off")
    for other in ("c3po", "interactive", "nft", "llava_critic", "brittle_pairs", "cft"):
        assert warned not in said_of(f"recipe={other}")
