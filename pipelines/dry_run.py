"""What a run would cost, told from a small sample of its problems that goes through the whole pipeline.

The sample is worked on with the real engine and the run's own journal, so that its rollouts and first critiques are
paid for once; nothing is written but the journal. Critics are weighed over all paths of a shard and placebos are taken
from its other paths: what the sample asks after that may differ from what the run will ask for the same problems.
"""

import math
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence

import msgspec
import numpy as np
from scipy import stats

from pipelines.budget import Accounts, BudgetReached, Cost
from pipelines.engines import ServerWatcher, serve_all
from pipelines.journal import Place
from pipelines.output import Output
from pipelines.plan import Inputs, Plan, make_plan
from pipelines.run import books_of, fill_shard, read_inputs, site_of, vet, worker_spec
from pipelines.settings import Settings
from pipelines.shards import read_rows
from pipelines.site import open_site
from pipelines.worker import holding
from schemas import Problem, Record, digest

LEVEL = 0.9
"""Of the intervals."""
_TOKENS_A_CHAR = 0.25
"""Of a prompt, where no request was paid that would tell."""


class Amount(Record):
    """Something that the whole run needs."""

    sampled: float
    """For the sample."""
    total: float
    low: float
    high: float


class Forecast(Record):
    """What the whole run would need, journaled answers included: they are needed, too, and cost nothing again."""

    num_problems: int
    num_sampled: int
    num_failed: int
    """Elements of the sample that failed; their problems are in no amount."""
    amounts: Mapping[str, Amount]
    """By name: `requests`, `prompt_tokens`, `completion_tokens`; `cost` where there are prices; `seconds` where most of
    the sample was not in the journal."""
    spent: str
    """What the sample itself was paid, for people."""
    budget_reached: str
    """The setting that stopped the sample; empty where none did. `amounts` is empty then."""
    trouble: str = ""
    """What the first failed element failed by, where more failed than `max_failure_share` allows or no problem was
    spared; else empty. `amounts` is empty where it is not."""

    @property
    def exit_code(self) -> int:
        """The command's, as of a run."""
        return 4 if self.budget_reached else 3 if self.trouble else 0


def extrapolate(values: Sequence[float], num_problems: int) -> Amount:
    """The sum over all problems from those of a sample, with an interval.

    The sample's part is known. Of the other m problems the sum is predicted: m times the mean, with variance
    s² (m² / n + m), one term for the mean's error and one for the problems' own spread, and Student's t with n - 1
    degrees of freedom (prediction interval for a sum of m normal values, Hahn and Meeker 1991, section 4.6).
    """
    known, n, left = math.fsum(values), len(values), num_problems - len(values)
    total = known + left * known / n
    if not left or n < 2:
        return Amount(sampled=known, total=total, low=total, high=total if not left else math.inf)
    spread = float(np.std(values, ddof=1)) * math.sqrt(left**2 / n + left)
    margin = float(stats.t.ppf((1 + LEVEL) / 2, n - 1)) * spread
    return Amount(sampled=known, total=total, low=max(known, total - margin), high=total + margin)


def dry_run(
    settings: Settings, announce: Callable[[Plan, int], None], watcher: ServerWatcher | None = None
) -> Forecast:
    """Runs the sample where a run could have `settings.out`; makes nothing there but the journal.

    Args:
      settings: of the whole run.
      announce: told of the plan and the sample's size before the first request.
      watcher: told how servers fare that are started for it.

    Raises:
      UserError: as for `run`, also where the folder cannot be had.
    """
    inputs = read_inputs(settings)
    whole, out = make_plan(settings, inputs), Output(settings.out)
    journal = out.journal(settings.journal)
    out.check(whole.config_digest, replace=settings.replace)
    ordered = sorted(inputs.problems, key=lambda problem: digest("dry_run", settings.seed, problem.id))
    sample = Inputs(problems=tuple(ordered[: settings.dry_run_problems]), unread=(), solutions=inputs.solutions)
    with tempfile.TemporaryDirectory() as folder:
        output = Output(folder)
        plan = make_plan(msgspec.structs.replace(settings, out=folder, journal=str(journal)), sample)
        announce(whole, len(sample.problems))
        with output.claimed(plan.config_digest, replace=False):
            accounts, seconds = _work(plan, sample, output, journal, watcher)
        failures = list(read_rows(output.path, "failures", ["stage", "problem_id", "detail"]))
        failed = {row["problem_id"] for row in failures}
        sound = [problem for problem in sample.problems if problem.id not in failed]
        is_told = not accounts.reached and (
            bool(sound) and books_of(plan, sample, output).failure_share <= settings.max_failure_share
        )
    return Forecast(
        num_problems=len(inputs.problems),
        num_sampled=len(sample.problems),
        num_failed=len(failures),
        amounts=_amounts(accounts, settings, len(inputs.problems), sound, seconds) if is_told else {},
        spent=accounts.spent(),
        budget_reached=accounts.reached,
        trouble=f"{failures[0]['stage']}: {failures[0]['detail']}" if failures and not is_told else "",
    )


def _work(
    plan: Plan, sample: Inputs, output: Output, journal: Place, watcher: ServerWatcher | None
) -> tuple[Accounts, float]:
    with serve_all({"": plan.settings.engine, **plan.settings.engines}, watcher=watcher) as endpoints:
        vet(plan, endpoints, journal)
        spec = worker_spec(plan, endpoints, journal)
        open_site(site_of(plan, output), sample, range(plan.num_shards), plan.num_shards)
        with holding(spec) as worker:
            worker.accounts.costs = {}
            began = time.monotonic()
            try:
                for index in range(plan.num_shards):
                    fill_shard(plan, spec, output, index)
            except BudgetReached:
                worker.settle()
            return worker.accounts, time.monotonic() - began


def _amounts(
    accounts: Accounts, settings: Settings, num_problems: int, sound: Sequence[Problem], seconds: float
) -> dict[str, Amount]:
    assert accounts.costs is not None
    costs = [accounts.costs.get(problem.id, Cost()) for problem in sound]
    values = {
        "requests": [float(cost.requests) for cost in costs],
        "prompt_tokens": [math.fsum(_prompt_tokens(cost, accounts).values()) for cost in costs],
        "completion_tokens": [float(cost.completion_tokens) for cost in costs],
    }
    if settings.budget.prices:
        values["cost"] = [
            cost.cost
            + math.fsum(
                settings.budget.price(engine).of(tokens, 0) for engine, tokens in _prompt_tokens(cost, accounts).items()
            )
            for cost in costs
        ]
    paid = accounts.total.requests
    if paid * 2 > sum(cost.requests for cost in accounts.costs.values()):
        values["seconds"] = [number * seconds / paid for number in values["requests"]]
    return {name: extrapolate(of_problems, num_problems) for name, of_problems in values.items()}


def _prompt_tokens(cost: Cost, accounts: Accounts) -> dict[str, float]:
    """Of a problem's requests, by engine: from their characters, at the rate of those that were paid."""
    rates = {
        engine: accounts.paid[engine].prompt_tokens / chars for engine, chars in accounts.paid_prompt_chars.items()
    }
    return {engine: chars * rates.get(engine, _TOKENS_A_CHAR) for engine, chars in cost.prompt_chars_by_engine.items()}
