"""The command lines of servers that a run starts: one program's words for what all of them can be told."""

from pipelines.engines.settings import Managed, Sglang, Vllm
from schemas import Record


class Program(Record):
    """How one server is told what it is to serve."""

    module: str
    """Run as a module of the interpreter."""
    model: str
    """Flag of the model's folder or name; likewise the three that follow."""
    tensor_parallel: str
    context_tokens: str
    memory_share: str
    always: tuple[str, ...]
    """Flags that every start has."""
    env: dict[str, str]


# What was in a prefix cache is told only when asked for; a line a request would fill the log; and a reply in JSON may
# hold white space without end otherwise, which small models write until their tokens run out.
VLLM = Program(
    # The `vllm` command wants a distribution of that name, which builds for CPUs have not.
    module="vllm.entrypoints.openai.api_server",
    model="--model",
    tensor_parallel="--tensor-parallel-size",
    context_tokens="--max-model-len",
    memory_share="--gpu-memory-utilization",
    always=(
        *("--structured-outputs-config", '{"backend":"xgrammar","disable_any_whitespace":true}'),
        *("--enable-prompt-tokens-details", "--disable-uvicorn-access-log"),
    ),
    # No key on loopback: one that is set for other servers would shut us out.
    env={"VLLM_API_KEY": "", "VLLM_NO_USAGE_STATS": "1"},
)
SGLANG = Program(
    module="sglang.launch_server",
    model="--model-path",
    tensor_parallel="--tp-size",
    context_tokens="--context-length",
    memory_share="--mem-fraction-static",
    always=(
        "--constrained-json-disable-any-whitespace",
        *("--enable-cache-report", "--log-level-http", "warning"),
    ),
    env={},
)


def program_of(settings: Managed) -> Program:
    """The program of an engine's settings."""
    match settings:
        case Vllm():
            return VLLM
        case Sglang():
            return SGLANG
    raise AssertionError(settings)


def arguments(program: Program, settings: Managed, model: str, name: str) -> tuple[str, ...]:
    """What follows the program: `{port}` stands for the port.

    Args:
      program: whose command line.
      settings: the engine's.
      model: a folder or a name at the Hub.
      name: what requests call it.
    """
    words = [program.model, model, "--host", "127.0.0.1", "--port", "{port}", "--served-model-name", name]
    words += [program.tensor_parallel, str(settings.tensor_parallel)]
    if settings.context_tokens:
        words += [program.context_tokens, str(settings.context_tokens)]
    if settings.memory_share:
        words += [program.memory_share, str(settings.memory_share)]
    return (*words, *program.always, *map(str, settings.extra_args))
