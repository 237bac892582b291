"""A finished run to publish, and the stand-in for the Hub that this process and programs started by it speak to."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import constants
from stand_in import StandIn, standing_in

from pipelines.config import compose
from pipelines.problems import read_problems
from pipelines.run import Watcher, run

SCRIPTED = ("engine=scripted", "problems=sums", "actor=plain", "panel=blind", "search=quick", "pairing=quick")


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder, not to be changed: two shards, both splits, some tables without a row, one problem left out."""
    folder = tmp_path_factory.mktemp("hub")
    out, tests = folder / "out", folder / "tests.jsonl"
    settings = [*SCRIPTED, "verify=quick", "problems.num_problems=5", "runner.problems_per_shard=2"]
    (first, *_) = read_problems(compose(settings).problems)
    tests.write_text(json.dumps({"problem": f"  {first.question.upper()}"}) + "\n")
    settings += [f"hygiene.test_sets=[{tests}]", "export.validation_share=0.5", "card.license=cc-by-4.0"]
    run(compose([*settings, f"out={out}"]), Watcher())
    return out


@pytest.fixture
def out(finished: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(finished, tmp_path / "out"))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[StandIn]:
    """The stand-in, with a token that may write."""
    with standing_in() as state:
        monkeypatch.setattr(constants, "ENDPOINT", state.url)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
        monkeypatch.setenv("HF_TOKEN", "hf_writer")
        yield state
        huggingface_hub.close_session()


@pytest.fixture
def environment(hub: StandIn, tmp_path: Path) -> dict[str, str]:
    """What a program needs to find the stand-in: these are read when it starts."""
    ours = {
        "HF_ENDPOINT": hub.url,
        "HF_TOKEN": "hf_writer",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HOME": str(tmp_path / "home"),
    }
    return {**os.environ, **ours, "HF_HUB_DISABLE_TELEMETRY": "1", "NO_PROXY": "*"}
