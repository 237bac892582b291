"""Where a wrong path went wrong: a posterior over its steps from direct rollouts.

The model is one change-point in a hidden chain. A path of M steps has prefixes t = 0..M-1 (t steps long) from which
rollouts start. Up to the first wrong step the success rate drifts: its logit walks at random from prefix to prefix, as
it does on real solutions, which get easier or harder on the way. If step s (from 0) is the first wrong one, the rate
falls between prefixes s and s+1 to a lower one, mostly zero but not always, since a policy can recover; there it
stays. Both rates live on grids, so the posterior is exact up to the grid: one forward and one backward pass (Rabiner
1989, A Tutorial on Hidden Markov Models), M times 30 numbers.

With no drift and conjugate priors this is the two-rate change-point model (Smith 1975, A Bayesian Approach to Inference
about a Change-Point). `python -m benchmarks.first_error` compares it with that and with the published rules.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import betainc, logit, xlog1py, xlogy

from schemas import Estimate, Record

Floats = npt.NDArray[np.float64]

_CELLS = 20
"""Cells of the grid of rates before the first error."""
_JUMP = 1e-4
"""Share of steps at which the rate before may move anywhere: no data is impossible."""
_TINY = float(np.finfo(np.float64).tiny)
_LOWEST = -1e300


class ChangePoint(Record):
    """Priors of the rates on both sides of the first wrong step."""

    before: tuple[float, float] = (2.0, 1.0)
    """Rate from the bare problem, as Beta parameters (a, b): more often right than not."""
    drift: float = 0.2
    """Standard deviation of what one right step adds to the rate's logit."""
    after: tuple[tuple[float, float], ...] = (
        (0.0, 0.25),
        (0.02, 0.12),
        (0.05, 0.10),
        (0.10, 0.12),
        (0.15, 0.11),
        (0.20, 0.10),
        (0.27, 0.10),
        (0.35, 0.10),
    )
    """Rates after the first wrong step with their weights: often zero, but policies recover."""
    max_ratio: float = 0.5
    """Largest rate after the error as a share of the rate before it: a smaller drop is drift."""

    def __post_init__(self) -> None:
        if min(self.before) <= 0:
            raise ValueError(f"before must be two Beta parameters above 0, got {self.before}")
        if self.drift <= 0:
            raise ValueError(f"drift must be above 0, got {self.drift}")
        if not 0 < self.max_ratio <= 1:
            raise ValueError(f"max_ratio must lie above 0 and not above 1, got {self.max_ratio}")
        for rate, weight in self.after:
            if not 0 <= rate < 1 or weight <= 0:
                raise ValueError(f"after needs rates in 0..1 with weights above 0, got {rate} with {weight}")
        if min((rate for rate, _ in self.after), default=1.0) * 2 * _CELLS > self.max_ratio:
            # The lowest rate before is half a cell; an error must be possible there, too.
            raise ValueError(
                f"after needs a rate of at most {self.max_ratio / 2 / _CELLS:g} (max_ratio / {2 * _CELLS}), "
                f"got {self.after}"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Chain:
    """A model on its grids: B rates before, A rates after."""

    before: Floats
    """Rates, shape (B,)."""
    start: Floats
    """Prior over them at the bare problem, shape (B,)."""
    walk: Floats
    """Transition by one right step, shape (B, B), rows sum to 1."""
    after: Floats
    """Rates, shape (A,)."""
    fall: Floats
    """Transition by the first wrong step, shape (B, A), rows sum to 1."""


@functools.lru_cache(maxsize=64)
def _chain(model: ChangePoint) -> _Chain:
    edges = np.linspace(0, 1, _CELLS + 1)
    before = (edges[:-1] + edges[1:]) / 2
    start = np.diff(betainc(*model.before, edges))
    place = logit(before)
    walk = np.exp(-0.5 * ((place[:, None] - place) / model.drift) ** 2) * np.gradient(place)
    walk = (1 - _JUMP) * walk / walk.sum(axis=1, keepdims=True) + _JUMP * start
    after, weight = (np.array(column) for column in zip(*model.after, strict=True))
    fall = weight * (after <= model.max_ratio * before[:, None])
    return _Chain(before=before, start=start, walk=walk, after=after, fall=fall / fall.sum(axis=1, keepdims=True))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Belief:
    """What direct rollouts say about a wrong path of M steps. All arrays have shape (M,)."""

    posterior: Floats
    """Probability of each step to be the first wrong one; sums to 1."""
    whole: Floats
    """Expected rate at each prefix if it holds no wrong step."""
    broken: Floats
    """Expected rate at each prefix if it holds one; 0 at prefix 0, which holds no step at all."""

    def gain(self) -> Floats:
        """Mutual information in nats between the next rollout of each prefix and whether that prefix is broken.

        H(p q1 + (1-p) q0) - p H(q1) - (1-p) H(q0), p being the probability that the prefix holds the first error.
        """
        p = np.concatenate([[0.0], np.cumsum(self.posterior)[:-1]]).clip(0, 1)
        mixed = p * self.broken + (1 - p) * self.whole
        return _entropy(mixed) - p * _entropy(self.broken) - (1 - p) * _entropy(self.whole)

    def next_probe(self) -> int:
        """Length of the prefix whose next rollout tells most about the first wrong step, 1..M-1.

        Raises:
          ValueError: a path of fewer than two steps has nothing to ask.
        """
        if len(self.posterior) < 2:
            raise ValueError(
                f"a path of {len(self.posterior)} steps has no inner prefix to probe; its only step is the error"
            )
        return int(self.gain()[1:].argmax()) + 1


def first_error_belief(prefixes: Sequence[Estimate], model: ChangePoint) -> Belief:
    """The posterior over the first wrong step, with the expected rates that probing needs.

    Args:
      prefixes: direct estimates after 0, 1, .., M-1 steps; shape (M,). The whole path is known to be wrong.
      model: priors of the rates; every step is as likely as any other to be the first wrong one.
    """
    chain, steps = _chain(model), len(prefixes)
    right = np.array([prefix.correct for prefix in prefixes], dtype=np.float64)[:, None]
    wrong = np.array([prefix.scored - prefix.correct for prefix in prefixes], dtype=np.float64)[:, None]
    # Likelihoods are kept as (scaled to a largest entry of 1, logarithm of the scale): counts may be huge.
    seen, seen_scale = _scaled(xlogy(right, chain.before) + xlog1py(wrong, -chain.before))
    later = np.flip(np.cumsum(np.flip(xlogy(right, chain.after) + xlog1py(wrong, -chain.after), 0), 0), 0)
    rest, rest_scale = _scaled(np.vstack([later[1:], np.zeros(len(chain.after))]))  # row s: everything after prefix s

    forward, forward_scale = np.empty((steps, _CELLS)), np.empty(steps)
    state, scale = chain.start, 0.0
    for t in range(steps):
        state = (state @ chain.walk if t else state) * seen[t]
        total = state.sum()
        state = forward[t] = state / total
        scale = forward_scale[t] = scale + np.log(total) + seen_scale[t]

    fallen = rest @ chain.fall.T  # (M, B): likelihood of everything after prefix s, given the rate there and a fall
    log_weight = np.log(np.maximum((forward * fallen).sum(axis=1), _TINY)) + forward_scale + rest_scale
    posterior = np.exp(log_weight - log_weight.max())
    posterior /= posterior.sum()

    at_fall = (forward @ chain.fall) * rest  # (M, A): rate after the error, given that step s is the first wrong one
    at_fall *= (posterior / np.maximum(at_fall.sum(axis=1), _TINY))[:, None]
    broken = np.zeros(steps)
    broken[1:] = (np.cumsum(at_fall, axis=0)[:-1] @ chain.after) / np.maximum(np.cumsum(posterior)[:-1], _TINY)

    whole = _smooth(chain, forward, (seen, seen_scale), (fallen, rest_scale))
    return Belief(posterior=posterior, whole=whole, broken=broken)


def _smooth(chain: _Chain, forward: Floats, seen: tuple[Floats, Floats], fallen: tuple[Floats, Floats]) -> Floats:
    """Expected rate at each prefix, given all counts and that no step up to it is wrong: the backward pass."""
    steps = len(forward)
    whole = np.empty(steps)
    ahead, scale = fallen[0][-1], float(fallen[1][-1])
    for t in range(steps - 1, -1, -1):
        if t < steps - 1:
            on, on_scale = chain.walk @ (seen[0][t + 1] * ahead), scale + seen[1][t + 1]
            scale = max(on_scale, fallen[1][t])
            ahead = on * np.exp(on_scale - scale) + fallen[0][t] * np.exp(fallen[1][t] - scale)
        weight = forward[t] * ahead
        total = weight.sum()
        whole[t] = (weight @ chain.before) / total if total else forward[t] @ chain.before
    return whole


def first_error_posterior(prefixes: Sequence[Estimate], model: ChangePoint) -> Floats:
    """Probability of each step to be the first wrong one, shape (M,); see `first_error_belief`."""
    return first_error_belief(prefixes, model).posterior


def _scaled(log_likelihood: npt.NDArray[np.floating[Any]]) -> tuple[Floats, Floats]:
    """Rows divided by their largest entry, and its logarithm; a row of zeros stays one, its scale finite."""
    scale = np.maximum(log_likelihood.max(axis=1), _LOWEST)
    return np.exp(log_likelihood - scale[:, None]), scale


def _entropy(p: Floats) -> Floats:
    return np.asarray(-(xlogy(p, p) + xlog1py(1 - p, -p)))
