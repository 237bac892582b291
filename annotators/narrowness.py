"""Whether a model goes the same narrow way twice: how like two sequences of token entropies are.

Self-Critique (arXiv 2510.09259) takes that for a sign that a problem was in the data the model was trained on with
rewards. The formula is that of its code (yongding-tao/RL-Data-Contamination, `detectors/self_critique.py`).
"""

from collections.abc import Sequence

import numpy as np

SIFT_REJECTIONS = ("memorised",)
"""Why SiftProblems leaves a problem out."""


def path_likeness(first: Sequence[float], second: Sequence[float]) -> float | None:
    """How like the entropies along two solutions are, 0..1: cosine of their angle, times the ratio of their lengths.

    Token is compared with token by its place; the shorter sequence goes on with zeros. The source gives 0 where one has
    no token or none with an entropy above 0; here nobody can tell.

    Args:
      first: entropies of the tokens of one solution, none below 0, in any one unit.
      second: those of the other.

    Returns:
      None where a sequence is empty or holds zeros only.
    """
    if not any(first) or not any(second):
        return None
    size = max(len(first), len(second))
    one, other = (np.pad(np.asarray(each, float), (0, size - len(each))) for each in (first, second))
    cosine = float(one @ other / (np.linalg.norm(one) * np.linalg.norm(other)))
    return min(1.0, cosine) * min(len(first), len(second)) / size
