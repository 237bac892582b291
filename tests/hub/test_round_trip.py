"""The command line against the stand-in, in programs of their own: there, broken off and gone on with, and back."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.shards import file_digest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

LOAD = """
import json, sys
import datasets
name = sys.argv[1]
found = {}
for config in datasets.get_dataset_config_names(name):
    streams = datasets.load_dataset(name, config, streaming=True)
    streamed = {split: list(rows) for split, rows in streams.items()}
    found[config] = {split: len(rows) for split, rows in streamed.items()}
    if any(streamed.values()):
        loaded = datasets.load_dataset(name, config)
        assert {split: rows.to_list() for split, rows in loaded.items()} == streamed, config
        assert all(loaded[split].features == streams[split].features for split in loaded), config
default = datasets.load_dataset(name, streaming=True)
found["default"] = {split: len(list(rows)) for split, rows in default.items()}
print(json.dumps(found))
"""
"""Prints the rows of each config and split; streamed and loaded ones must be the same."""

DOWNLOAD = "import sys, huggingface_hub; print(huggingface_hub.snapshot_download(sys.argv[1], repo_type='dataset'))"


def program(environment, *words, code=0):
    command = [sys.executable, *words]
    done = subprocess.run(command, check=False, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == code, done.stderr
    return done


def publishing(out, *words):
    return ("-m", "pipelines.main", "publish", str(out), "org/name", *words)


def rows_by_config(out: Path) -> dict[str, dict[str, int]]:
    """What loading must find: splits with rows, or an empty `train`."""
    found: dict[str, dict[str, int]] = {}
    for name, count in json.loads((out / "run.json").read_text())["rows"].items():
        config, _, split = name.partition("/")
        found.setdefault(config, {})
        if count:
            found[config][split] = count
    return {config: splits or {"train": 0} for config, splits in found.items()}


def test_what_was_published_loads_from_the_hub_as_from_the_folder(hub, environment, out):
    program(environment, *publishing(out))
    expected = rows_by_config(out)
    assert any(splits == {"train": 0} for splits in expected.values())
    assert any(len(splits) == 2 for splits in expected.values())
    first = next(config for config in ("sft", "critique_dpo", "step_dpo", "prm") if expected[config] != {"train": 0})
    for place in (str(out), "org/name"):
        found = json.loads(program(environment, "-c", LOAD, place).stdout)
        assert found == expected | {"default": expected[first]}
    back = Path(program(environment, "-c", DOWNLOAD, "org/name").stdout.strip())
    files = {path.relative_to(back).as_posix(): path.read_bytes() for path in back.rglob("*") if path.is_file()}
    del files[".gitattributes"]
    assert files.pop("COMPLETED") == b""
    assert set(files) == {f.relative_to(out).as_posix() for f in out.glob("*/*.parquet")} | {
        f.name for f in out.iterdir() if f.is_file() and f.name != "COMPLETED"
    }
    assert all(content == (out / name).read_bytes() for name, content in files.items())


def test_a_program_that_is_killed_goes_on_with_what_is_missing(hub, environment, out):
    hub.faults[3] = "hang"
    command = [sys.executable, *publishing(out)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            assert hub.hanging.wait(60)
        finally:
            process.send_signal(signal.SIGKILL)
    first = list(hub.arrived)
    assert set(hub.files("org/name")) == {".gitattributes"}
    program(environment, *publishing(out))
    large = {file_digest(path) for path in out.glob("*/*.parquet")}
    assert 0 < len(set(first)) < len(large)
    assert set(hub.arrived[len(first) :]) == large - set(first)
    assert {path for path in hub.files("org/name") if path.endswith(".parquet")} == {
        path.relative_to(out).as_posix() for path in out.glob("*/*.parquet")
    }


def test_a_server_that_stays_broken_ends_the_command_with_a_line_and_the_next_one_goes_on(hub, environment, out):
    hub.faults |= dict.fromkeys(range(3, 2000), "503")
    failed = program(environment, *publishing(out), code=2)
    assert "the upload broke off (HfHubHTTPError: Server error '503 Service Unavailable'" in failed.stderr
    assert "Traceback" not in failed.stderr
    first = set(hub.arrived)
    hub.faults.clear()
    sent = len(hub.arrived)
    program(environment, *publishing(out))
    large = {file_digest(path) for path in out.glob("*/*.parquet")}
    assert set(hub.arrived[sent:]) == large - first
    assert 0 < len(first) < len(large)


def test_without_a_token_it_says_what_to_do(hub, environment, out):
    del environment["HF_TOKEN"]
    failed = program(environment, *publishing(out), code=2)
    assert (
        failed.stderr.strip().splitlines()[-1].startswith("wrongturn: no token for the Hugging Face Hub: set HF_TOKEN")
    )
    assert hub.calls == []
    shown = program(environment, *publishing(out, "--dry-run", "--public")).stdout
    assert "org/name (public, revision main)" in shown
    assert shown.endswith("Nothing was sent (--dry-run).\n")
