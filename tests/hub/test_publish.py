"""Publishing to the stand-in from this process: what goes, what does not, what is sent again, and what is said."""

import fcntl
import io
import json
from pathlib import Path

import pytest
from rich.console import Console
from stand_in import Blob, Repo

from pipelines.errors import UserError
from pipelines.main import main
from pipelines.manifest import read_books
from pipelines.publish import publish, target_of
from pipelines.shards import SPLITS, file_digest, read_file

# huggingface_hub's own: how it hands a file to its HTTP library.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


def send(out, repo="org/name", *, is_public=False, revision="main", dry_run=False, allow_partial=False):
    """What the terminal shows."""
    console = Console(file=io.StringIO(), width=200)
    target = target_of(repo, is_public=is_public, revision=revision)
    publish(console, str(out), target, dry_run=dry_run, allow_partial=allow_partial)
    return console.file.getvalue()


def visible_files(out: Path) -> dict[str, bytes]:
    paths = (path for path in out.rglob("*") if path.is_file())
    found = {path.relative_to(out).as_posix(): path.read_bytes() for path in paths}
    return {name: content for name, content in found.items() if not name.startswith(".")}


def on_hub(hub, repo="org/name", revision="main"):
    return {path: content for path, content in hub.files(repo, revision).items() if path != ".gitattributes"}


def test_a_problem_that_is_left_out_is_counted_and_no_problem_is_in_both_splits(finished):
    """Of the run that is published here."""
    books = read_books(finished)
    read = books.stages[0]
    assert (read.stage, read.entered, read.kept, read.rejected) == ("ReadProblems", 5, 4, 1)
    assert read.reasons == {"contaminated": 1}
    assert all(stage.balanced for stage in books.stages)
    card = (finished / "README.md").read_text()
    assert "| ReadProblems (rows) | 5 | 4 | 1 | 0 | `contaminated` 1 |" in card
    assert "Kept out are the questions of `tests.jsonl`" in card
    splits = {
        split: {row["problem"]["question"] for path in finished.glob(f"trees/{split}-*") for row in read_file(path)}
        for split in SPLITS
    }
    assert len(splits["train"]) + len(splits["validation"]) == 4
    assert all(splits.values())
    assert not splits["train"] & splits["validation"]


def test_the_command_line_knows_it(hub, out, capsys):
    assert main(["publish", str(out), "org/name", "--public", "--revision", "v1", "--dry-run"]) == 0
    assert "org/name (public, revision v1)" in capsys.readouterr().out
    assert main(["publish", str(out), "name"]) == 2
    assert "wrongturn: expected the repository as OWNER/NAME, got 'name'" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["publish", str(out), "org/name", "--public", "--private"])
    assert hub.calls == []


def test_what_is_there_afterwards_is_the_folder_to_the_byte_without_what_a_run_keeps_for_itself(hub, out):
    (out / "sft" / ".train.tmp").write_bytes(b"half")
    assert (out / ".wrongturn" / "journal.sqlite").is_file()
    said = send(out)
    assert on_hub(hub) == {name: data for name, data in visible_files(out).items() if name != "sft/.train.tmp"}
    assert hub.repos["org/name"].private
    assert said.splitlines()[-1] == f"Published: {hub.url}/datasets/org/name"
    assert len(hub.repos["org/name"].commits) == 2  # The Hub's own first one, and ours.


def test_nothing_is_sent_twice(hub, out):
    send(out)
    before, sent = len(hub.calls), len(hub.arrived)
    assert "The Hub has all of it already." in send(out)
    assert len(hub.arrived) == sent
    assert [call for call in hub.calls[before:] if not call.startswith("GET")] == []


def test_of_several_commits_the_last_one_brings_the_card(hub, out, monkeypatch):
    monkeypatch.setattr("pipelines.publish._FILES_IN_COMMIT", 50)
    monkeypatch.setattr("pipelines.publish._FILES_IN_BATCH", 20)
    send(out)
    repo = hub.repos["org/name"]
    commits = list(repo.commits.values())
    # More than 50 files and at most 100: two commits after the Hub's own.
    assert 50 < len(visible_files(out)) <= 100
    assert len(commits) == 3
    assert len(commits[1]) == 51
    assert not {"README.md", "run.json", "COMPLETED"} & commits[1].keys()
    assert on_hub(hub) == visible_files(out)


def test_a_later_run_sends_what_changed_and_takes_away_shards_that_are_no_more(hub, out):
    send(out)
    shards = json.loads((out / "run.json").read_text())
    gone = [name for name in shards["shards"] if name.startswith("rl/train")]
    for name in gone:
        del shards["shards"][name]
    (out / "run.json").write_text(json.dumps(shards))
    hub.repos["org/name"].commits[hub.repos["org/name"].branches["main"]]["LICENSE"] = Blob(b"mine", is_large=False)
    sent = len(hub.arrived)
    send(out)
    assert len(gone) == 2
    assert set(on_hub(hub)) == set(visible_files(out)) - set(gone) | {"LICENSE"}
    assert on_hub(hub)["run.json"] == (out / "run.json").read_bytes()
    assert len(hub.arrived) == sent


def test_a_dry_run_lists_files_and_the_card_and_asks_nobody(hub, out, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    said = send(out, dry_run=True)
    assert hub.calls == []
    files = visible_files(out)
    assert f"org/name (private, revision main): {len(files)} files, " in said
    assert all(f"  {name}\n" in said for name in files)
    assert "card: license: cc-by-4.0\n" in said
    assert "card: language: not stated (card.language)\n" in said
    assert "journal" not in said


def test_a_dry_run_says_that_no_licence_is_stated_and_which_languages_are(out):
    card = (out / "README.md").read_text()
    stated = card.replace("license: cc-by-4.0\n", "license: unknown\nlanguage:\n- en\n- de\n", 1)
    assert stated != card
    (out / "README.md").write_text(stated)
    said = send(out, dry_run=True)
    assert "card: license: not stated (card.license)\n" in said
    assert "card: language: en, de\n" in said


def test_public_and_another_branch_only_when_that_is_said(hub, out):
    send(out, "org/open", is_public=True, revision="v1")
    assert not hub.repos["org/open"].private
    assert set(on_hub(hub, "org/open")) == set()
    assert on_hub(hub, "org/open", "v1") == visible_files(out)


@pytest.mark.parametrize(
    ("private", "is_public", "message"),
    [(False, False, "org/name is public already; say --public"), (True, True, "org/name is private; make it public")],
)
def test_a_repository_that_others_see_is_not_written_to_by_mistake(hub, out, private, is_public, message):
    hub.repos["org/name"] = Repo(private=private)
    hub.repos["org/name"].commit("main", {})
    with pytest.raises(UserError, match=message):
        send(out, is_public=is_public)
    assert on_hub(hub) == {}


def test_a_dataset_of_something_else_is_not_written_over(hub, out):
    hub.repos["org/name"] = Repo(private=True)
    hub.repos["org/name"].commit("main", {"README.md": Blob(b"theirs", is_large=False)})
    with pytest.raises(UserError, match="holds a dataset that wrongturn did not publish"):
        send(out)
    assert on_hub(hub) == {"README.md": b"theirs"}


def test_only_a_finished_run_goes_unless_that_is_said(hub, out):
    (out / "COMPLETED").unlink()
    with pytest.raises(UserError, match=r"is not COMPLETED.*--allow-partial"):
        send(out)
    assert hub.calls == []
    send(out, allow_partial=True)
    assert on_hub(hub) == visible_files(out)


def test_a_folder_that_a_run_is_working_on_stays_where_it_is(hub, out):
    with (out / ".wrongturn" / "lock").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="a run is working on"):
            send(out, allow_partial=True)
    assert hub.calls == []


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("run.json", None, "holds no run.json"),
        ("run.json", "{", "is damaged"),
        ("run.json", '{"shards": {"../secret.parquet": "0"}}', "which is no shard"),
        ("sft/train-00000-of-00002.parquet", "other bytes", "is not what the run wrote"),
        ("sft/train-00000-of-00002.parquet", None, "is no regular file"),
        (
            "run.json",
            '{"shards": {}, "config": {"engine": {"url": "https://me:secret@host/v1"}}}',
            "a name or a password in a URL",
        ),
    ],
)
def test_a_folder_that_is_not_as_the_run_left_it_does_not_go(hub, out, name, content, message):
    (out / name).unlink()
    if content is not None:
        (out / name).write_text(content)
    with pytest.raises(UserError, match=message):
        send(out)
    assert hub.calls == []


def test_a_link_to_a_file_elsewhere_does_not_go(hub, out, tmp_path):
    shard = out / "rl" / "train-00000-of-00002.parquet"
    shard.rename(tmp_path / "elsewhere")
    shard.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="is no regular file"):
        send(out)


@pytest.mark.parametrize(
    ("token", "repo", "message"),
    [
        (None, "org/name", "no token for the Hugging Face Hub: set HF_TOKEN"),
        ("hf_unknown", "org/name", "does not accept the token"),
        ("hf_reader", "org/name", "the token may not write to org/name .*give one with write access to org"),
        ("hf_writer", "nobody/name", "the token may not write to nobody/name .*choose an owner that is yours"),
    ],
)
def test_what_is_wrong_with_token_or_owner_is_said(hub, out, monkeypatch, token, repo, message):
    monkeypatch.delenv("HF_TOKEN")
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(UserError, match=message):
        send(out, repo)
    assert hub.repos == {}


@pytest.mark.parametrize("repo", ["name", "a/b/c", "../name", "org/", "org/-name", "org/na me"])
def test_a_name_that_is_none_is_refused_before_anything(repo):
    with pytest.raises(UserError, match="expected the repository as OWNER/NAME"):
        target_of(repo, is_public=False, revision="main")


def test_a_card_that_the_hub_refuses_stops_the_commit(hub, out):
    (out / "README.md").write_text("no YAML at all")
    with pytest.raises(UserError, match=r"the Hub refuses it: .*no YAML at the top"):
        send(out)
    assert on_hub(hub) == {}


@pytest.mark.parametrize("fault", ["503", "drop"])
def test_a_hiccup_of_the_server_is_borne(hub, out, fault):
    hub.faults[3] = fault
    send(out)
    assert on_hub(hub) == visible_files(out)
    assert len(hub.tried) == len(hub.arrived) + 1


def test_an_upload_that_breaks_goes_on_with_what_is_missing(hub, out):
    hub.faults[3] = "403"
    with pytest.raises(UserError, match=r"the upload broke off \(HfHubHTTPError: .*what is up already stays; give the"):
        send(out)
    first = list(hub.arrived)
    assert on_hub(hub) == {}  # Half a dataset is never to be seen.
    send(out)
    assert on_hub(hub) == visible_files(out)
    large = {file_digest(path) for path in out.glob("*/*.parquet")}
    assert 0 < len(set(first)) < len(large)
    assert set(hub.arrived[len(first) :]) == large - set(first)


def test_a_server_that_is_not_there_is_said_to_be_away(out, hub, monkeypatch):
    import huggingface_hub.utils._http as http
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(http.time, "sleep", lambda _: None)
    with pytest.raises(UserError, match=r"the upload broke off \(ConnectError: .*give the same command again"):
        send(out)
