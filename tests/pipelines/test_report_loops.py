"""What the report says of rounds of feedback and of flips, over records that can be counted by hand."""

import msgspec

from annotators.flips import Compared
from pipelines.config import compose
from pipelines.output import Output
from pipelines.report import write_report
from pipelines.report.loops import LoopFacts, gain, gather_loops, share
from pipelines.shards import all_shards, write_shard
from schemas import Critique, Dialogue, Estimate, Image, Panel, PathAlone, PathPair, Verified
from tests.annotators.annotated import problem
from tests.annotators.made_dialogues import RIGHT, WRONG, attempt, dialogue, told
from tests.hostile.test_pages import books, plan_of
from tests.pipelines.made_records import make

OVERRIDES = ["engine=scripted", "problems=simulated", "panel.agents=[{name:anna},{name:liar,role:deceptive}]"]


def measured(name, agent, *, has_error, right_with, right_without):
    critique = msgspec.structs.replace(make(Critique), id=name, agent=agent)
    record = make(Verified, id=name, has_error=has_error)
    return msgspec.structs.replace(
        record,
        critique=critique,
        with_critique=Estimate(correct=right_with, scored=4),
        without_critique=Estimate(correct=right_without, scored=4),
    )


def written(out, **rows):
    for shard in all_shards([0], 1):
        items = rows.get(shard.config, []) if shard.split == "train" else []
        write_shard(out, shard, [(item.id, item) for item in items])
    return out


def a_run(out):
    return written(
        out,
        pairs=[make(PathPair, id="w")],
        alone=[make(PathAlone, id="r")],
        panels=[
            make(Panel, id="1", path_id="w", consensus="incorrect"),
            make(Panel, id="2", path_id="r", consensus="tie"),
        ],
        verified=[
            measured("1", "anna", has_error=True, right_with=3, right_without=1),
            measured("2", "liar", has_error=False, right_with=1, right_without=4),
            measured("3", "panel", has_error=True, right_with=4, right_without=1),
        ],
        dialogues=[dialogue((attempt(WRONG), told()), (attempt(RIGHT, "correct"), None))],
    )


def test_critics_have_their_intent_and_what_became_of_solutions(tmp_path):
    facts = gather_loops(a_run(tmp_path), compose(OVERRIDES))
    found = {item.name: (item.intent, item.knowledge) for item in facts.critics}
    assert found == {"anna": ("constructive", "own"), "liar": ("malicious", "own"), "panel": (None, None)}
    anna, liar, _ = facts.critics
    assert (anna.flips.put_right, anna.flips.on_right) == (0.5, Compared())
    assert liar.flips.given_up == 0.75
    assert facts.robustness.on_wrong == Estimate(correct=1, scored=1)
    assert facts.robustness.on_right == Estimate(unscored=1)


def test_dialogues_are_told_by_round_and_by_giver(tmp_path):
    facts = gather_loops(a_run(tmp_path), compose(OVERRIDES))
    assert [(item.round, item.estimate, item.gained) for item in facts.rounds] == [
        (0, Estimate(scored=1), 0),
        (1, Estimate(correct=1, scored=1), 1),
    ]
    assert [(item.dialogues, item.mean_reciprocal_rank) for item in facts.combinations] == [(1, 0.5)]


def test_a_run_without_them_has_no_such_section(tmp_path):
    assert gather_loops(written(tmp_path), compose(OVERRIDES)) == LoopFacts()
    write_report(Output(str(tmp_path)), plan_of("m"), books())
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Rounds of feedback" not in page
    assert "change sides" not in page


def test_the_page_shows_them_in_tables(tmp_path):
    write_report(Output(str(a_run(tmp_path))), plan_of("m"), books())
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    for words in ("Rounds of feedback", "Solutions that change sides", 'href="#rounds"', 'href="#flips"'):
        assert words in page
    # Jeffreys: 1 of 1, that is Beta(3/2, 1/2).
    assert "1.00 (0.23 to 1.00) of 1" in page
    assert "+0.50" in page
    assert "style=" not in page.partition('<script type="application/json"')[0]


def test_images_of_dialogues_are_not_kept_in_memory(tmp_path):
    pictured = msgspec.structs.replace(problem(), images=(Image(bytes=b"GIF8", media_type="image/gif"),))
    talk = msgspec.structs.replace(dialogue((attempt(), None)), problem=pictured)
    assert isinstance(talk, Dialogue)
    facts = gather_loops(written(tmp_path, dialogues=[talk]), compose(OVERRIDES))
    assert facts.rounds[0].estimate == Estimate(scored=1)


def test_shares_and_gains_are_said_for_people():
    assert share(Estimate(unscored=2)) == "none scored, 2 unscored"
    assert share(Estimate(correct=1, scored=1, unscored=1)) == "1.00 (0.23 to 1.00) of 1, 1 unscored"
    assert (gain(None), gain(0.25), gain(-0.25)) == ("none", "+0.25", "-0.25")
