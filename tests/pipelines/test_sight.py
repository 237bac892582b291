"""Problems with images are refused before any work where somebody who is shown them could not see them."""

import pytest

from pipelines.config import compose
from pipelines.errors import UserError
from pipelines.plan import Inputs, make_plan
from pipelines.run import Watcher, run
from pipelines.sight import check_sight
from schemas import Image, Problem

IMAGE = Image(bytes=b"\x89PNG\r\n\x1a\n", media_type="image/png")
SEEING = "engine=openai engine.url=http://127.0.0.1:1 engine.model=m engine.images=true"
BLIND = "+engines.small.kind=openai +engines.small.url=http://127.0.0.1:1 +engines.small.model=s"
PANEL = "panel.agents=[{name:anna},{name:ben,engine:small}]"


def problems(*pictured: bool) -> tuple[Problem, ...]:
    return tuple(
        Problem(
            id=f"p{i}", source="s", domain="exact", question="How many?", answer="7", images=(IMAGE,) if has else ()
        )
        for i, has in enumerate(pictured)
    )


def check(overrides: str, *pictured: bool) -> None:
    check_sight(compose(["problems=simulated", *overrides.split()]), problems(*pictured))


@pytest.mark.parametrize("engine", ["llama_cpp", "scripted", "openai engine.url=http://127.0.0.1:1 engine.model=m"])
def test_an_actor_without_eyes_is_refused(engine):
    with pytest.raises(UserError) as caught:
        check(f"engine={engine}", False, True, True)
    message = str(caught.value)
    kind = engine.split()[0]
    assert message.startswith(f"engine (kind {kind}, for the actor, critic ")
    assert "2 of 3 problems have some (first: 'p1')" in message
    assert "engine.style=chat engine.images=true" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("settings", "who"),
    [
        (PANEL, "critic ben"),
        ("panel.meta_engine=small", "the meta-critic"),
        ("panel.compose_engine=small", "the composing model"),
        (f"{PANEL} panel.meta_engine=small", "critic ben, the meta-critic"),
    ],
)
def test_so_is_anybody_else_who_is_shown_problems(settings, who):
    panel = "" if "agents" in settings else "panel=blind"
    with pytest.raises(UserError, match=rf"^engines.small \(kind openai, for {who}\) is shown no images"):
        check(f"{SEEING} {BLIND} {panel} panel.meta_template=meta panel.compose_template=compose {settings}", True)


@pytest.mark.parametrize(
    "settings",
    [
        f"{SEEING} panel=blind",
        "engine=simulated panel=blind",
        # An engine that nobody uses, and roles that nobody plays.
        f"{SEEING} {BLIND} panel=blind",
        f"{SEEING} {BLIND} panel=blind panel.meta_engine=small panel.meta_template=''",
        f"{SEEING} {BLIND} panel=blind panel.compose_engine=small panel.compose_template=''",
        f"{SEEING} {BLIND} {PANEL} +engines.small.images=true",
    ],
)
def test_who_sees_is_taken(settings):
    check(settings, True)


def test_without_images_anybody_will_do():
    check("engine=llama_cpp", False, False)


def test_a_run_is_refused_before_anything_is_written(tmp_path):
    out = tmp_path / "out"
    with pytest.raises(UserError, match=r"engine \(kind scripted"):
        run(compose(["engine=scripted", "problems=shapes", "problems.num_problems=1", f"out={out}"]), Watcher())
    assert not out.exists()


def test_the_plan_knows_whether_tables_show_images():
    settings = compose(["engine=simulated", "problems=simulated"])
    assert make_plan(settings, Inputs(problems=problems(False, True), unread=())).images
    assert not make_plan(settings, Inputs(problems=problems(False), unread=())).images
