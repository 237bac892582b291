"""What each kind of engine keeps beyond continuing text. `tests/engines/contract.py` holds them to it.

Where an engine promises less, the pipeline makes do: the journal repeats what a seed does not, tokens are counted with
what the server counts, and an option that needs more than an engine promises refuses it by name.
"""

from typing import Literal

from schemas import Record

Style = Literal["chat", "raw", "templated"]
"""How a prompt is put to a server. `chat`: one user turn, the prefix as a begun assistant turn. `raw`: plain text on
/v1/completions. `templated`: a user turn in the model's own chat template, filled in here and sent as plain text."""


class Promises(Record):
    """What an engine keeps. The least is what any server does that speaks the API."""

    repeats_seed: bool = False
    """Whether an equal request for one sample that is alone at the server has an equal answer. What makes a run
    repeatable is the journal: beside others, also samples of its own request, an answer depends on how they are batched
    at vLLM and llama.cpp, which a busy machine does differently each time."""
    gives_logprobs: bool = False
    """Whether a request may ask for the log probabilities of its tokens."""
    counts_all_choices: bool = True
    """Whether `usage.completion_tokens` counts all n choices of a request, not one of them."""
    reports_cached_tokens: bool = False
    """Whether it says how many prompt tokens were in its prefix cache. vLLM does with --enable-prompt-tokens-details,
    SGLang with --enable-cache-report."""
    holds_to_schema: bool = False
    """Whether a reply is held to a JSON Schema while it is sampled."""

    def kept(self) -> tuple[str, ...]:
        """The names of those that are kept, for people."""
        return tuple(name.replace("_", " ") for name in self.__struct_fields__ if getattr(self, name))


_PROMISES: dict[str, Promises] = {
    "llama_cpp": Promises(
        repeats_seed=True,
        gives_logprobs=True,
        counts_all_choices=False,
        reports_cached_tokens=True,
        holds_to_schema=True,
    ),
    "vllm": Promises(repeats_seed=True, gives_logprobs=True, reports_cached_tokens=True, holds_to_schema=True),
    # On a CPU its seed is ignored.
    "sglang": Promises(gives_logprobs=True, reports_cached_tokens=True, holds_to_schema=True),
    "simulated": Promises(repeats_seed=True, gives_logprobs=True, reports_cached_tokens=True),
    "scripted": Promises(repeats_seed=True),
    "openai": Promises(holds_to_schema=True),
}


def promises_of(kind: str, style: Style) -> Promises:
    """The promises of one kind of engine, asked in one style."""
    if kind == "openai" and style != "chat":
        return Promises()
    return _PROMISES[kind]
