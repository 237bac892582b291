"""Whole runs with `out` in a store, and what reads them: show, publish, `datasets`."""

import http.server
import json
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import datasets
import msgspec
import pytest

from pipelines.config import compose
from pipelines.lease import Lease, LeaseError
from pipelines.main import main
from pipelines.run import Watcher, run
from pipelines.storage import open_folder, write_whole
from schemas.arrow import CONFIGS

SCRIPTED = ["engine=scripted", "problems=sums", "export.validation_share=0.3", "actor=plain", "panel=blind"]
SMALL = ["problems.num_problems=4", "runner.problems_per_shard=2"]


class Asked(Watcher):
    """Notes which shards a run had to fill."""

    def planned(self, plan, inputs, journaled, unfinished, num_finished):
        self.unfinished = tuple(unfinished)


def made(out: str, journal: Path, *overrides: str) -> tuple[int, ...]:
    watcher = Asked()
    run(compose([*SCRIPTED, *SMALL, *overrides, f"out={out}", f"journal={journal}"]), watcher)
    return watcher.unfinished


def content(out: str) -> dict[str, bytes]:
    """Every file below a folder, but for what only the machinery reads."""
    folder = open_folder(out)
    if isinstance(folder, Path):
        found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    else:
        base = folder.path.rstrip("/") + "/"
        found = {key.removeprefix(base): folder.fs.cat_file(key) for key in folder.fs.find(base)}
    return {name: data for name, data in found.items() if name != ".wrongturn/lock"}


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("local")
    assert made(str(folder / "out"), folder / "journal") == (0, 1)
    return content(str(folder / "out"))


@pytest.fixture(scope="module")
def stored(bucket: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A finished run in each kind of store, and its journal."""
    out, journal = f"{bucket}/{uuid.uuid4().hex}/out", tmp_path_factory.mktemp("stored") / "journal"
    assert made(out, journal) == (0, 1)
    return out, journal


def test_a_run_in_a_store_writes_the_same_bytes(stored, local):
    there = content(stored[0])
    assert {name for name in there if there[name] != local.get(name)} == set()
    assert there.keys() == local.keys()
    assert {f"{config}/train-00001-of-00002.parquet" for config in CONFIGS} < there.keys()
    assert {"README.md", "report.html", "run.json", "dataset_info.json", "COMPLETED"} < there.keys()


def test_the_same_command_again_fills_nothing(stored):
    before = content(stored[0])
    assert made(*stored) == ()
    assert content(stored[0]) == before


def test_a_run_in_a_store_can_be_shown_and_published(stored, capsys):
    assert main(["show", stored[0]]) == 0
    assert "WriteShards" in capsys.readouterr().out
    assert main(["publish", stored[0], "org/name", "--dry-run"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert f"{stored[0]} to org/name (private, revision main)" in said
    assert "trees/train-00000-of-00002.parquet" in said


def test_what_is_not_there_is_said_by_its_name(out, capsys):
    assert main(["show", out]) == 2
    assert f"wrongturn: {out} holds no trees; give the folder" in " ".join(capsys.readouterr().err.split())
    assert main(["publish", out, "org/name", "--dry-run"]) == 2
    assert f"wrongturn: {out} holds no run.json; give the folder" in " ".join(capsys.readouterr().err.split())


def lease(out: str, *, until: float) -> None:
    other = Lease(holder="other", who="process 7 on elsewhere", until=until)
    write_whole(open_folder(out) / ".wrongturn" / "lease.000009.json", msgspec.json.encode(other))


def test_a_folder_that_a_run_works_on_is_not_published(stored, capsys):
    lease(stored[0], until=time.time() + 600)
    try:
        assert main(["publish", stored[0], "org/name", "--dry-run"]) == 2
    finally:
        (open_folder(stored[0]) / ".wrongturn" / "lease.000009.json").unlink()
    assert "a run is working on" in capsys.readouterr().err


def test_a_run_whose_folder_is_taken_over_stops(out, tmp_path, monkeypatch):
    monkeypatch.setattr("pipelines.lease.SECS", 0.3)

    class Other(Watcher):
        @contextmanager
        def working(self) -> Iterator[None]:
            lease(out, until=time.time() + 600)
            yield

    many = ["problems.num_problems=400", "runner.problems_per_shard=400"]
    with pytest.raises(LeaseError, match=r"was taken over by another run .* process 7 on elsewhere"):
        run(compose([*SCRIPTED, *many, f"out={out}", f"journal={tmp_path / 'journal'}"]), Other())
    assert not [name for name in content(out) if name.endswith(".parquet")]


@pytest.mark.stores
@pytest.mark.parametrize("config", ["sft", "trees"])
@pytest.mark.parametrize("bucket", ["gs", "s3"], indirect=True, scope="session")
def test_datasets_loads_tables_from_a_store(stored, config, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(datasets.config, "DOWNLOADED_DATASETS_PATH", str(tmp_path / "downloads"))
    files = {"train": f"{stored[0]}/{config}/train-*.parquet"}
    loaded = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path / "cache"))
    rows = json.loads(content(stored[0])["run.json"])["rows"]
    assert len(loaded) == rows[f"{config}/train"] > 0
    streamed = datasets.load_dataset("parquet", data_files=files, split="train", streaming=True)
    assert [row["id"] for row in streamed] == list(loaded["id"])


def refused(out: str, capsys, *overrides: str) -> str:
    assert main(["run", *SCRIPTED, *SMALL, f"out={out}", *overrides]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("wrongturn: ")]
    assert len(lines) == 1
    return lines[0]


def test_a_store_without_a_journal_is_refused(out, capsys):
    assert f"wrongturn: out is in a store ({out}), where no SQLite journal can lie" in refused(out, capsys)
    assert content(out) == {}


def test_an_unknown_scheme_is_refused(capsys, tmp_path):
    assert "got one that begins with 'az://'" in refused("az://a/b", capsys, f"journal={tmp_path / 'journal'}")


@pytest.mark.stores
@pytest.mark.parametrize("kind", ["gs", "s3"])
def test_a_bucket_that_is_not_there_is_named(kind, request, capsys, tmp_path):
    request.getfixturevalue(kind)
    said = refused(f"{kind}://no-such-bucket/a", capsys, f"journal={tmp_path / 'journal'}")
    assert said.startswith("wrongturn: out: there is no bucket 'no-such-bucket' (")
    assert not (tmp_path / "journal").exists()


class _Deny(http.server.BaseHTTPRequestHandler):
    """A Cloud Storage that knows nobody."""

    def _answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        said = json.dumps({"error": {"code": 401, "message": "Anonymous caller does not have access"}}).encode()
        self.send_response(401)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    do_GET = do_POST = do_PUT = do_DELETE = _answer

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.mark.stores
def test_without_credentials_it_says_how_to_give_some(capsys, tmp_path, monkeypatch):
    gcsfs = pytest.importorskip("gcsfs", reason="needs gcsfs: pip install 'wrongturn[gcs]'")
    monkeypatch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Deny) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{server.server_port}")
        gcsfs.GCSFileSystem.clear_instance_cache()
        said = refused("gs://bucket/a", capsys, f"journal={tmp_path / 'journal'}")
        gcsfs.GCSFileSystem.clear_instance_cache()
        server.shutdown()
    assert "gs://bucket/a is not for these credentials, or there are none" in said
    assert "give `gcloud auth application-default login`, or GOOGLE_APPLICATION_CREDENTIALS" in said
    assert not (tmp_path / "journal").exists()
