"""How sure the model is of each token that it writes; the truth that `pipelines.sift_problems` is measured against.

At the forks of a problem that it works out it is unsure; where it has memorised a problem its way is narrow and the
same each time.
"""

import math
import random
from collections.abc import Sequence
from typing import Any

from pipelines.engines.simulated.policy import continue_solution
from pipelines.engines.simulated.prompts import Prompt
from pipelines.engines.simulated.settings import SimulatedSettings
from pipelines.engines.simulated.world import generator
from schemas import uniform

_FORKS = 0.25
"""Share of tokens at which there is a choice at all."""
_SHARES = (1 / 2, 1 / 3, 1 / 6)
"""How the tokens that were not taken share what the taken one leaves."""


def is_memorised(question: str, settings: SimulatedSettings) -> bool:
    """Whether the actor has memorised a problem; the world's truth, a function of the question alone."""
    return uniform("memorised", question) < settings.memorised


def solve_again(prompt: Prompt, draws: random.Random, settings: SimulatedSettings) -> str:
    """Another way to the answer: the very same one where the problem is memorised."""
    if is_memorised(prompt.question, settings):
        return prompt.solution.rstrip("\n") + "\n"
    return continue_solution(prompt.question, "", draws, settings)


def doubts(prompt: Prompt, digest: str, seed: int, number: int, settings: SimulatedSettings) -> list[float]:
    """For so many tokens the probability that another one was to be written, 0..1.

    Of a memorised problem half more or less of what it is each time, of any other drawn anew for each sample.
    """
    own = generator("certainty", digest, seed)
    if not is_memorised(prompt.question, settings):
        return [_doubt(own, at_fork=0.6, elsewhere=0.04) for _ in range(number)]
    same = generator("narrow", prompt.question)
    return [_doubt(same, at_fork=0.2, elsewhere=0.01) * (0.5 + own.random()) for _ in range(number)]


def _doubt(draws: random.Random, *, at_fork: float, elsewhere: float) -> float:
    is_fork, size = draws.random() < _FORKS, draws.random()
    return (at_fork if is_fork else elsewhere) * size


def worded(tokens: Sequence[str], doubted: Sequence[float], number: int, *, is_chat: bool) -> dict[str, Any]:
    """Log probabilities as the two routes give them.

    Args:
      tokens: of a reply.
      doubted: for each the probability of all others together.
      number: likeliest tokens to tell of at each place; there are four at most.
      is_chat: whether the newer API is spoken.
    """
    taken = [math.log1p(-doubt) for doubt in doubted]
    places = [
        {token: first} | {f"{token}~{i}": math.log(share * doubt) for i, share in enumerate(_SHARES) if doubt > 0}
        for token, first, doubt in zip(tokens, taken, doubted, strict=True)
    ]
    likeliest = [
        dict(sorted(place.items(), key=lambda item: item[1], reverse=True)[: max(1, number)]) for place in places
    ]
    if not is_chat:
        return {"tokens": list(tokens), "token_logprobs": taken, "top_logprobs": likeliest}
    content = [
        {
            "token": token,
            "logprob": first,
            "top_logprobs": [{"token": name, "logprob": value} for name, value in place.items()],
        }
        for token, first, place in zip(tokens, taken, likeliest, strict=True)
    ]
    return {"content": content}
