"""Which fault hits a request: a function of digests, so that a run meets the same faults again."""

from collections import OrderedDict

from pipelines.engines.simulated.settings import ATTEMPT_FAULTS, PROMPT_FAULTS, SimulatedSettings
from pipelines.engines.simulated.world import generator

_MAX_REMEMBERED = 1_000_000


def _draw(names: tuple[str, ...], settings: SimulatedSettings, *parts: str | int) -> str | None:
    luck = generator("fault", settings.fault_seed, *parts).random()
    for name in names:
        luck -= getattr(settings, name)
        if luck < 0:
            return name.removeprefix("fault_")
    return None


def prompt_fault(digest: str, settings: SimulatedSettings) -> str | None:
    """`poison`, `too_long` or None for the prompt whose text has that digest, whatever its seed and attempt."""
    return _draw(PROMPT_FAULTS, settings, "prompt", digest)


def attempt_fault(digest: str, seed: int, attempt: int, settings: SimulatedSettings) -> str | None:
    """The fault of attempt 1, 2, ... of a request, named as its setting without `fault_`; None for none."""
    return _draw(ATTEMPT_FAULTS, settings, "attempt", digest, seed, attempt)


class FaultPlan:
    """Remembers how often each request came, to draw its next fault."""

    def __init__(self, settings: SimulatedSettings) -> None:
        self._settings = settings
        self._has_attempt_faults = any(getattr(settings, name) > 0 for name in ATTEMPT_FAULTS)
        self._has_prompt_faults = any(getattr(settings, name) > 0 for name in PROMPT_FAULTS)
        self._attempts: OrderedDict[tuple[str, int], int] = OrderedDict()

    def next_fault(self, digest: str, seed: int) -> str | None:
        """The fault that hits this arrival of a request, or None."""
        if self._has_prompt_faults and (fault := prompt_fault(digest, self._settings)):
            return fault
        if not self._has_attempt_faults:
            return None
        attempt = self._attempts.pop((digest, seed), 0) + 1
        self._attempts[digest, seed] = attempt
        if len(self._attempts) > _MAX_REMEMBERED:
            self._attempts.popitem(last=False)
        return attempt_fault(digest, seed, attempt, self._settings)
