"""Success rates from counts: intervals, and the two questions that thresholds ask of them."""

import functools
from typing import Literal

import numpy as np
from scipy.special import betaincinv
from scipy.stats import fisher_exact

from schemas import Estimate


def interval(estimate: Estimate, level: float) -> tuple[float, float]:
    """Equal-tailed Jeffreys interval of the success rate, (low, high) within 0..1.

    Quantiles of Beta(correct + 1/2, wrong + 1/2), with low = 0 where nothing was right and high = 1 where
    nothing was wrong (Brown, Cai and DasGupta 2001, Interval Estimation for a Binomial Proportion, sect. 3.1.3).
    Unscored outcomes do not enter.
    """
    right, wrong = estimate.correct, estimate.scored - estimate.correct
    tail = (1 - level) / 2
    low = float(betaincinv(right + 0.5, wrong + 0.5, tail)) if right else 0.0
    high = float(betaincinv(right + 0.5, wrong + 0.5, 1 - tail)) if wrong else 1.0
    return low, high


def side(estimate: Estimate, threshold: float, level: float) -> Literal["above", "below", "unclear"]:
    """On which side of `threshold` the success rate is, as far as the counts can tell at `level`."""
    low, high = interval(estimate, level)
    if low > threshold:
        return "above"
    return "below" if high < threshold else "unclear"


@functools.lru_cache(maxsize=65_536)
def p_greater(better: Estimate, worse: Estimate) -> float:
    """One-sided Fisher exact p-value for `better` having no higher rate than `worse`; 1.0 where one has no counts.

    At 0 of 8 against 4 of 8 it is 0.038.
    """
    if not better.scored or not worse.scored:
        return 1.0
    table = np.array(
        [
            [better.correct, better.scored - better.correct],
            [worse.correct, worse.scored - worse.correct],
        ]
    )
    return float(fisher_exact(table, alternative="greater").pvalue)
