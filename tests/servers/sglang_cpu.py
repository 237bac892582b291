"""Starts the SGLang server on a CPU, with a stand-in for its kernel package, of which there is no CPU wheel.

All of SGLang is the real one: HTTP, tokenizer, scheduler, radix cache, grammars, sampling, the model in torch. Stood in
for is `sgl_kernel`, the package of compiled kernels. One function of it is called on a CPU without AMX, and is written
in Python here: `assign_req_to_token_pool_cpu`, which notes where a request's tokens lie in the cache. Everything else
that is imported from it is a function that fails with its name when it is called. And torchvision, which SGLang imports
for models that see, is a CUDA build whose compiled part does not load beside a torch without CUDA: the two operators
whose shapes it registers at import are declared here, without code.

What runs at import runs in SGLang's child processes, too: they are spawned, and import this main module again.

usage: PYTHONSAFEPATH=1 python sglang_cpu.py --model-path FOLDER --device cpu .. (as for sglang.launch_server)
"""

import importlib.machinery
import os
import sys
import types
from collections.abc import Callable
from typing import Any

import torch

os.environ.setdefault("SGLANG_USE_CPU_ENGINE", "1")

_SUBMODULES = "elementwise flash_attn grammar kvcacheio mamba quantization speculative utils"


def assign_req_to_token_pool_cpu(
    req_pool_indices: torch.Tensor,
    req_to_token: torch.Tensor,
    start_offset: torch.Tensor,
    end_offset: torch.Tensor,
    out_cache_loc: torch.Tensor,
    pool_len: int,
) -> None:
    """Notes the cache places of new tokens in their requests' rows: of each, the columns from start to end."""
    del pool_len
    taken = 0
    for row, start, end in zip(req_pool_indices.tolist(), start_offset.tolist(), end_offset.tolist(), strict=True):
        places = out_cache_loc[taken : taken + end - start]
        req_to_token[row, start:end] = places.to(req_to_token.dtype)
        taken += end - start


def _named(name: str) -> Callable[..., Any]:
    if name == assign_req_to_token_pool_cpu.__name__:
        return assign_req_to_token_pool_cpu

    def missing(*_: object, **__: object) -> None:
        raise NotImplementedError(f"sgl_kernel.{name} was called: there is no stand-in for it on a CPU")

    return missing


class _StandIn(types.ModuleType):
    """A module in which every public name is a function."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__path__: list[str] = []
        self.__file__ = __file__
        self.__version__ = "0.0.0+stand.in"
        self.__spec__ = importlib.machinery.ModuleSpec(name, None)
        sys.modules[name] = self

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("__"):
            raise AttributeError(name)
        return _named(name)


class _Operators:
    """`torch.ops.sgl_kernel`: SGLang looks for kernels there, and registers shapes for those that it finds."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if not name.endswith("_cpu"):
            raise AttributeError(name)
        return _named(name)


def install() -> None:
    """Puts the stand-ins where SGLang imports them from."""
    if "sgl_kernel" in sys.modules:
        return
    for name in ("nms", "qnms"):
        torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    package = _StandIn("sgl_kernel")
    for name in _SUBMODULES.split():
        setattr(package, name, _StandIn(f"sgl_kernel.{name}"))
    torch.ops.sgl_kernel = _Operators()


install()

if __name__ == "__main__":
    from sglang.launch_server import run_server
    from sglang.srt.server_args import prepare_server_args
    from sglang.srt.utils import kill_process_tree

    try:
        run_server(prepare_server_args(sys.argv[1:]))
    finally:
        kill_process_tree(os.getpid(), include_parent=False)
