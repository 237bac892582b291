"""Recipes that decide which critique is kept or preferred: from the command line's words to loaded tables."""

import io
import re
from collections import defaultdict
from pathlib import Path

import datasets
import msgspec
import pytest
from rich.console import Console

from annotators.preferences import utility
from annotators.verification import VerifySettings
from pipelines.config import compose, compose_plain, options
from pipelines.errors import UserError
from pipelines.main import main
from pipelines.run import Watcher, run
from pipelines.shards import read_rows
from pipelines.show import show
from schemas import Estimate

WORLD = "problems=simulated engine=simulated actor=plain search=default pairing=default export.validation_share=0.0"


def made(words: str, out: Path, *, num_problems: int = 8) -> dict[str, dict[str, int]]:
    """What each stage paid for."""
    few = f"problems.num_problems={num_problems} runner.problems_per_shard={num_problems} out={out}"
    books = run(compose([*words.split(), *WORLD.split(), *few.split()]), Watcher()).books
    assert all(stage.balanced for stage in books.stages)
    paid: dict[str, dict[str, int]] = msgspec.json.decode((out / "run.json").read_bytes())["paid"]
    return paid


def loaded(out: Path, table: str) -> list[dict]:
    return datasets.load_dataset(str(out), table, split="train", cache_dir=str(out.parent / "cache")).to_list()


def text_of(turns: list[dict]) -> str:
    (turn,) = turns
    return turn["content"]


def test_rco_prefers_by_what_five_second_solutions_are_worth(tmp_path):
    made("recipe=rco", tmp_path / "out")
    verified = {
        (row["critique"]["path_id"], row["critique"]["text"]): row for row in loaded(tmp_path / "out", "verified")
    }
    assert {row["decision"] for row in verified.values()} == {"kept"}
    assert {row["with_critique"]["scored"] + row["with_critique"]["unscored"] for row in verified.values()} == {5}
    assert {row["without_critique"] for row in verified.values()} == {None}
    by_text = {text: row for (_, text), row in verified.items()}
    rows = loaded(tmp_path / "out", "critique_dpo")
    assert rows
    for row in rows:
        label = by_text[text_of(row["chosen"])]["has_error"]
        worth = [utility(Estimate(**row[name]), has_error=label) for name in ("chosen_estimate", "rejected_estimate")]
        assert row["margin"] == pytest.approx(worth[0] - worth[1])
        assert row["margin"] >= 0.2 - 1e-9


def test_critic_v_prefers_who_finds_what_was_put_in_and_pays_for_no_second_solution(tmp_path):
    paid = made("recipe=critic_v engine.world.critic_accuracy=0.5", tmp_path / "out")
    assert "VerifyCritiques" not in paid
    rows = loaded(tmp_path / "out", "critique_dpo")
    assert rows
    # What is criticised has an error that was put in, and nothing else.
    assert {row["posterior"][row["first_error"]] for row in read_rows(tmp_path / "out", "pairs")} == {1.0}
    assert not list(read_rows(tmp_path / "out", "alone"))
    named = {row["critique"]["text"]: row for row in loaded(tmp_path / "out", "verified")}
    for row in rows:
        assert (row["chosen_estimate"], row["rejected_estimate"]) == (None, None)
        chosen, rejected = (named[text_of(row[side])] for side in ("chosen", "rejected"))
        # These critics name one error at most: who names the known one has 1, everybody else 0.
        assert row["margin"] == 1.0
        assert chosen["critique"]["first_wrong_step"] == chosen["first_error"]
        assert rejected["critique"]["first_wrong_step"] != rejected["first_error"]


def test_rlac_rewards_one_side_of_each_meeting(tmp_path):
    paid = made("recipe=rlac engine.world.critic_accuracy=0.5", tmp_path / "out")
    assert "VerifyCritiques" not in paid
    sides = defaultdict(list)
    rows = loaded(tmp_path / "out", "rl")
    for row in rows:
        sides[row["task"]].append(row["reward"])
    assert len(sides["criticise"]) == len(sides["solve"]) == len(list(read_rows(tmp_path / "out", "verified")))
    assert sum(sides["criticise"]) + sum(sides["solve"]) == len(sides["solve"])
    assert set(sides["criticise"]) == {0.0, 1.0}
    for row in rows:
        if row["task"] == "criticise" and row["reward"] == 1.0:
            ending = f"The first wrong step is step {row['first_error'] + 1}. The solution is incorrect."
            assert text_of(row["completion"]).endswith(ending)


LIARS = ("baseless", "hypercritical", "hypercritical_grounded", "malicious", "malicious_grounded")


def test_wafer_rejects_who_misleads_and_shows_who_is_talked_out_of_a_right_solution(tmp_path, capsys):
    lies = " ".join(f"+engine.world.liars.{name}=1.0" for name in LIARS)
    made(f"recipe=wafer {lies}", tmp_path / "out")
    authors = {row["text"]: row["agent"] for row in loaded(tmp_path / "out", "critiques")}
    rows = loaded(tmp_path / "out", "critique_dpo")
    assert rows
    assert {authors[text_of(row["rejected"])] for row in rows} <= set(LIARS)
    console = Console(file=io.StringIO(), width=160)
    show(console, str(tmp_path / "out"))
    shown = console.file.getvalue()
    given_up = {
        cells[0]: float(cells[4])
        for cells in ([cell.strip() for cell in line.strip("│").split("│")] for line in shown.splitlines())
        if len(cells) == 7 and cells[0] in (*LIARS, "constructive", "panel")
    }
    assert set(given_up) == {*LIARS, "constructive", "panel"}
    assert given_up["panel"] < given_up["constructive"] + 0.3 < min(given_up[name] for name in LIARS)
    assert "Whether the panel holds out" in shown
    words = ["--critic", "always-first", "--no-refine", "--split", "train", f"out={tmp_path / 'evaluation'}"]
    assert main(["evaluate", str(tmp_path / "out"), *words]) == 0
    evaluated = capsys.readouterr().out
    assert "Who is talked out of a right solution" in evaluated
    assert "Whether the panel holds out" in evaluated


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("recipe=wafer panel=blind", "export.prefer.rejected_agents: 'baseless' is none of the panel's agents (blind_"),
        (
            "recipe=rco verify.measure_all=false",
            "export.prefer (by=utility, needs_help=False) compares second solutions",
        ),
        ("panel=peers export.prefer.by=severity", "export.prefer.by=severity goes by the meta-critic's votes"),
        ("verify.tests=[verdict]", "tests: unknown test 'verdict', expected some of wrong_verdict, "),
    ],
)
def test_what_can_make_no_row_is_refused_before_start(words, message):
    with pytest.raises(UserError) as caught:
        compose(words.split())
    assert message in str(caught.value)


def test_what_is_kept_is_chosen_by_name():
    assert compose(["verify=none"]).verify.tests == ()
    assert compose(["verify=verdict"]).verify.tests == ("wrong_verdict",)
    soft = compose(["verify=soft"]).verify
    assert soft.tests == ("wrong_verdict", "leaks_answer", "rate_too_low", "rate_not_higher")
    assert soft.help.looks() == (8,)
    assert compose(["recipe=rlac", "verify.tests=[]"]).verify.tests == ()


@pytest.mark.slow
def test_the_page_on_keeping_names_every_recipes_choice():
    page = (Path(__file__).parents[2] / "docs" / "keeping.md").read_text(encoding="utf-8")
    rows = re.findall(
        r"^\| `(\w+)` \| (none|`[`\w, ]+`) \| `(\w+)` \|$", page.partition("## By recipe")[2], re.MULTILINE
    )
    told = {name: (tuple(re.findall(r"\w+", tests)) if tests != "none" else (), by) for name, tests, by in rows}
    ours = (VerifySettings().tests, "verified")
    chosen = {name: compose_plain([f"recipe={name}"]) for name in options("recipe")}
    found = {name: (tuple(plain["verify"]["tests"]), plain["export"]["prefer"]["by"]) for name, plain in chosen.items()}
    assert told == {name: choice for name, choice in found.items() if choice != ours}
