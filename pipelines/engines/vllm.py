"""vLLM's command line."""

from pipelines.engines.settings import Vllm

MODULE = "vllm.entrypoints.openai.api_server"
"""Run as a module: the `vllm` command wants a distribution of that name, which builds for CPUs have not."""
ENV = {"VLLM_API_KEY": "", "VLLM_NO_USAGE_STATS": "1"}
"""No key on loopback: one that is set for other servers would shut us out."""
COMPACT_JSON = '{"backend":"xgrammar","disable_any_whitespace":true}'
"""A reply in JSON may hold white space without end otherwise, and small models write it until their tokens run out."""


def arguments(settings: Vllm, model: str, name: str) -> tuple[str, ...]:
    """What follows the program: `{port}` stands for the port.

    Args:
      settings: the engine's.
      model: a folder or a name at the Hub.
      name: what requests call it.
    """
    words = ["--model", model, "--host", "127.0.0.1", "--port", "{port}", "--served-model-name", name]
    words += ["--tensor-parallel-size", str(settings.tensor_parallel)]
    if settings.context_tokens:
        words += ["--max-model-len", str(settings.context_tokens)]
    if settings.memory_share:
        words += ["--gpu-memory-utilization", str(settings.memory_share)]
    words += ["--structured-outputs-config", COMPACT_JSON]
    # What was in its prefix cache is told only when asked for; a line a request would fill the log.
    return (*words, "--enable-prompt-tokens-details", "--disable-uvicorn-access-log", *map(str, settings.extra_args))
