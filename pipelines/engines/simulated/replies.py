"""What the model says: a function of the request's text and one seed, and of nothing else."""

import hashlib
import math
import random
import re
from collections.abc import Callable, Sequence

import msgspec

from pipelines.engines.simulated import certainty, critics, guides, injection, policy, rewriting, teachers, wishes
from pipelines.engines.simulated.prompts import Prompt, PromptError, parse_prompt
from pipelines.engines.simulated.screens import as_screen, parse_screen, reply_on_screen
from pipelines.engines.simulated.settings import SimulatedSettings
from pipelines.engines.simulated.shapes import as_chain
from pipelines.engines.simulated.world import generator
from schemas import Record

NUM_SEEDS = 2**31
"""Seeds are taken modulo this, as `pipelines.engines.base.Request.sample_seed` does."""

CHARS_A_PROMPT_TOKEN = 4
"""Prompts are long and only counted, so that their tokens are so many characters each, the last one begun counted."""

_REPLIES: dict[str, Callable[[Prompt, random.Random, SimulatedSettings], str]] = {
    "critique": critics.write_critique,
    "meta": critics.judge_remark,
    "compose": lambda prompt, _draws, _settings: critics.compose_critique(prompt),
    "feedback": teachers.give_feedback,
    "aspects": teachers.give_feedback,
    "clean": rewriting.clean_critique,
    "crucial": rewriting.write_crucial,
    "again": certainty.solve_again,
    "value": guides.value_state,
    "debate": guides.choose_candidate,
    "scope": wishes.judge_scope,
    "follows": wishes.judge_follows,
    "revise": wishes.revise,
    "inject": lambda prompt, draws, settings: injection.change_step(prompt.step, draws, settings),
}
"""By task, what is said; solutions, which are gone on with from within, stand apart."""

THOUGHTS = """<think>
Step 1: is it {number}? Let me see, {{or not}}.
Answer: {number}
No, from the beginning.
</think>

"""
"""What it thinks before an answer begins: whoever takes it for a part of that finds steps and an answer in it."""

_PIECE = re.compile(r"\s*(?:\w+|[^\w\s]+)|\s+\Z")


class Reply(Record):
    """One choice."""

    text: str
    tokens: int
    """Tokens of the text."""
    finish: str
    """`stop` or `length`."""
    reasoning: str = ""
    """Thoughts that are told apart from the text."""


def text_digest(text: str, pictures: Sequence[bytes] = ()) -> str:
    """Names a request's text and pictures."""
    material = hashlib.sha256(text.encode())
    for picture in pictures:
        material.update(b"\0" + hashlib.sha256(picture).digest())
    return material.hexdigest()


def look(prompt: Prompt, pictures: Sequence[bytes]) -> Prompt:
    """The prompt as who looks at its pictures reads it.

    Raises:
      PromptError: something shown is no picture.
    """
    try:
        question = as_screen(as_chain(prompt.question, pictures), pictures)
    except ValueError as error:
        raise PromptError(str(error)) from None
    return prompt if question == prompt.question else msgspec.structs.replace(prompt, question=question)


def tokenize(text: str) -> list[str]:
    r"""Cuts a text into tokens, which joined give it back.

    A token is a run of letters and digits or a run of symbols, with the white space before it; white space at the end
    is one more.

    >>> tokenize("Step 1: 17 + 5 = 22\n")
    ['Step', ' 1', ':', ' 17', ' +', ' 5', ' =', ' 22', '\n']
    """
    return _PIECE.findall(text)


def prompt_tokens(num_chars: int) -> int:
    """Tokens of a prompt of so many characters."""
    return -(-num_chars // CHARS_A_PROMPT_TOKEN)


def reply(text: str, seed: int, settings: SimulatedSettings) -> str:
    """What the model says to a prompt and the beginning of an answer, uncut.

    Choice j of a request with seed s is the reply to seed s + j.

    Raises:
      PromptError: the prompt asks for nothing this engine knows.
    """
    return reply_to(look(parse_prompt(text), ()), text_digest(text), seed, settings)


def reply_to(prompt: Prompt, digest: str, seed: int, settings: SimulatedSettings) -> str:
    """As `reply`, for a prompt that is parsed and whose text has that digest."""
    draws = generator("reply", digest, seed % NUM_SEEDS)
    if (screen := parse_screen(prompt.question)) is not None:
        return reply_on_screen(screen, prompt, draws, settings)
    try:
        if prompt.task == "solve":
            if prompt.is_misled:
                return injection.mislead(prompt.question, prompt.prefix, draws, settings)
            return policy.solve(prompt.question, prompt.prefix, draws, settings)
        if prompt.task in _REPLIES:
            whole = _REPLIES[prompt.task](prompt, draws, settings)
        else:
            whole = policy.refine(prompt.question, prompt.solution, prompt.critique, draws, settings)
            if not whole.startswith(prompt.prefix):
                return policy.continue_solution(prompt.question, prompt.prefix, draws, settings)
    except PromptError:
        raise
    except ValueError as error:
        raise PromptError(str(error)) from None
    return whole.removeprefix(prompt.prefix)


def with_thoughts(text: str, prompt: Prompt, digest: str, seed: int, settings: SimulatedSettings) -> str:
    """A reply behind what was thought before it, where the world thinks and no answer was begun."""
    if settings.thoughts == "none" or prompt.prefix.strip():
        return text
    return THOUGHTS.format(number=generator("thoughts", digest, seed % NUM_SEEDS).randrange(100)) + text


def told_apart(reply: Reply) -> Reply:
    """A reply whose thoughts stand in a field of their own."""
    if not reply.text.startswith("<think>"):
        return reply
    thoughts, _, text = reply.text.removeprefix("<think>").partition("</think>")
    return msgspec.structs.replace(reply, text=text.lstrip(), reasoning=thoughts.strip())


def cut(text: str, stop: tuple[str, ...], max_tokens: int | None) -> Reply:
    """A reply that ends before the first stop string and after at most `max_tokens` tokens."""
    end = min((at for at in (text.find(word) for word in stop if word) if at >= 0), default=len(text))
    tokens = tokenize(text[:end])
    if max_tokens is not None and len(tokens) > max_tokens:
        return Reply(text="".join(tokens[:max_tokens]), tokens=max_tokens, finish="length")
    return Reply(text=text[:end], tokens=len(tokens), finish="stop")


def simulated_length(digest: str, seed: int, settings: SimulatedSettings) -> int:
    """Tokens that a sample takes the server's time for, log-normal, at least 1; independent of its text."""
    draws = generator("length", digest, seed % NUM_SEEDS)
    radius = math.sqrt(-2 * math.log(1 - draws.random()))
    normal = radius * math.cos(2 * math.pi * draws.random())
    return max(1, round(settings.length_median * math.exp(settings.length_sigma * normal)))
