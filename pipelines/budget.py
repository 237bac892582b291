"""What a run may spend, what it has spent, and what each problem has cost.

A budget is looked at before a request is sent, and before it is sent again. When it is reached nothing more is asked;
what is at a server by then comes back and is kept, so tokens, money and time may be overspent by what was in flight.
Requests never are.
"""

import contextvars
import dataclasses
import math
import time
from collections.abc import Callable, Sequence

from pipelines.engines.base import Request, Sample, Usage
from schemas import Record

PROBLEM: contextvars.ContextVar[str] = contextvars.ContextVar("problem", default="")
"""Id of the problem that the running task works for."""

_MILLION = 1_000_000
_REQUESTS = "budget.max_requests="


class Price(Record):
    """What one engine's tokens cost, in whatever currency, for a million of them."""

    engine: str = ""
    """Name of one of the run's `engines`; empty is the actor's."""
    prompt: float = 0.0
    completion: float = 0.0

    def __post_init__(self) -> None:
        for name in ("prompt", "completion"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be below 0, got {getattr(self, name)}")

    def of(self, prompt_tokens: float, completion_tokens: float) -> float:
        """The cost of so many tokens."""
        return (self.prompt * prompt_tokens + self.completion * completion_tokens) / _MILLION


class BudgetSettings(Record):
    """What one start of the command may pay; null sets no limit. What the journal holds costs nothing."""

    max_requests: int | None = None
    """Requests that are answered."""
    max_tokens: int | None = None
    """Tokens of prompts and completions together."""
    max_seconds: float | None = None
    """Wall clock, from the first shard on."""
    max_cost: float | None = None
    """Money by `prices`."""
    prices: tuple[Price, ...] = ()
    """For example `budget.prices=[{prompt:0.15,completion:0.6}]`, and `{engine:NAME,prompt:2.5}` for further ones."""

    def __post_init__(self) -> None:
        for name in ("max_requests", "max_tokens", "max_seconds", "max_cost"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ValueError(f"{name} must not be below 0 (null is no limit), got {value}")
        names = [price.engine for price in self.prices]
        if len(set(names)) < len(names):
            raise ValueError(f"prices need one entry an engine, got {names}")

    def check_prices(self, engines: Sequence[str]) -> None:
        """Raises ValueError for a price of no engine, or a limit on money that some engine has no price for."""
        names = {price.engine for price in self.prices}
        known = ", ".join(repr(name) for name in engines)
        if unknown := sorted(names - set(engines)):
            raise ValueError(f"budget.prices has a price for the engine {unknown[0]!r}, expected one of {known}")
        missing = [name for name in engines if name not in names]
        if self.max_cost is not None and missing:
            raise ValueError(
                f"budget.max_cost needs a price for every engine ({known}), got none for {missing[0]!r}; give "
                "budget.prices=[{engine:NAME,prompt:PRICE,completion:PRICE}], for a million tokens"
            )

    def price(self, engine: str) -> Price:
        """Of an engine; 0 where none is given."""
        return next((price for price in self.prices if price.engine == engine), Price())


class BudgetReached(Exception):
    """Nothing more may be asked."""


@dataclasses.dataclass
class Cost:
    """What work for one problem came to, whether it was paid now or lay in the journal."""

    requests: int = 0
    completion_tokens: int = 0
    cost: float = 0.0
    """Of completions alone: how many tokens a replayed prompt has, only its engine could tell."""
    prompt_chars_by_engine: dict[str, int] = dataclasses.field(default_factory=dict)


class Accounts:
    """The accounts of one worker. Used from its event loop; whoever reads from elsewhere sees them a little late."""

    def __init__(self, budget: BudgetSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self._budget = budget
        self._clock = clock
        self._began = clock()
        self._all, self._own_then = Usage(), Usage()
        limits = (budget.max_requests, budget.max_tokens, budget.max_seconds, budget.max_cost)
        self._is_limited = any(limit is not None for limit in limits)
        self._in_flight = 0
        self._end: Exception | None = None
        self.paid: dict[str, Usage] = {}
        """By engine."""
        self.paid_prompt_chars: dict[str, int] = {}
        """Characters of the prompts that `paid` counts tokens of, by engine."""
        self.reached = ""
        """The limit that was reached, as `budget.NAME=VALUE`; empty while there is none."""
        self.costs: dict[str, Cost] | None = None
        """By problem; None, the default, keeps none."""

    @property
    def seconds(self) -> float:
        """Since the accounts were opened."""
        return self._clock() - self._began

    @property
    def total(self) -> Usage:
        """Paid at all engines together, by all workers as far as they were seen."""
        return self._own + self._elsewhere

    @property
    def _own(self) -> Usage:
        return sum(self.paid.values(), Usage())

    @property
    def _elsewhere(self) -> Usage:
        """What other workers had paid when their ledger was last seen."""
        return self._all - self._own_then

    def see(self, paid: Usage) -> None:
        """Takes note of what all workers have paid since the run began, this one's part that is in it included."""
        self._own_then, self._all = self._own, paid

    @property
    def money(self) -> float:
        """Paid at all engines together; what other workers paid at the price that all engines then have."""
        elsewhere = self._elsewhere
        price = next(iter(self._budget.prices), Price())
        return price.of(elsewhere.prompt_tokens, elsewhere.completion_tokens) + sum(
            self._budget.price(engine).of(usage.prompt_tokens, usage.completion_tokens)
            for engine, usage in self.paid.items()
        )

    def of(self, engine: str) -> "Account":
        """The account of one engine."""
        return Account(self, engine)

    def spent(self) -> str:
        """What was paid, for people."""
        total = self.total
        money = f", cost {self.money:.4g}" if self._budget.prices else ""
        return (
            f"{total.requests} requests, {total.prompt_tokens} prompt tokens and {total.completion_tokens} completion "
            f"tokens{money}, in {self.seconds:.0f} s"
        )

    def close(self, why: str) -> None:
        """Lets nothing more out."""
        self.reached = self.reached or why

    def end(self, error: Exception) -> None:
        """Lets nothing more out: whoever asks is given that error."""
        self._end = self._end or error

    def is_reached(self) -> bool:
        """Whether a limit is reached, now or before."""
        if self._is_limited and not self.reached:
            self.reached = self._limit_reached()
        return bool(self.reached)

    def admit(self) -> None:
        """Lets one request out.

        Raises:
          BudgetReached: a limit is reached, now or before.
          Whatever `end` was given.
        """
        if self._end:
            raise self._end
        if self.is_reached():
            raise BudgetReached(f"{self.reached} is reached")
        self._in_flight += 1

    @property
    def seconds_left(self) -> float:
        """Of `max_seconds`; infinite where it sets no limit."""
        most = self._budget.max_seconds
        return math.inf if most is None else max(0.0, most - self.seconds)

    def go_on(self) -> None:
        """Lets one that is out be sent, or sent again.

        Raises:
          BudgetReached: time, tokens or money are spent meanwhile. `max_requests` ends none that is out: it is one of
            them.
          Whatever `end` was given.
        """
        if self._end:
            raise self._end
        for limit in (self.reached, self._limit_reached() if self._is_limited else ""):
            if limit and not limit.startswith(_REQUESTS):
                self.reached = self.reached or limit
                raise BudgetReached(f"{limit} is reached")

    def _limit_reached(self) -> str:
        budget, total = self._budget, self.total
        spent: tuple[tuple[str, float | None, float], ...] = (
            ("max_tokens", budget.max_tokens, total.prompt_tokens + total.completion_tokens),
            ("max_seconds", budget.max_seconds, self.seconds),
            ("max_cost", budget.max_cost, self.money),
            # The last, so that `go_on` hears of the others.
            ("max_requests", budget.max_requests, total.requests + self._in_flight),
        )
        for name, most, now in spent:
            if most is not None and now >= most:
                return f"budget.{name}={most}"
        return ""

    def back(self, engine: str, request: Request, usage: Usage | None) -> None:
        """One that was let out is back: with what it cost, or None where nothing came of it."""
        self._in_flight -= 1
        if usage is None:
            return
        chars = len(request.prompt) + len(request.prefix)
        self.paid[engine] = self.paid.get(engine, Usage()) + usage
        self.paid_prompt_chars[engine] = self.paid_prompt_chars.get(engine, 0) + chars
        self.note(engine, request, usage.completion_tokens)

    def note(self, engine: str, request: Request, completion_tokens: int) -> None:
        """Adds a request to its problem's costs."""
        if self.costs is None:
            return
        cost = self.costs.setdefault(PROBLEM.get(), Cost())
        chars = len(request.prompt) + len(request.prefix)
        cost.requests += 1
        cost.prompt_chars_by_engine[engine] = cost.prompt_chars_by_engine.get(engine, 0) + chars
        cost.completion_tokens += completion_tokens
        cost.cost += self._budget.price(engine).of(0, completion_tokens)


class Account:
    """One engine's account."""

    def __init__(self, accounts: Accounts, engine: str) -> None:
        self._accounts = accounts
        self._engine = engine

    def admit(self) -> None:
        """See `Accounts.admit`."""
        self._accounts.admit()

    @property
    def seconds_left(self) -> float:
        """See `Accounts.seconds_left`."""
        return self._accounts.seconds_left

    def go_on(self) -> None:
        """See `Accounts.go_on`."""
        self._accounts.go_on()

    def end(self, error: Exception) -> None:
        """See `Accounts.end`: for all engines."""
        self._accounts.end(error)

    def back(self, request: Request, usage: Usage | None) -> None:
        """See `Accounts.back`."""
        self._accounts.back(self._engine, request, usage)

    def replayed(self, request: Request, samples: Sequence[Sample]) -> None:
        """Adds samples that came from the journal to their problem's costs."""
        self._accounts.note(self._engine, request, sum(sample.tokens for sample in samples))
