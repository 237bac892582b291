"""SGLang's command line."""

from pipelines.engines.settings import Sglang

MODULE = "sglang.launch_server"
ENV: dict[str, str] = {}


def arguments(settings: Sglang, model: str, name: str) -> tuple[str, ...]:
    """What follows the program: `{port}` stands for the port.

    Args:
      settings: the engine's.
      model: a folder or a name at the Hub.
      name: what requests call it.
    """
    words = ["--model-path", model, "--host", "127.0.0.1", "--port", "{port}", "--served-model-name", name]
    words += ["--tp-size", str(settings.tensor_parallel)]
    if settings.context_tokens:
        words += ["--context-length", str(settings.context_tokens)]
    if settings.memory_share:
        words += ["--mem-fraction-static", str(settings.memory_share)]
    # A reply in JSON may hold white space without end otherwise, and small models write it until their tokens run out.
    words += ["--constrained-json-disable-any-whitespace"]
    # What was in its prefix cache is told only when asked for; a line a request would fill the log.
    return (*words, "--enable-cache-report", "--log-level-http", "warning", *map(str, settings.extra_args))
