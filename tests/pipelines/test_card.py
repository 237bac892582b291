"""The dataset card: its YAML says what the files hold, and nothing that a run holds breaks out of its place."""

import json
import re
from pathlib import Path

import datasets
import msgspec
import pyarrow.parquet as pq
import pytest
import yaml
from huggingface_hub import DatasetCard
from made_records import make

from pipelines.card import write_card
from pipelines.card_claims import claims
from pipelines.card_data import config_yaml, has_credentials, in_block, in_code, models, real_rows
from pipelines.config import compose, options
from pipelines.manifest import Books, StageCount
from pipelines.output import Output
from pipelines.plan import Inputs, make_plan
from pipelines.settings import CardSettings
from pipelines.shards import SPLITS, Shard, write_shard
from schemas import (
    Critique,
    CritiqueDpoRow,
    Dialogue,
    PrmRow,
    Provenance,
    Rejection,
    RlRow,
    SftRow,
    StepDpoRow,
    Tree,
)
from schemas.arrow import CONFIGS

HOSTILE = "```\n---\n</details>\n# Heading\n| a | b |\n\u202eevil `code` <script>alert(1)</script>\n{{ 7 * 7 }}"


def provenance(model="m", revision="r"):
    return Provenance(model=model, revision=revision, engine="vllm", prompt_digest="", sampling="{}", seed=0)


def lay_out(path: Path, records, num_shards=1):
    """One shard of every table, with these records in `train`."""
    for config in CONFIGS:
        for split in SPLITS:
            rows = records.get(config, []) if split == "train" else []
            keyed = [(f"{i:03d}", row) for i, row in enumerate(rows)]
            write_shard(path, Shard(config=config, split=split, index=0, num_shards=num_shards), keyed)


def books_of(records, reason="bad_json"):
    by_split = {f"{config}/{split}": 0 for config in CONFIGS for split in SPLITS}
    by_split |= {f"{config}/train": len(rows) for config, rows in records.items()}
    stage = StageCount(stage="S", element="e", entered=5, kept=3, rejected=2, failed=0, reasons={reason: 2})
    rows = {config: by_split[f"{config}/train"] for config in CONFIGS}
    return Books(stages=(stage, stage), rows=rows, rows_by_split=by_split, pair_reasons={reason: 1})


def card_of(tmp_path, records, *overrides, reason="bad_json"):
    output = Output(str(tmp_path))
    lay_out(tmp_path, records)
    plan = make_plan(compose([f"out={tmp_path}", *overrides]), Inputs(problems=(), unread=()))
    write_card(output, plan, books_of(records, reason))
    return (tmp_path / "README.md").read_text(encoding="utf-8")


def yaml_of(card):
    assert card.startswith("---\n")
    return yaml.safe_load(card.split("\n---\n")[0].removeprefix("---\n"))


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("export.rl=paths", "label, first wrong step, rates and rewards: verifiable rewards for critics |"),
        ("export.plain_share=0.2", "for critics; and bare problems to solve, `task` says which |"),
        ("export.rl=rollouts", "solutions with their outcomes and the rates of their problems"),
        ("export.rl=problem_pairs", "a hard one and a brittle one in each `pair`"),
        ("export.feedback=both_marked", "critiques that passed and critiques that failed"),
        ("verify=default", "every test named below, of help, too (of right solutions: that they do no harm): `prompt`"),
        ("verify=soft", "every test named below, of help, too: `prompt`"),
        ("verify=verdict", "every test named below; whether they help decided nothing: `prompt`"),
        ("verify=none", "none of which had to pass a test, so that what they say may be wrong: `prompt`"),
        ("verify=none", "nothing, since no test decides, and no critique fails"),
        ("export.prefer.by=utility", "the one after which second solutions are better: `prompt`, `chosen`"),
        ("export.prefer.needs_help=true", "that failed, and with which more second solutions come out right: `prompt`"),
        ("export.judge=[pairwise]", "judgements with known truth: which of two is better |"),
        ("export.refine_turns=true", "| first answer, kept critique and right second answer as turns: `prompt`"),
        ("loop=critic", "| dialogues up to a right attempt as turns, feedback not verified: `prompt`"),
        ("loop=critic export.refine_turns=true", "answer as turns; and dialogues up to a right attempt as turns, feed"),
        ("loop=critic loop.rows=[refine]", "those of dialogues had to pass no test (`decision` is `kept`) |"),
        ("loop=critic loop.rows=[distill]", "not verified: problem and the right attempt that feedback led to |"),
        ("pairing=none", "| `sft` | 0 | nothing, since no path was picked for critics |"),
    ],
)
def test_the_table_of_configs_says_what_this_run_has_in_them(tmp_path, override, said):
    assert said in card_of(tmp_path, {}, *override.split())


KEPT_NONE = "No test decided which critiques were kept"
HELPS = "second solutions came out right"
NO_ARMS = "No second solution was written with a critique"


@pytest.mark.parametrize(
    ("overrides", "said", "unsaid"),
    [
        (
            "verify=default",
            [
                f"With one of a wrong path {HELPS} more often than with none and than with a placebo; ",
                f"; with one of a right path {HELPS} not significantly less often than with none.",
                "up to 2, and of such as fail one, up to 1: 8 to 64 second solutions for each of 3 arms (with it, ",
                "(with it, with a placebo, with none); differences are tested at 0.05",
                "That a critique helps does not make",
            ],
            [KEPT_NONE, NO_ARMS],
        ),
        (
            "verify=none",
            [KEPT_NONE, NO_ARMS, "No test decides about a critique.", "kept whether they help or not"],
            [HELPS, "arms", "That a critique helps", "passed"],
        ),
        (
            "verify=verdict",
            ["A kept critique failed none of `wrong_verdict`. ", "None of them asks whether it helps.", NO_ARMS],
            [HELPS, KEPT_NONE, "arms", "That a critique helps"],
        ),
        (
            "verify=soft",
            [
                f"With one of a wrong path {HELPS} more often than with none, and in more than 25% of all cases; ",
                f"; with one of a right path {HELPS} no less often than with none, and in more than 25% of all cases.",
                ": 8 second solutions for each of 2 arms (with it, with none); rates are taken as they come",
            ],
            ["placebo", "significantly", "are tested at"],
        ),
        (
            "verify=none verify.measure_all=true",
            [KEPT_NONE, "second solutions written with it alone; what comes out decides nothing"],
            [HELPS, NO_ARMS, "arms", "That a critique helps"],
        ),
        (
            "verify=default export.feedback=both_marked",
            ["A critique was kept only if", "In `sft` are critiques that were rejected, too, marked as such."],
            [],
        ),
        (
            "verify=default pairing.max_alone=0",
            [
                "Critics criticised wrong paths that part from a right one.",
                "the help of critiques of a wrong path that",
            ],
            ["of a right path", "right paths without a partner. "],
        ),
        (
            "verify=default pairing.max_pairs=0",
            ["Critics criticised right paths without a partner.", "the help of critiques of a right path that"],
            ["of a wrong path", "a pair needs", "First errors", "have no pairs"],
        ),
        (
            "paths=samples search.max_located=0 pairing=none loop=teacher loop.rows=[refine]",
            [
                "wrongturn sampled solutions of 3 problems from the model",
                "No path was picked for critics (`pairing`), so that no critique was verified.",
                "Dialogues went on from solutions with feedback by a teacher who is shown the attempt and knows the ",
                "a dialogue has at most 3 more, each after feedback, words that give the answer away masked",
                "Feedback in dialogues was not verified",
                "**Outcomes are the checker's",
            ],
            [
                "Critics criticised",
                "kept critique failed",
                HELPS,
                NO_ARMS,
                "First errors",
                "a pair needs",
                "written by",
            ],
        ),
        (
            "paths=samples pairing=none scope.feedback=Short",
            ["Answers were revised by a user's feedback.", "a model judged. What is preferred may be wrong."],
            ["Dialogues went", HELPS],
        ),
        ("search=default", ["until one step has probability 0.92 (of a tree's wrong paths 2 at most); a pair"], []),
        ("search.max_located=0", ["change-point posterior over rollouts that were made for"], ["until one step"]),
        (
            "paths=samples paths.locate=completions search=default",
            ["change-point posterior over 8 rollouts from each step but the last (of a tree's wrong paths 2 at most)"],
            ["until one step"],
        ),
        (
            "paths=given paths.path=x.jsonl paths.ask_actor=false",
            [
                "wrongturn took solutions of 3 problems from files.",
                "Any other wrong path has no rollout that could locate its first error; a pair",
                "First errors are those that labels in the files name",
            ],
            ["come from rollouts of the actor", "change-point"],
        ),
        ("pairing.level=0.8", ["level 0.9 in trees, 0.8 in pairing and 0.9 in `rl`"], []),
    ],
)
def test_the_card_claims_no_more_than_the_settings_do(tmp_path, overrides, said, unsaid):
    card = card_of(tmp_path, {}, "verify=default", *overrides.split())
    prose = re.sub(r"<details>.*?</details>", "", card.partition("\n# ")[2], flags=re.DOTALL)
    assert "## Known limits" in prose
    assert [text for text in said if text not in prose] == []
    assert [text for text in unsaid if text in prose] == []


RECIPES = {
    KEPT_NONE: "cft critic_v rco",
    "None of them asks whether it helps": "critic_cot critic_lean critique_coder deepcritic gui_critic mmc "
    "multi_critique rlac spark spc",
    HELPS: "auto_math_critique critique_rl faft omegaprm ref_critic swe_search wafer",
    "No path was picked for critics": "brittle_pairs c3po conv_code critique_grpo dress feedback_friction interactive "
    "llava_critic nft rltf",
}
"""What the head of a recipe's card says of its critiques; the table of tests in docs/keeping.md, and pairing=none."""


def test_every_recipe_says_what_its_critiques_had_to_show():
    assert sorted(" ".join(RECIPES.values()).split()) == sorted(options("recipe"))
    for said, names in RECIPES.items():
        for name in names.split():
            summary = claims(compose([f"recipe={name}"]), 1).summary
            assert [text for text in RECIPES if text in summary] == [said], name


def test_the_block_of_the_card_loads_a_table_that_has_rows(tmp_path, monkeypatch):
    card = card_of(tmp_path / "out", {"rl": [make(RlRow, i) for i in range(3)]})
    (block,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    *before, last = block.replace('"OWNER/NAME"', repr(str(tmp_path / "out"))).strip().splitlines()
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    names = {}
    exec("\n".join([*before, f"loaded = {last}"]), names)
    assert {split: len(rows) for split, rows in names["loaded"].items()} == {"train": 3}


def test_a_card_of_problems_with_images_says_what_does_not_see_them(tmp_path):
    assert "The problems have images" not in card_of(tmp_path, {})
    plan = make_plan(compose([]), Inputs(problems=(), unread=()))
    write_card(Output(str(tmp_path)), msgspec.structs.replace(plan, images=True), books_of({}))
    card = (tmp_path / "README.md").read_text()
    assert "The problems have images: tables for trainers have a column `images`" in card
    assert "`dataset_info.json` names no table" in card


def test_the_yaml_holds_features_and_sizes_as_the_files_do(tmp_path):
    card = card_of(tmp_path, {"sft": [make(SftRow, i) for i in range(3)], "rl": [make(RlRow, 1)]})
    data = yaml_of(card)
    infos = {info["config_name"]: info for info in data["dataset_info"]}
    assert list(infos) == list(CONFIGS)
    for config, info in infos.items():
        file = tmp_path / config / "train-00000-of-00001.parquet"
        stored = json.loads(pq.read_schema(file).metadata[b"huggingface"])["info"]["features"]
        assert datasets.Features._from_yaml_list(info["features"]) == datasets.Features.from_dict(stored)
    assert infos["sft"]["splits"][0]["num_examples"] == 3
    assert infos["sft"]["download_size"] == (tmp_path / "sft" / "train-00000-of-00001.parquet").stat().st_size
    footer = pq.read_metadata(tmp_path / "sft" / "train-00000-of-00001.parquet")
    assert infos["sft"]["dataset_size"] == footer.row_group(0).total_byte_size
    assert "splits" not in infos["trees"]
    assert data["size_categories"] == ["n<1K"]
    assert DatasetCard(card).data.to_dict() == data


def test_only_splits_with_rows_are_named_and_the_first_table_with_rows_is_the_default(tmp_path):
    data = yaml_of(card_of(tmp_path, {"step_dpo": [make(StepDpoRow)], "trees": [make(Tree)]}))
    configs = {config["config_name"]: config for config in data["configs"]}
    assert list(configs) == list(CONFIGS)
    assert configs["step_dpo"]["data_files"] == [{"split": "train", "path": "step_dpo/train-*.parquet"}]
    assert [name for name, config in configs.items() if config.get("default")] == ["step_dpo"]


def test_what_whoever_made_it_states_is_in_the_yaml(tmp_path):
    said = ["card.license=cc-by-4.0", "card.language=[en,zh-Hant]", "card.tags=[math,sft]", "card.pretty_name='A: #1'"]
    card = card_of(tmp_path, {}, *said)
    data = yaml_of(card)
    assert (data["license"], data["language"], data["pretty_name"]) == ("cc-by-4.0", ["en", "zh-Hant"], "A: #1")
    assert data["tags"] == ["wrongturn", "math", "sft"]
    assert "# A: \\#1\n" in card
    assert "The licence is `cc-by-4.0`" in card
    assert "not stated" not in card


@pytest.mark.parametrize(
    ("table", "record", "tags"),
    [
        ("sft", SftRow, ["critique"]),
        ("critique_dpo", CritiqueDpoRow, ["critique", "preference"]),
        ("step_dpo", StepDpoRow, ["preference"]),
        ("prm", PrmRow, ["process-reward"]),
        ("trees", Tree, []),
    ],
)
def test_it_is_found_by_what_it_has_rows_of(tmp_path, table, record, tags):
    assert yaml_of(card_of(tmp_path, {table: [make(record)]}))["tags"] == ["wrongturn", *tags]


def test_what_nobody_states_is_no_fact(tmp_path):
    card = card_of(tmp_path, {})
    data = yaml_of(card)
    assert data["license"] == "unknown"
    assert "language" not in data
    assert "- The language is not stated (`card.language`).\n" in card


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("pretty_name", "a\nb"),
        ("pretty_name", ""),
        ("license", "MIT License"),
        ("language", ("English!",)),
        ("tags", ("a\nb",)),
    ],
)
def test_what_cannot_stand_in_the_yaml_is_refused_before_any_work(name, value):
    with pytest.raises(ValueError, match=f"card.{name}: expected"):
        CardSettings(**{name: value})


def test_stating_a_licence_makes_no_other_data():
    assert compose(["card.license=mit"]).config_digest() == compose([]).config_digest()
    assert compose(["hygiene.duplicates=near"]).config_digest() != compose([]).config_digest()


def test_rows_are_real_and_taken_from_the_tables_in_turn(tmp_path):
    sft = [make(SftRow, i, id=f"s{i}") for i in range(3)]
    lay_out(tmp_path, {"sft": sft, "rl": [make(RlRow, id="r0", solution="x" * 600)]})
    rows = real_rows(tmp_path, 3)
    assert [(config, json.loads(row)["id"]) for config, row in rows] == [("sft", "s0"), ("rl", "r0"), ("sft", "s1")]
    assert json.loads(rows[0][1]) == json.loads(msgspec.json.encode(sft[0]))
    assert json.loads(rows[1][1])["solution"] == "x" * 500 + " […100 more characters]"


def test_models_are_named_with_revisions_and_what_they_wrote(tmp_path):
    critiques = [make(Critique, i, agent="a", provenance=provenance("critic")) for i in range(2)]
    trees = [make(Tree, i, provenance=provenance("actor", "1f")) for i in range(3)]
    lay_out(tmp_path, {"trees": trees, "critiques": critiques})
    assert [(by.role, by.model, by.revision, by.texts) for by in models(tmp_path)] == [
        ("actor", "actor", "1f", 3),
        ("a", "critic", "r", 2),
    ]


def test_who_gives_feedback_in_dialogues_is_named_where_it_is_a_model(tmp_path):
    def turn(by):
        feedback = make(Dialogue).turns[0].feedback
        return msgspec.structs.replace(
            make(Dialogue).turns[0], feedback=feedback and msgspec.structs.replace(feedback, provenance=by)
        )

    talk = make(Dialogue, turns=[turn(provenance("teacher")), turn(None), turn(provenance("teacher"))])
    lay_out(tmp_path, {"dialogues": [talk]})
    assert [(by.role, by.model, by.texts) for by in models(tmp_path)] == [("feedback in dialogues", "teacher", 2)]


def test_nothing_that_a_run_holds_breaks_out_of_its_place(tmp_path):
    records = {
        "sft": [make(SftRow, id=HOSTILE, view=HOSTILE)],
        "trees": [make(Tree, provenance=provenance(HOSTILE, "|" + HOSTILE))],
        "rejections": [Rejection(stage="S", key="k", problem_id="p", reason="r", detail=HOSTILE)],
    }
    plain = card_of(tmp_path / "plain", {"sft": [make(SftRow)], "trees": [make(Tree, provenance=provenance())]})
    card = card_of(tmp_path / "hostile", records, f"actor.stop=[{json.dumps(HOSTILE)}]", reason=HOSTILE)
    assert yaml_of(card)["configs"] == yaml_of(plain)["configs"]
    assert "\u202e" not in card
    assert "49" not in card.partition("## How it was made")[0]  # What looks like a template is text.
    outside = _outside_code(card)
    for mark in ("evil", "<script>", "# Heading", "{{"):
        assert mark not in outside
    assert outside.count("</details>") == _outside_code(plain).count("</details>") == 2
    headings = re.findall(r"^#+ .*", outside, re.MULTILINE)
    assert headings == re.findall(r"^#+ .*", _outside_code(plain), re.MULTILINE)
    models_table = outside.partition("| texts by |")[2].partition("\n\n")[0]
    assert {line.replace("\\|", "").count("|") for line in models_table.splitlines()[1:]} == {6}


def _outside_code(card):
    """The Markdown that is no code: blocks go by their fences, then spans by their runs of backticks (CommonMark)."""
    lines, fence = [], ""
    for line in card.split("\n---\n", 1)[1].split("\n"):
        run = re.match(r"`{3,}", line)
        if fence:
            fence = "" if run and run[0] >= fence and line.strip("`").strip() == "" else fence
        elif run and "`" not in line[run.end() :]:
            fence = run[0]
        else:
            lines.append(line)
    assert not fence
    return re.sub(r"(?<!`)(`+)(?!`)(.*?)(?<!`)\1(?!`)", "", "\n".join(lines))


def test_marks_of_code_are_longer_than_any_within():
    assert in_code("a") == "`a`"
    assert in_code("a `b` c") == "``a `b` c``"
    assert in_code("`") == "`` ` ``"
    assert in_code("a\n|b", in_table=True) == "`a \\|b`"
    assert in_code("") == "(none)"
    assert in_block("a\n```\nb", "text") == "````text\na\n```\nb\n````"


def test_the_config_names_neither_passwords_nor_where_the_data_lay(tmp_path):
    settings = compose(
        ["engine=openai", "engine.url=https://host/v1", "engine.model=m", f"out={tmp_path}", "journal=/j.db"]
    )
    settings = msgspec.structs.replace(settings, seed=7, card=CardSettings(pretty_name="https://me:secret@host/v1"))
    text = config_yaml(settings)
    assert "secret" not in text
    assert str(tmp_path) not in text
    plain = yaml.safe_load(text)
    assert (plain["seed"], plain["engine"]["url"], plain["card"]["pretty_name"]) == (
        7,
        "https://host/v1",
        "https://host/v1",
    )
    assert "journal" not in plain
    assert has_credentials("see https://me:secret@host/v1")
    assert not has_credentials("https://host/v1, mail me@host, git@host:a/b")


def test_a_card_of_part_of_a_run_says_so_and_names_test_sets(tmp_path):
    tests = "hygiene.test_sets=[/home/me/sets/math500.jsonl]"
    output = Output(str(tmp_path))
    lay_out(tmp_path, {}, num_shards=2)
    plan = msgspec.structs.replace(make_plan(compose([tests]), Inputs(problems=(), unread=())), num_shards=2)
    write_card(output, plan, books_of({}))
    card = (tmp_path / "README.md").read_text()
    assert "1 of 2 shards are written" in card
    assert "No table for trainers has a row." in card
    assert "Kept out are the questions of `math500.jsonl`: " in card
    assert "share 50% of the shorter question's runs of 13 words" in card
    assert "None was named to be kept out" in card_of(tmp_path / "other", {})
