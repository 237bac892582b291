"""How many rollouts it takes to find the first wrong step, and whether a stated confidence is true.

    python -m benchmarks.first_error [--quick]

Four worlds whose truth is known. `reference`: a high rate that wobbles, then a low one. `drift`: the rate's logit walks
at random along right steps, mostly up. `recovery`: after the error a tenth to nearly half of the rate before is left,
and less with every step. `simulated`: chains of arithmetic as the simulated server poses them, solved wrongly by its
actor; rates are exact.

Compared on the same paths: Math-Shepherd (arXiv 2312.08935), K rollouts after every step and the first one whose rate
is not above a threshold; OmegaPRM (arXiv 2406.06592), binary search on the same question; `two_rates`, the change-point
with one rate on each side, integrated out, next rollout where it tells most; and ours. The thresholds are tuned with
the truth in view; nothing of ours is.
"""

import argparse
import functools
from collections.abc import Callable, Sequence

import msgspec
import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table
from scipy.special import betaln

from mcts.first_error import Belief, ChangePoint, first_error_belief
from pipelines.engines.simulated.policy import continue_solution
from pipelines.engines.simulated.settings import SimulatedSettings
from pipelines.engines.simulated.world import first_wrong_step, generator, make_problem, solution_steps, success_rate
from schemas import Estimate, Record

Floats = npt.NDArray[np.float64]
Rates = tuple[int, Floats]
"""A wrong path: its first wrong step and the true success rate after 0, 1, .., M-1 steps."""
Answer = tuple[int, int, float]
"""Step, rollouts spent, confidence (1 where a rule states none)."""
Rule = Callable[[Floats, np.random.Generator], Answer]

CAP = 400
"""Rollouts on one path at most."""


def reference(steps: int, rng: np.random.Generator) -> Rates:
    """High rate 0.3..0.95 with a wobble of 0.05, then 0, 0, 0.03 or 0.1."""
    error, high, low = int(rng.integers(steps)), rng.uniform(0.3, 0.95), rng.choice([0.0, 0.0, 0.03, 0.1])
    before = np.clip(high + rng.normal(0, 0.05, steps), 0.05, 1)
    return error, np.where(np.arange(steps) <= error, before, low)


def drift(steps: int, rng: np.random.Generator) -> Rates:
    """The logit starts around -0.3 and gains 1.5 over the path, with steps of standard deviation 0.35."""
    error, low = int(rng.integers(steps)), rng.choice([0.0, 0.0, 0.03, 0.1])
    place = rng.normal(-0.3, 0.8) + np.concatenate([[0.0], np.cumsum(rng.normal(1.5 / steps, 0.35, steps - 1))])
    return error, np.where(np.arange(steps) <= error, 1 / (1 + np.exp(-place)), low)


def recovery(steps: int, rng: np.random.Generator) -> Rates:
    """A tenth to 0.45 of the high rate is left after the error and shrinks evenly with every further step."""
    error, high = int(rng.integers(steps)), rng.uniform(0.4, 0.95)
    low = high * rng.uniform(0.1, 0.45)
    at = np.arange(steps)
    before = np.clip(high + rng.normal(0, 0.05, steps), 0.05, 1)
    return error, np.where(at <= error, before, low * (1 - (at - error - 1) / steps))


def simulated(steps: int, rng: np.random.Generator) -> Rates:
    """A wrong solution of a chain with `steps` - 1 operations and an answer line; recovery 2 % a step."""
    world = SimulatedSettings(
        min_steps=steps - 1, max_steps=steps - 1, error_low=0.6 / steps, error_high=1.6 / steps, recovery=0.02
    )
    while True:
        index = int(rng.integers(2**31))
        question = make_problem(0, index, world).question
        path = solution_steps(continue_solution(question, "", generator("wrong path", index), world))
        error = first_wrong_step(question, path)
        if error is not None and success_rate(question, path, world) == 0:
            break
    return error, np.array([success_rate(question, path[:length], world) for length in range(len(path))])


WORLDS: dict[str, Callable[[int, np.random.Generator], Rates]] = {
    "reference": reference,
    "drift": drift,
    "recovery": recovery,
    "simulated": simulated,
}


def shepherd(rates: Floats, rng: np.random.Generator, *, k: int, threshold: float) -> Answer:
    """The first step after which at most `threshold` of k rollouts come out right; all steps are rolled out from."""
    for step in range(1, len(rates)):
        if rng.binomial(k, rates[step]) / k <= threshold:
            return step - 1, k * (len(rates) - 1), 1.0
    return len(rates) - 1, k * (len(rates) - 1), 1.0


def omega(rates: Floats, rng: np.random.Generator, *, k: int, threshold: float) -> Answer:
    """Binary search for the same step."""
    low, high, used = 0, len(rates), 0
    while high - low > 1:
        middle = (low + high) // 2
        used += k
        low, high = (middle, high) if rng.binomial(k, rates[middle]) / k > threshold else (low, middle)
    return high - 1, used, 1.0


def two_rates_belief(prefixes: Sequence[Estimate]) -> Belief:
    """One Beta(2, 1) rate before and one Beta(0.3, 6) rate after, integrated out (conjugate)."""
    right = np.cumsum([float(p.correct) for p in prefixes])
    wrong = np.cumsum([float(p.scored - p.correct) for p in prefixes])
    likelihood = betaln(2 + right, 1 + wrong) + betaln(0.3 + right[-1] - right, 6 + wrong[-1] - wrong)
    posterior = np.exp(likelihood - likelihood.max())
    posterior /= posterior.sum()
    before = (2 + posterior @ right) / (3 + posterior @ (right + wrong))
    after = (0.3 + posterior @ (right[-1] - right)) / (6.3 + posterior @ (right[-1] - right + wrong[-1] - wrong))
    return Belief(
        posterior=posterior, whole=np.full(len(prefixes), before), broken=np.r_[0.0, np.full(len(prefixes) - 1, after)]
    )


def probing(
    rates: Floats,
    rng: np.random.Generator,
    *,
    believe: Callable[[Sequence[Estimate]], Belief],
    confidence: float,
    wave: int,
) -> Answer:
    """Rolls out `wave` times where it tells most until one step has `confidence`."""
    counts, used = [Estimate()] * len(rates), 0
    while True:
        belief = believe(counts)
        sure = float(belief.posterior.max())
        if sure >= confidence or used >= CAP or len(rates) < 2:
            return int(belief.posterior.argmax()), used, sure
        probe = belief.next_probe()
        counts[probe] += Estimate(correct=int(rng.binomial(wave, rates[probe])), scored=wave)
        used += wave


def _ours(prefixes: Sequence[Estimate]) -> Belief:
    return first_error_belief(prefixes, ChangePoint())


RULES: dict[str, Rule] = {
    **{f"shepherd {k}": functools.partial(shepherd, k=k, threshold=0.0) for k in (8, 16, 32)},
    **{f"shepherd {k}, above {t}": functools.partial(shepherd, k=k, threshold=t) for k in (16, 32) for t in (0.1, 0.2)},
    **{f"omega {k}": functools.partial(omega, k=k, threshold=0.0) for k in (4, 8, 16, 32)},
    **{f"omega {k}, above {t}": functools.partial(omega, k=k, threshold=t) for k in (16, 32) for t in (0.1, 0.2)},
    **{
        f"two rates {c}": functools.partial(probing, believe=two_rates_belief, confidence=c, wave=1)
        for c in (0.9, 0.95)
    },
    "ours 0.9": functools.partial(probing, believe=_ours, confidence=0.9, wave=1),
    "ours 0.9, waves of 4": functools.partial(probing, believe=_ours, confidence=0.9, wave=4),
    "ours": functools.partial(probing, believe=_ours, confidence=0.92, wave=2),
}
"""`ours` is what a tree search does by default; the others name what they change."""

_QUICK = ("shepherd 8", "omega 16", "omega 32, above 0.1", "two rates 0.9", "two rates 0.95", "ours 0.9", "ours")


class Figure(Record):
    """One rule in one world."""

    world: str
    steps: int
    rule: str
    found: float
    """Share of paths whose first wrong step is named exactly."""
    rollouts: float
    """Mean a path."""
    calibration_at_90: float | None
    """Share right among answers given with confidence 0.9 or more; None for rules that state no confidence."""
    claimed: float | None
    """Mean confidence of those answers."""


def measure(world: str, steps: int, rule: str, paths: Sequence[Rates]) -> Figure:
    """One rule on given paths; its rollouts have a seed of their own, the same for every rule."""
    rng = np.random.default_rng([1, steps])
    answers = [(RULES[rule](rates, rng), error) for error, rates in paths]
    sure = [(step == error, stated) for (step, _, stated), error in answers if stated >= 0.9]
    states = any(stated < 1 for (_, _, stated), _ in answers)
    return Figure(
        world=world,
        steps=steps,
        rule=rule,
        found=float(np.mean([step == error for (step, _, _), error in answers])),
        rollouts=float(np.mean([used for (_, used, _), _ in answers])),
        calibration_at_90=float(np.mean([hit for hit, _ in sure])) if states else None,
        claimed=float(np.mean([stated for _, stated in sure])) if states else None,
    )


def draw(world: str, steps: int, num_paths: int) -> list[Rates]:
    """Wrong paths of a world, the same ones every time."""
    rng = np.random.default_rng([0, steps])
    return [WORLDS[world](steps, rng) for _ in range(num_paths)]


def main() -> None:
    """Compares all rules on all worlds and prints one table for each length."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="150 paths of 24 steps a world, the better rules only")
    options = parser.parse_args()
    lengths, num_paths = ((24,), 150) if options.quick else ((6, 12, 24), 800)
    console, figures = Console(width=120), []
    for steps in lengths:
        table = Table("world", "rule", "found", "rollouts", "right at 0.9", "claimed", title=f"{steps} steps")
        for world in WORLDS:
            paths = draw(world, steps, num_paths)
            for rule in _QUICK if options.quick else RULES:
                figure = measure(world, steps, rule, paths)
                figures.append(figure)
                stated = (figure.calibration_at_90, figure.claimed)
                table.add_row(
                    world,
                    rule,
                    f"{figure.found:.3f}",
                    f"{figure.rollouts:.1f}",
                    *("" if share is None else f"{share:.3f}" for share in stated),
                    end_section=rule == "ours",
                )
        console.print(table)
    print(msgspec.json.encode([figure for figure in figures if figure.rule == "ours"]).decode())


if __name__ == "__main__":
    main()
