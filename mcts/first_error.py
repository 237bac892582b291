"""Where a wrong path went wrong: a posterior over its steps from direct rollouts.

The model is a single change-point. A path of M steps has prefixes t = 0..M (t steps long). If step s (from 0) is
the first wrong one, rollouts from prefixes 0..s come out right at one unknown rate and rollouts from s+1..M-1 at
another, lower one. Both rates have Beta priors and are integrated out, so that the likelihood of the counts is a
product of two Beta functions and the posterior needs no sampling.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.special import betaln, xlogy

from schemas import Estimate, Record

Floats = npt.NDArray[np.float64]


class ChangePoint(Record):
    """Priors of the two rates, as Beta parameters (a, b): pseudo-counts of right and wrong."""

    before: tuple[float, float] = (2.0, 1.0)
    """Rate before the first wrong step: more often right than not."""
    after: tuple[float, float] = (0.3, 6.0)
    """Rate after it: mostly zero, but a policy can recover."""


def _counts(prefixes: Sequence[Estimate]) -> tuple[Floats, Floats]:
    right = np.array([prefix.correct for prefix in prefixes], dtype=np.float64)
    wrong = np.array([prefix.scored - prefix.correct for prefix in prefixes], dtype=np.float64)
    return right, wrong


def first_error_posterior(prefixes: Sequence[Estimate], model: ChangePoint) -> Floats:
    """Probability of each step to be the first wrong one.

    Args:
      prefixes: direct estimates after 0, 1, .., M-1 steps; shape (M,). The whole path is known to be wrong.
      model: priors of the two rates.

    Returns:
      Array of shape (M,), non-negative, sum 1.
    """
    right, wrong = (np.cumsum(counts) for counts in _counts(prefixes))
    (a, b), (c, d) = model.before, model.after
    likelihood = betaln(a + right, b + wrong) + betaln(c + right[-1] - right, d + wrong[-1] - wrong)
    weights = np.exp(likelihood - likelihood.max())
    return np.asarray(weights / weights.sum(), dtype=np.float64)


def next_probe(prefixes: Sequence[Estimate], posterior: Floats, model: ChangePoint) -> int:
    """Length of the prefix whose next rollout tells most about the first wrong step, 1..M-1.

    It maximises the mutual information between one rollout's outcome and the change-point, with the two rates
    set to their posterior means: H(p q1 + (1-p) q0) - p H(q1) - (1-p) H(q0), where p is the probability that the
    prefix already holds the error.

    Raises:
      ValueError: a path of fewer than two steps has nothing to ask.
    """
    if len(prefixes) < 2:
        raise ValueError(f"a path of {len(prefixes)} steps has no inner prefix to probe; its only step is the error")
    right, wrong = (np.cumsum(counts) for counts in _counts(prefixes))
    rates = []
    for (a, b), hits, misses in (
        (model.before, right, wrong),
        (model.after, right[-1] - right, wrong[-1] - wrong),
    ):
        rates.append((a + posterior @ hits) / (a + b + posterior @ (hits + misses)))
    before, after = rates
    broken = np.cumsum(posterior)[:-1]
    gain = _entropy(broken * after + (1 - broken) * before) - (
        broken * _entropy(after) + (1 - broken) * _entropy(before)
    )
    return int(gain.argmax()) + 1


def _entropy(p: Floats | float) -> Floats:
    return np.asarray(-(xlogy(p, p) + xlogy(1 - np.asarray(p), 1 - np.asarray(p))))
