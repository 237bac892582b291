"""From settings to a server's command line: what is asked of it, what it is called, and what is refused before it."""

import os
import stat
import sys
from pathlib import Path

import msgspec
import pytest

from pipelines.config import compose
from pipelines.engines import serve, serve_all
from pipelines.engines.launching import launch_of, model_digest, probe, revision_of, served_name
from pipelines.engines.settings import Managed, Sglang, Vllm
from pipelines.errors import UserError

FAKE = Path(__file__).parents[1] / "servers" / "fake_server.py"
PROGRAM = ("-S", str(FAKE))
COMPACT = ("--structured-outputs-config", '{"backend":"xgrammar","disable_any_whitespace":true}')


@pytest.fixture
def folder(tmp_path) -> Path:
    """A model's folder, as far as anybody looks into it before it is served."""
    path = tmp_path / "Tiny-1B"
    path.mkdir()
    (path / "config.json").write_text("{}")
    (path / "model.safetensors").write_bytes(bytes(1000))
    return path


def words(settings: Managed) -> list[str]:
    """The command after its program."""
    launch = launch_of(settings, "engine")
    assert launch.command[: 1 + len(settings.program)] == (sys.executable, *settings.program)
    return list(launch.command[1 + len(settings.program) :])


def test_vllms_command_line(folder):
    settings = Vllm(
        model=str(folder),
        program=PROGRAM,
        context_tokens=2048,
        tensor_parallel=2,
        memory_share=0.8,
        extra_args=("--max-num-seqs", 64),
    )
    assert words(settings) == [
        *("--model", str(folder), "--host", "127.0.0.1", "--port", "{port}", "--served-model-name", "Tiny-1B"),
        *("--tensor-parallel-size", "2", "--max-model-len", "2048", "--gpu-memory-utilization", "0.8"),
        *COMPACT,
        *("--enable-prompt-tokens-details", "--disable-uvicorn-access-log", "--max-num-seqs", "64"),
    ]


def test_sglangs_command_line(folder):
    settings = Sglang(
        model=str(folder),
        program=PROGRAM,
        context_tokens=2048,
        tensor_parallel=2,
        memory_share=0.8,
        extra_args=("--max-running-requests", 64),
    )
    assert words(settings) == [
        *("--model-path", str(folder), "--host", "127.0.0.1", "--port", "{port}", "--served-model-name", "Tiny-1B"),
        *("--tp-size", "2", "--context-length", "2048", "--mem-fraction-static", "0.8"),
        "--constrained-json-disable-any-whitespace",
        *("--enable-cache-report", "--log-level-http", "warning", "--max-running-requests", "64"),
    ]


def test_what_is_not_set_is_left_to_the_server(folder):
    assert words(Vllm(model=str(folder), program=PROGRAM))[8:] == [
        *("--tensor-parallel-size", "1", *COMPACT, "--enable-prompt-tokens-details", "--disable-uvicorn-access-log"),
    ]


def test_a_name_at_the_hub_is_asked_for_in_its_revision(folder):
    at_hub = Vllm(model="owner/Tiny-1B", program=PROGRAM, revision="abc123")
    assert words(at_hub)[:4] == ["--revision", "abc123", "--model", "owner/Tiny-1B"]
    assert "--revision" not in words(Vllm(model=str(folder), program=PROGRAM, revision="mine"))
    assert "HF_HUB_OFFLINE" not in dict(launch_of(at_hub, "engine").env)
    assert dict(launch_of(Vllm(model=str(folder), program=PROGRAM), "engine").env)["HF_HUB_OFFLINE"] == "1"


def test_its_environment_has_its_interpreters_programs_first_and_no_key(folder, monkeypatch):
    monkeypatch.setenv("PATH", "/usr/bin")
    monkeypatch.setenv("VLLM_API_KEY", "of another server")
    env = dict(launch_of(Vllm(model=str(folder), program=PROGRAM, env={"OMP_NUM_THREADS": 2}), "engine").env)
    assert env["PATH"] == f"{Path(sys.executable).parent}:/usr/bin"
    assert env["VLLM_API_KEY"] == ""
    assert env["OMP_NUM_THREADS"] == "2"


@pytest.mark.parametrize(
    ("model", "named", "name"),
    [
        ("owner/Tiny-1B", "", "owner/Tiny-1B"),
        ("another/Tiny-1B", "", "another/Tiny-1B"),
        ("gpt2", "", "gpt2"),
        ("/models/Tiny-1B/", "", "Tiny-1B"),
        ("owner/Tiny-1B", "judge", "judge"),
    ],
)
def test_it_is_called_by_its_folders_last_part_or_its_whole_name_at_the_hub_unless_it_has_a_name(model, named, name):
    assert served_name(Vllm(model=model, served_name=named)) == name


def interpreter(folder: Path, script: str) -> Path:
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


REFUSED = [
    ({"python": "/no/python"}, "engine.python: no program at /no/python; give the interpreter of the environment"),
    ({"model": "/no/folder"}, "engine.model: no folder at /no/folder, and '/no/folder' is no name at the Hub; give"),
    ({"model": "a/b/c"}, "and 'a/b/c' is no name at the Hub"),
    ({"model": "{tmp}/empty"}, "holds no config.json; give a folder in the format of Hugging Face"),
    (
        {"python": "{tmp}/bare"},
        "engine.python: vllm is not installed for {tmp}/bare; give the interpreter of an environment where it is with "
        "engine.python=ENV/bin/python, make one with pip install 'wrongturn[vllm]', or use a server that runs already "
        "with engine.url=URL",
    ),
    ({"python": "{tmp}/broken"}, "{tmp}/broken is no Python that works: it said 'what is -c?'"),
]


@pytest.mark.parametrize(("changed", "says"), REFUSED, ids=[next(iter(changed.values())) for changed, _ in REFUSED])
def test_what_cannot_start_is_refused_with_the_remedy(tmp_path, folder, changed, says):
    (tmp_path / "empty").mkdir()
    for name, script in {"bare": "exit 3", "broken": "echo what is -c? >&2; exit 2"}.items():
        interpreter(tmp_path, script).rename(tmp_path / name)
    changed = {key: value.replace("{tmp}", str(tmp_path)) for key, value in changed.items()}
    with pytest.raises(UserError) as caught:
        launch_of(Vllm(**{"model": str(folder)} | changed), "engine")
    assert says.replace("{tmp}", str(tmp_path)) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_interpreter_says_what_it_has_a_package_from():
    assert probe(sys.executable, "aiohttp").startswith("aiohttp 3.")
    with pytest.raises(UserError, match="no_such_package is not installed"):
        probe(sys.executable, "no_such_package")


def test_a_models_digest_is_that_of_what_is_in_it_wherever_it_lies(folder):
    first = model_digest(folder)
    assert len(first) == 16
    (folder / "README.md").write_text("Not the model.")
    os.utime(folder / "config.json", (0, 0))
    moved = folder.rename(folder.with_name("elsewhere"))
    assert model_digest(moved) == first
    for change in ({"model.safetensors": bytes(999) + b"\1"}, {"config.json": b"{ }"}, {"vocab.txt": b""}):
        for name, content in change.items():
            before = (moved / name).read_bytes() if (moved / name).exists() else None
            (moved / name).write_bytes(content)
            assert model_digest(moved) != first
            (moved / name).unlink() if before is None else (moved / name).write_bytes(before)
    assert model_digest(moved) == first


def test_of_a_large_file_blocks_from_end_to_end_are_read(folder, monkeypatch):
    monkeypatch.setattr("pipelines.engines.launching._WHOLE_BYTES", 10)
    monkeypatch.setattr("pipelines.engines.launching._BLOCKS", 5)
    monkeypatch.setattr("pipelines.engines.launching._BLOCK_BYTES", 10)
    first = model_digest(folder)
    weights = folder / "model.safetensors"

    def changed(at: int) -> bool:
        weights.write_bytes(bytes(at) + b"\1" + bytes(999 - at))
        return model_digest(folder) != first

    # 5 blocks of 10 bytes in 1000: they begin at (1000 - 10) * i // 4 = 0, 247, 495, 742, 990.
    read = [at for start in (0, 247, 495, 742, 990) for at in (start, start + 9)]
    not_read = [10, 246, 257, 494, 505, 741, 752, 989]
    assert [changed(at) for at in read] == [True] * 10
    assert [changed(at) for at in not_read] == [False] * 8


def test_a_revision_that_is_set_stands_before_a_folders_digest(folder):
    assert revision_of(Vllm(model=str(folder)), "engine") == model_digest(folder)
    assert revision_of(Vllm(model=str(folder), revision="v2"), "engine") == "v2"
    assert revision_of(Vllm(model="owner/name"), "engine") == ""


def test_an_endpoint_of_a_started_server_names_the_model_its_revision_and_no_key(folder, tmp_path):
    settings = Vllm(model=str(folder), program=PROGRAM, style="raw", start_timeout_secs=400)
    same_model = msgspec.structs.replace(settings, style="chat")
    with serve_all({"": settings, "judge": same_model}, tmp_path / "logs") as endpoints:
        (_, actor), (name, judge) = endpoints
        assert (actor.kind, actor.model, actor.revision) == ("vllm", "Tiny-1B", model_digest(folder))
        assert actor.key_env == ""
        # Six attempts have five pauses between them: a server that starts again is waited for as long as it may take.
        assert actor.limits.max_wait_secs == 80
        assert (name, judge.urls, judge.dialect.style) == ("judge", actor.urls, "chat")
    assert [path.name for path in (tmp_path / "logs").iterdir()] == ["engine.log"]


def test_a_url_starts_nothing():
    with serve(Vllm(url="http://h:1", model="m")) as endpoint:
        assert (endpoint.urls, endpoint.model, endpoint.key_env) == (("http://h:1",), "m", "OPENAI_API_KEY")
        assert endpoint.limits.max_wait_secs == 30


BAD = [
    ({"port": 70000}, "port must lie in 0..65535, got 70000"),
    ({"memory_share": 1.0}, "memory_share must be 0 or lie between 0 and 1, got 1.0"),
    ({"tensor_parallel": 0}, "tensor_parallel must be at least 1, got 0"),
    ({"context_tokens": -1}, "context_tokens must be at least 0, got -1"),
    ({"max_restarts": -1}, "max_restarts must be at least 0, got -1"),
    ({"start_timeout_secs": 0.0}, "start_timeout_secs must be above 0, got 0.0"),
    ({"stop_timeout_secs": 0.0}, "stop_timeout_secs must be above 0, got 0.0"),
    (
        {"url": "http://h", "extra_args": ("--x",)},
        "extra_args is for a server that is started here, and url names one that runs already; give one of them",
    ),
]


@pytest.mark.parametrize(("fields", "message"), BAD, ids=[list(fields)[-1] for fields, _ in BAD])
def test_a_setting_that_cannot_be_right_is_refused(fields, message):
    with pytest.raises(ValueError, match=r".") as caught:
        Vllm(model="m", **fields)
    assert str(caught.value) == message


def test_the_command_line_reaches_every_setting_of_a_server():
    words = ["engine.extra_args=[--max-num-seqs,64,--enforce-eager]", "+engine.env.OMP_NUM_THREADS=2"]
    engine = compose(["engine=sglang", "engine.model=m", "engine.python=/env/bin/python", *words]).engine
    assert isinstance(engine, Sglang)
    assert (engine.url, engine.urls, engine.style, engine.python) == ("", (), "raw", "/env/bin/python")
    assert engine.extra_args == ("--max-num-seqs", 64, "--enforce-eager")
    assert engine.env == {"OMP_NUM_THREADS": 2}


def test_how_a_server_is_run_is_no_part_of_the_config_but_its_further_words_are():
    settings = compose(["engine=sglang", "engine.model=m"])

    def digest(**fields: object) -> str:
        return msgspec.structs.replace(settings, engine=Sglang(model="m", **fields)).config_digest()

    assert digest() == digest(url="http://h") == digest(
        python="/x/python", program=("y.py",), port=5, tensor_parallel=2, memory_share=0.5, env={"A": 1},
        start_timeout_secs=5, stop_timeout_secs=5, max_restarts=0,
    )  # fmt: skip
    others = ({"extra_args": ("--quantization", "fp8")}, {"context_tokens": 100}, {"served_name": "n"})
    assert len({digest(), *(digest(**fields) for fields in others)}) == 4
