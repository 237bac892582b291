"""What the simulated world is like and how its server behaves: one record, checked when it is made."""

import math
from typing import Literal

import msgspec

from schemas import Record

MAX_VARIANTS = 4
"""Wordings of a step that the world knows."""


class SimulatedSettings(Record):
    """A world and its server. Rates are probabilities 0..1; every default leaves noise, latency and faults off."""

    model: str = "simulated"
    """Name of the one model served; any other is answered with 404."""

    min_steps: int = 3
    """Fewest operations of a problem, at least 1."""
    max_steps: int = 6
    """Most operations of a problem."""
    variants: int = 2
    """Wordings that a step may have, 1..4; 1 means that equal steps are equal texts."""
    error_low: float = 0.05
    """Least probability that a step goes wrong in a right state."""
    error_high: float = 0.35
    """Greatest probability of the same; problems differ in where between the two they lie."""
    recovery: float = 0.05
    """Probability a step that a wrong state is noticed and put right."""
    malformed_rate: float = 0.0
    """Share of solutions that are garbage or end without a readable answer."""

    critic_accuracy: float = 0.8
    """Probability that a critique is right, for agents that `critic_accuracies` does not name."""
    critic_accuracies: dict[str, float] = msgspec.field(default_factory=dict)
    """The same for each agent named."""
    liars: dict[str, float] = msgspec.field(default_factory=dict)
    """For each agent named, the probability that it lies instead."""
    leak_rate: float = 0.0
    """Share of critiques with an error that also give away the final answer."""
    critic_malformed_rate: float = 0.0
    """Share of critiques whose JSON is cut or breaks the schema."""
    meta_accuracy: float = 0.9
    """Probability that a meta-critique keeps a true remark or drops a false one."""
    follow: float = 0.9
    """Probability that a refining actor does what a critique of its solution says."""
    anchor: float = 0.6
    """Probability that an actor without a critique of its solution repeats it instead of starting afresh."""
    gullibility: float = 0.0
    """Probability that a following actor writes a false value that the critique states, instead of computing."""
    memorised: float = 0.0
    """Share of problems that the actor has memorised: its way to the answer is narrow and the same each time."""
    thoughts: Literal["none", "marked", "told"] = "none"
    """Whether the model thinks before it begins an answer, thoughts that look like another answer: `marked` between
    `<think>` and `</think>`, `told` in the field `reasoning_content` of the chat route."""
    harmless_errors: float = 0.2
    """Probability that whoever is to put an error into a step, or is misled by a hint, writes one that holds none."""

    slots: int = 64
    """Samples that are generated at a time."""
    seconds_a_token: float = 0.0
    """Seconds for which a sample holds its slot, for each token of its simulated length; 0 uses real lengths."""
    prefill_seconds: float = 0.0
    """Seconds for which a sample holds its slot before its first token."""
    length_median: float = 200.0
    """Median of the simulated length of a sample, in tokens; used when `seconds_a_token` is above 0."""
    length_sigma: float = 0.6
    """Standard deviation of the logarithm of that length; 0 makes all lengths equal."""
    cache_block_chars: int = 128
    """Characters in a block of the prefix cache."""
    cache_blocks: int = 65536
    """Blocks that the prefix cache holds; 0 switches it and its report off."""

    fault_seed: int = 0
    """Seed of all faults."""
    fault_429: float = 0.0
    """Rate of 429 with a Retry-After header."""
    fault_429_bare: float = 0.0
    """Rate of 429 without one."""
    retry_after_seconds: float = 1.0
    """What Retry-After says, in seconds."""
    fault_500: float = 0.0
    """Rate of 500."""
    fault_503: float = 0.0
    """Rate of 503."""
    fault_hang: float = 0.0
    """Rate of requests that get no answer until the client leaves."""
    hang_seconds: float = 60.0
    """Seconds after which a hanging connection is closed."""
    fault_slow: float = 0.0
    """Rate of answers that come byte by byte."""
    slow_seconds: float = 5.0
    """Seconds that such an answer takes."""
    fault_cut: float = 0.0
    """Rate of answers whose JSON stops in the middle."""
    fault_schema: float = 0.0
    """Rate of answers that are JSON but no completion."""
    fault_short: float = 0.0
    """Rate of answers with one choice too few."""
    fault_empty: float = 0.0
    """Rate of answers without a choice."""
    fault_poison: float = 0.0
    """Share of prompts that are answered with 500 whatever the seed and the attempt."""
    fault_too_long: float = 0.0
    """Share of prompts that are refused with 400 as longer than the context."""
    outage_after: int = 0
    """Number, from 1, of the request at which an outage starts; 0 means none."""
    outage_seconds: float = 0.0
    """Seconds for which connections are then closed without an answer."""

    def __post_init__(self) -> None:
        if not 1 <= self.min_steps <= self.max_steps:
            raise ValueError(
                f"need 1 <= min_steps <= max_steps, got min_steps={self.min_steps}, max_steps={self.max_steps}"
            )
        if not 1 <= self.variants <= MAX_VARIANTS:
            raise ValueError(f"need 1 <= variants <= {MAX_VARIANTS}, got variants={self.variants}")
        if not 0 <= self.error_low <= self.error_high <= 1:
            raise ValueError(
                f"need 0 <= error_low <= error_high <= 1, got error_low={self.error_low}, error_high={self.error_high}"
            )
        self._check_rates()
        self._check_sizes()

    def _check_rates(self) -> None:
        rates = {name: getattr(self, name) for name in (*_RATES, *ATTEMPT_FAULTS, *PROMPT_FAULTS)}
        rates |= {f"critic_accuracies[{name!r}]": rate for name, rate in self.critic_accuracies.items()}
        rates |= {f"liars[{name!r}]": rate for name, rate in self.liars.items()}
        for name, rate in rates.items():
            if not 0 <= rate <= 1:
                raise ValueError(f"need 0 <= {name} <= 1, got {rate}")
        for names in (ATTEMPT_FAULTS, PROMPT_FAULTS):
            if math.fsum(rates[name] for name in names) > 1:
                given = ", ".join(f"{name}={rates[name]}" for name in names if rates[name])
                raise ValueError(f"need rates of faults that exclude each other to sum to 1 at most, got {given}")

    def _check_sizes(self) -> None:
        for name in _AT_LEAST_ONE:
            if getattr(self, name) < 1:
                raise ValueError(f"need {name} >= 1, got {getattr(self, name)}")
        for name in _AT_LEAST_ZERO:
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"need 0 <= {name} < inf, got {getattr(self, name)}")

    @property
    def has_latency(self) -> bool:
        """Whether samples hold slots for any time at all."""
        return self.seconds_a_token > 0 or self.prefill_seconds > 0

    def accuracy_of(self, agent: str) -> float:
        """Probability that `agent` criticises rightly when it does not lie."""
        return self.critic_accuracies.get(agent, self.critic_accuracy)


ATTEMPT_FAULTS = (
    "fault_429",
    "fault_429_bare",
    "fault_500",
    "fault_503",
    "fault_hang",
    "fault_slow",
    "fault_cut",
    "fault_schema",
    "fault_short",
    "fault_empty",
)
"""Settings of faults that are drawn anew for each attempt of a request; at most one hits."""

PROMPT_FAULTS = ("fault_poison", "fault_too_long")
"""Settings of faults that stay with a prompt."""

_RATES = (
    "recovery",
    "malformed_rate",
    "critic_accuracy",
    "leak_rate",
    "critic_malformed_rate",
    "meta_accuracy",
    "follow",
    "anchor",
    "gullibility",
    "memorised",
    "harmless_errors",
)
_AT_LEAST_ONE = ("slots", "cache_block_chars")
_AT_LEAST_ZERO = (
    "seconds_a_token",
    "prefill_seconds",
    "length_median",
    "length_sigma",
    "cache_blocks",
    "retry_after_seconds",
    "hang_seconds",
    "slow_seconds",
    "outage_after",
    "outage_seconds",
)


def read_settings(text: str) -> SimulatedSettings:
    """Settings from a JSON object; fields that are not given keep their defaults.

    Raises:
      ValueError: the text is no JSON object of known fields with possible values; says which one and why.
    """
    try:
        return msgspec.json.decode(text, type=SimulatedSettings)
    except msgspec.MsgspecError as error:
        raise ValueError(f"settings of the simulated engine: {error}") from None
