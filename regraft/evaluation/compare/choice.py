"""The rule that chooses a backbone: Pareto front, paired tests and speed."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from regraft.stats import mcnemar

SIGNIFICANCE = 0.05  # below this p-value a backbone is shown to be worse; the usual convention

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Speed:
    """Milliseconds a photo of M backbones: (M,) medians and quartiles."""

    ms: Floats
    low: Floats
    high: Floats


@dataclass(frozen=True)
class Choice:
    """Positions in the list of backbones, and the p-values of the comparison.

    best: the most accurate; on a tie the faster. chosen: see choose().
    p_values: (M,) that each backbone is as accurate as the best; 1 for the best itself.
    """

    best: int
    chosen: int
    p_values: Floats


def pareto_front(accuracy: Floats, ms: Floats) -> Bools:
    """Return which backbones are on the Pareto front of accuracy and speed, (M,).

    A backbone is on the front if no other is at least as accurate and as fast, and better in one of
    both.

    >>> pareto_front(np.array([0.8, 0.9, 0.7]), np.array([1.0, 2.0, 1.5])).tolist()
    [True, True, False]
    """
    at_least = (accuracy[:, None] >= accuracy) & (ms[:, None] <= ms)  # (M, M) row over column
    better = (accuracy[:, None] > accuracy) | (ms[:, None] < ms)  # (M, M)
    return np.asarray(~(at_least & better).any(axis=0), bool)


def choose(hits: Bools, speed: Speed) -> Choice:
    """Return the fastest backbone that is not shown to be worse than the most accurate.

    Only the Pareto front counts. A backbone is worse if McNemar's exact test against the best, on
    the same photos, has a p-value <= SIGNIFICANCE. There is no correction for several comparisons:
    it would call more differences unproven, and so trade accuracy for speed. If the quartiles of
    the speeds overlap those of the fastest, the more accurate backbone is chosen, so that the
    choice does not depend on other load on the machine.

    Args:
        hits: (M, N) bool, whether each backbone's probe predicted each photo correctly.

    Source: McNemar 1947, with the binomial distribution; Dietterich 1998 on comparing classifiers.
    """
    accuracy, ms = hits.mean(axis=1), speed.ms
    best = min(range(len(ms)), key=lambda at: (-accuracy[at], ms[at]))
    p_values = np.array([_mcnemar(row, hits[best]) for row in hits])
    eligible = np.flatnonzero((p_values > SIGNIFICANCE) & pareto_front(accuracy, ms))
    fastest = min(eligible, key=lambda at: (ms[at], -accuracy[at]))
    as_fast = [at for at in eligible if speed.low[at] <= speed.high[fastest]]
    chosen = min(as_fast, key=lambda at: (-accuracy[at], ms[at]))
    return Choice(best, int(chosen), p_values)


def _mcnemar(first: Bools, second: Bools) -> float:
    """Return the exact two-sided p-value that two rows of hits (N,) have equal accuracy."""
    return mcnemar(int((first & ~second).sum()), int((second & ~first).sum()))
