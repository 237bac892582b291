"""The command line end to end, in this process, on the scripted engine."""

import fcntl
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pipelines.engines.simulated import SimulatedSettings, serving
from pipelines.main import main
from pipelines.shards import file_digest, read_rows

# crowd-kit uses what pandas will drop; crowd-kit's own affair.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:crowdkit")

SMALL = ["engine=scripted", "actor=plain", "panel=blind", "panel.meta_template=''", "search.max_searches=1"]


def rows(*more: str) -> list[str]:
    """Three good rows of a JSONL file, then those given."""
    good = [{"question": f"What is {i} + 4 - 2 + 5?", "answer": f"{i + 7}"} for i in (1, 2, 3)]
    return [json.dumps(row) for row in good] + list(more)


@pytest.fixture
def wrongturn(capsys):
    """Runs a command; gives its exit code, what it printed and the one line that it complained with."""

    def command(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(arguments)
        printed = capsys.readouterr()
        return code, printed.out, printed.err.strip()

    return command


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tmp_path / "rows.jsonl"


def run_of(source: Path, out: Path) -> list[str]:
    return ["run", *SMALL, "problems=file", f"problems.path={source}", f"out={out}"]


def ends(out: Path) -> dict[str, dict]:
    manifest = json.loads((out / "run.json").read_text())
    return {stage["stage"]: stage for stage in manifest["stages"]}


def shards(out: Path) -> dict[str, str]:
    return {str(path.relative_to(out)): file_digest(path) for path in out.rglob("*.parquet")}


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Path:
    """The folder of a finished run; read it, never write to it."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "rows.jsonl").write_text("\n".join(rows()) + "\n")
    assert main(run_of(folder / "rows.jsonl", folder / "out")) == 0
    return folder


@pytest.fixture
def again(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished run that may be changed."""
    shutil.copytree(finished, tmp_path / "copy")
    return tmp_path / "copy"


def test_a_run_leaves_every_table_the_card_the_report_and_the_mark(finished):
    out = finished / "out"
    tables = {path.name for path in out.iterdir() if path.is_dir() and not path.name.startswith(".")}
    assert tables == {
        "sft", "critique_dpo", "step_dpo", "dpo", "prm", "refine", "refine_chat", "distill", "rl", "judge", "trees",
        "pairs", "alone", "dialogues", "critiques", "panels", "verified", "rejections", "failures",
    }  # fmt: skip
    assert {path.name for path in out.iterdir() if path.is_file()} == {
        "COMPLETED",
        "README.md",
        "dataset_info.json",
        "report.html",
        "run.json",
    }
    assert all(stage["balanced"] for stage in ends(out).values())
    assert ends(out)["ExpandTrees"]["kept"] == 3


def test_the_same_command_again_pays_nothing_and_changes_no_shard(again, wrongturn):
    (again / "out" / "COMPLETED").unlink()
    before, paid = shards(again / "out"), json.loads((again / "out" / "run.json").read_text())["paid"]
    # The source moved with the folder: the same path must be given, so the copy is run from the first place.
    code, printed, _ = wrongturn(*run_of(finished_source(again), again / "out"))
    assert code == 0
    assert "1 of 1 shards are finished already" in printed
    assert shards(again / "out") == before
    assert json.loads((again / "out" / "run.json").read_text())["paid"] == paid
    assert (again / "out" / "COMPLETED").exists()


def finished_source(folder: Path) -> str:
    return json.loads((folder / "out" / "run.json").read_text())["config"]["problems"]["path"]


def test_shards_that_were_lost_come_back_from_the_journal_byte_for_byte(again, wrongturn):
    out = again / "out"
    before, paid = shards(out), json.loads((out / "run.json").read_text())["paid"]
    for path in ("trees", "sft", "rl"):
        shutil.rmtree(out / path)
    code, printed, _ = wrongturn(*run_of(finished_source(again), out))
    assert code == 0
    assert "0 of 1 shards are finished already" in printed
    assert shards(out) == before
    assert json.loads((out / "run.json").read_text())["paid"] == paid


def test_a_finished_run_of_another_config_is_not_touched(again, wrongturn):
    before = shards(again / "out")
    code, _, complaint = wrongturn(*run_of(finished_source(again), again / "out"), "seed=9")
    assert code == 2
    assert "holds a run with another config" in complaint
    assert "replace=true" in complaint
    assert shards(again / "out") == before


@pytest.mark.slow
def test_replace_writes_over_another_run_and_keeps_its_journal(again, wrongturn):
    out = again / "out"
    code, printed, _ = wrongturn(*run_of(finished_source(again), out), "export.validation_share=0.5", "replace=true")
    assert code == 0
    assert "the journal holds 0 samples" not in printed
    config = json.loads((out / "run.json").read_text())["config"]
    assert config["export"]["validation_share"] == 0.5


def test_show_prints_the_funnel_a_critique_and_a_tree(finished, wrongturn):
    code, printed, _ = wrongturn("show", str(finished / "out"))
    assert code == 0
    assert "VerifyCritiques" in printed
    assert "A critique, " in printed
    assert "<- the wrong turn" in printed


def test_show_finds_a_tree_by_its_problem(finished, wrongturn):
    tree = next(iter(read_rows(finished / "out", "trees")))
    code, printed, _ = wrongturn("show", str(finished / "out"), "--tree", tree["problem"]["id"])
    assert code == 0
    assert tree["problem"]["question"] in printed


def test_show_of_a_tree_that_is_not_there_names_it(finished, wrongturn):
    code, _, complaint = wrongturn("show", str(finished / "out"), "--tree", "nope")
    assert code == 2
    assert "holds no tree 'nope'" in complaint


def test_show_of_no_run_is_one_line(tmp_path, wrongturn):
    code, printed, complaint = wrongturn("show", str(tmp_path))
    assert (code, printed) == (2, "")
    assert complaint == f"wrongturn: {tmp_path} holds no trees; give the folder that `wrongturn run` wrote to"


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["show", "--help"], ["doctor", "--help"]])
def test_help_explains_and_succeeds(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 0
    assert "usage: wrongturn" in capsys.readouterr().out


def test_the_help_of_run_lists_every_group_with_its_options(capsys):
    with pytest.raises(SystemExit):
        main(["run", "--help"])
    printed = capsys.readouterr().out
    for line in (
        "engine    llama_cpp, openai, scripted, sglang, simulated, vllm",
        "runner    dataflow, direct, flink, prism",
        "--config",
    ):
        assert line in printed


@pytest.mark.parametrize(
    "arguments",
    [[], ["fly"], ["show"], ["run", "--verbose"], ["show", "a", "b"], ["doctor", "--config"], ["show", "a", "--x"]],
    ids=" ".join,
)
def test_a_command_line_that_makes_no_sense_is_refused(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage: wrongturn" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["seed=5", "--config"], ["--config", "seed=5"], ["out=x", "--config", "seed=5"]])
def test_config_prints_the_settings_wherever_the_option_stands(arguments, wrongturn):
    code, printed, _ = wrongturn("run", *arguments)
    assert code == 0
    assert yaml.safe_load(printed)["seed"] == 5


def test_a_bad_setting_is_one_line_before_any_work(tmp_path, wrongturn):
    code, printed, complaint = wrongturn("run", *SMALL, f"out={tmp_path}/out", "seed=abc")
    assert (code, printed) == (2, "")
    assert complaint == "wrongturn: seed: Expected `int`, got `str`"
    assert not (tmp_path / "out").exists()


BAD_ROWS = [
    (json.dumps({"question": "What is 1 + 1?"}), "missing_answer"),
    (json.dumps({"question": "What is 1 + 1?", "answer": None}), "null_answer"),
    (json.dumps({"question": "What is 1 + 1? " + "x" * 2_000_000, "answer": "2"}), "question_too_long"),
    (rows()[0], "duplicate_id"),
    ('{"question": "What is 1 + 1?", "ans', "bad_json"),
]


def test_rows_that_are_no_problems_are_rejected_each_with_its_reason_and_the_rest_goes_on(tmp_path, source, wrongturn):
    source.write_text("\n".join(rows(*(row for row, _ in BAD_ROWS))) + "\n")
    out = tmp_path / "out"
    code, printed, _ = wrongturn(*run_of(source, out))
    assert code == 0
    assert "5 rows of the source are no problems; see rejections/" in printed
    read = ends(out)["ReadProblems"]
    assert (read["entered"], read["kept"], read["rejected"]) == (8, 3, 5)
    assert read["reasons"] == {reason: 1 for _, reason in BAD_ROWS}
    rejected = {row["key"]: row for row in read_rows(out, "rejections") if row["stage"] == "ReadProblems"}
    assert {key: row["reason"] for key, row in rejected.items()} == {
        f"rows.jsonl:{line}": reason for line, (_, reason) in enumerate(BAD_ROWS, 4)
    }
    assert all(f"rows.jsonl line {line}: " in rejected[f"rows.jsonl:{line}"]["detail"] for line in range(4, 9))
    assert max(len(row["detail"]) for row in rejected.values()) < 500
    assert all(stage["balanced"] for stage in ends(out).values())


def test_a_line_that_is_not_utf8_is_rejected_and_the_rest_goes_on(tmp_path, source, wrongturn):
    source.write_bytes("\n".join(rows()).encode() + b'\n{"question": "What is 1 + \xff?", "answer": "2"}\n')
    code, _, _ = wrongturn(*run_of(source, tmp_path / "out"))
    assert code == 0
    assert ends(tmp_path / "out")["ReadProblems"]["reasons"] == {"not_utf8": 1}


def refused(wrongturn, *arguments: str) -> str:
    """The one line of a run that ends before any work."""
    code, printed, complaint = wrongturn(*arguments)
    assert (code, printed) == (2, "")
    assert "\n" not in complaint
    assert complaint.startswith("wrongturn: ")
    return complaint


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty (0 bytes); remove it or choose another file"),
        (b"\xff\xfe\x00\x01" * 1000, "is UTF-16 or UTF-32 text: convert it with iconv -t utf-8"),
        (b'{"question": "q"}\n', "has no column 'answer', only question"),
        (b'{"question": "q", "answer": null}\n', "holds no usable row among 1 (1 null_answer)"),
        (b'{"problem": "q", "answer": "1"}\n', "set problems.columns.question=problem"),
    ],
    ids=["empty", "utf-16", "no answer", "null answer", "other column"],
)
def test_a_file_without_a_problem_ends_before_any_work(tmp_path, source, wrongturn, content, says):
    source.write_bytes(content)
    complaint = refused(wrongturn, *run_of(source, tmp_path / "out"))
    assert "problems." in complaint
    assert says in complaint
    assert not (tmp_path / "out").exists()


def test_a_file_that_is_not_there_ends_before_any_work(tmp_path, wrongturn):
    complaint = refused(wrongturn, *run_of(tmp_path / "gone.jsonl", tmp_path / "out"))
    assert "problems.path: " in complaint
    assert "gone.jsonl" in complaint


def test_equal_file_names_in_two_folders_with_equal_bad_lines_are_two_rejections(tmp_path, wrongturn):
    for i, name in enumerate("ab"):
        (tmp_path / "in" / name).mkdir(parents=True)
        (tmp_path / "in" / name / "x.jsonl").write_text(f"{rows()[i]}\nnot json\n")
    code, _, _ = wrongturn(*run_of(tmp_path / "in", tmp_path / "out"))
    assert code == 0
    assert ends(tmp_path / "out")["ReadProblems"]["reasons"] == {"bad_json": 2}


def test_an_out_that_cannot_be_written_ends_before_any_work(tmp_path, finished, wrongturn):
    (tmp_path / "file").write_text("mine")
    complaint = refused(wrongturn, *run_of(finished / "rows.jsonl", tmp_path / "file" / "out"))
    assert complaint == (
        f"wrongturn: out: cannot write to {tmp_path}/file/out: Not a directory; choose another folder with out=DIR"
    )


def test_an_out_with_foreign_files_is_left_alone(tmp_path, finished, wrongturn):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("dear")
    complaint = refused(wrongturn, *run_of(finished / "rows.jsonl", tmp_path / "out"))
    assert "holds files that wrongturn did not write" in complaint
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.tex"]


def test_an_out_that_another_run_works_on_is_refused(again, wrongturn):
    with (again / "out" / ".wrongturn" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        complaint = refused(wrongturn, *run_of(finished_source(again), again / "out"))
    assert "another run is working on" in complaint


@pytest.mark.parametrize("journal", ["file/journal.sqlite", "file"])
def test_a_journal_that_cannot_be_used_is_one_line(tmp_path, finished, wrongturn, journal):
    (tmp_path / "file").write_text("no database, " * 100)
    command = [*run_of(finished / "rows.jsonl", tmp_path / "out"), f"journal={tmp_path}/{journal}"]
    complaint = refused(wrongturn, *command)
    assert f"cannot use the journal {tmp_path}/{journal}: " in complaint
    assert "journal=PATH" in complaint


def test_a_template_that_is_not_there_ends_before_any_work(tmp_path, finished, wrongturn):
    command = [*run_of(finished / "rows.jsonl", tmp_path / "out"), "actor.solve_template=nope"]
    assert "actor.solve_template: no prompt template 'nope'" in refused(wrongturn, *command)
    assert not (tmp_path / "out").exists()


def test_a_rule_that_is_not_there_is_one_line(tmp_path, finished, wrongturn):
    code, _, complaint = wrongturn(*run_of(finished / "rows.jsonl", tmp_path / "out"), "engine.rule=nope")
    assert code == 2
    assert "engine.rule must name a function as module:function, got 'nope'" in complaint


def served_run(url: str, out: Path, *more: str) -> list[str]:
    engine = ["engine=vllm", f"engine.url={url}", "engine.model=simulated"]
    quick = ["engine.limits.max_attempts=2", "engine.limits.max_wait_secs=0.05", "search.max_searches=1"]
    problems = ["problems=simulated", "problems.num_problems=2"]
    return ["run", "actor=plain", "panel=blind", *problems, *engine, *quick, f"out={out}", *more]


@pytest.mark.parametrize(("path", "model"), [("", "other"), ("/v1", "simulated")], ids=["model", "url"])
def test_a_wrong_model_or_url_is_one_line_and_the_right_one_then_goes_on(tmp_path, wrongturn, path, model):
    with serving(SimulatedSettings()) as url:
        code, _, complaint = wrongturn(*served_run(url + path, tmp_path / "out", f"engine.model={model}"))
        assert code == 2
        assert complaint.startswith("wrongturn: ")
        if path:
            assert "HTTP 404" in complaint
            assert "check engine.url, which is without /v1, and engine.model" in complaint
        else:
            assert "has no model 'other'; give one of those it has: simulated" in complaint
        assert not (tmp_path / "out" / "COMPLETED").exists()
        if path:  # The URL is no part of the config: the same folder goes on.
            code, _, _ = wrongturn(*served_run(url, tmp_path / "out"))
            assert code == 0
            assert ends(tmp_path / "out")["ExpandTrees"]["kept"] == 2


@pytest.mark.slow
def test_an_outage_ends_the_run_with_one_line_and_the_same_command_goes_on_when_it_is_over(tmp_path, wrongturn):
    code, _, complaint = wrongturn(*served_run("http://127.0.0.1:9", tmp_path / "out"))
    assert code == 3
    assert "wrongturn: no server answers any more for simulated: http://127.0.0.1:9: " in complaint
    assert "the same command goes on from here" in complaint
    assert list((tmp_path / "out").glob("*/*.parquet")) == []
    with serving(SimulatedSettings()) as url:
        code, _, _ = wrongturn(*served_run(url, tmp_path / "out"))
    assert code == 0
    assert list(read_rows(tmp_path / "out", "failures")) == []


def test_doctor_says_what_is_there_and_what_would_run(wrongturn, finished):
    overrides = [*SMALL, "problems=file", f"problems.path={finished / 'rows.jsonl'}"]
    code, printed, _ = wrongturn("doctor", *overrides)
    assert code == 0
    for line in ("apache-beam", "run: settings", "run: problems", "run: engine", "engine llama_cpp"):
        assert line in printed


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["seed=abc"], "seed: Expected `int`"),
        (["engine=scripted", "problems=file", "problems.path=/gone.jsonl"], "gone.jsonl"),
        (["engine=scripted", "problems=simulated", "engine.rule=nope"], "engine.rule"),
        (
            [
                "problems=simulated",
                "engine=openai",
                "engine.url=http://127.0.0.1:9",
                "engine.model=m",
                "engine.limits.max_attempts=1",
            ],
            "ClientConnectorError",
        ),
    ],
    ids=["setting", "file", "rule", "url"],
)
def test_doctor_finds_what_would_keep_a_run_from_starting(wrongturn, overrides, says):
    code, printed, _ = wrongturn("doctor", *overrides)
    assert code == 1
    assert says in "".join(printed.split("│")).replace("\n", "") or says in printed


def examined(wrongturn, *overrides):
    """Exit code of the doctor, and what it says of OUT."""
    code, printed, _ = wrongturn("doctor", "engine=scripted", "problems=simulated", *overrides)
    (row,) = [line.split("│") for line in printed.splitlines() if "run: out" in line]
    return code, row[2].strip(), row[3].strip()


def test_doctor_finds_out_that_a_run_could_not_write_to(wrongturn, tmp_path, monkeypatch):
    monkeypatch.setattr("pipelines.doctor._installed", lambda: ())
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "out"):
        code, mark, found = examined(wrongturn, f"out={out}")
        assert (code, mark) == (1, "no")
        assert found.startswith("out: ")
    assert examined(wrongturn, "out=memory://bucket/out")[:2] == (1, "no")  # For the journal, which has no place then.
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    found = (1, "no", "out: gs:// needs the package gcsfs: pip install 'wrongturn[gcs]'")
    assert examined(wrongturn, "out=gs://bucket/out") == found


def test_doctor_looks_at_out_and_makes_nothing(wrongturn, tmp_path):
    assert examined(wrongturn, f"out={tmp_path / 'not' / 'yet'}")[:2] == (0, "ok")
    assert list(tmp_path.iterdir()) == []
    assert examined(wrongturn, "out=memory://bucket/out", f"journal={tmp_path / 'j'}")[:2] == (0, "ok")


def test_doctor_says_of_out_what_a_run_would_be_told(wrongturn, tmp_path):
    (tmp_path / "README.md").write_text("thesis")
    assert examined(wrongturn, f"out={tmp_path}")[:2] == (1, "no")
    (tmp_path / "README.md").rename(tmp_path / "j.sqlite")
    assert examined(wrongturn, f"out={tmp_path}", f"journal={tmp_path / 'j.sqlite'}")[:2] == (0, "ok")
    link = tmp_path / "link"
    link.mkdir()
    (link / ".wrongturn").symlink_to(tmp_path)
    assert examined(wrongturn, f"out={link}")[:2] == (1, "no")


def test_doctor_says_what_a_store_refuses(wrongturn, tmp_path, monkeypatch):
    def refuse(folder):
        raise PermissionError("403 Forbidden")

    monkeypatch.setattr("pipelines.doctor.names_in", refuse)
    code, mark, found = examined(wrongturn, "out=memory://bucket/out", f"journal={tmp_path / 'j'}")
    assert (code, mark) == (1, "no")
    assert "is not for these credentials, or there are none" in found


def test_the_command_is_installed_and_ends_with_the_code_of_main(tmp_path):
    command = [str(Path(sys.executable).with_name("wrongturn")), "show", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("wrongturn: ")
    assert "Traceback" not in done.stderr
