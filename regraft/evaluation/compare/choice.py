"""Which backbones are worth a thought, and which one is taken: a rule over answers in pairs."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from regraft.stats import mcnemar

SIGNIFICANCE = 0.05  # of a difference that counts as shown; the usual convention

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
    """Positions in the list of backbones, and why.

    best: the most accurate, the faster on a tie. chosen: see choose().
    p_values: (M,) of each backbone being as good as the best; 1 for the best itself.
    """

    best: int
    chosen: int
    p_values: Floats


def pareto_front(accuracy: Floats, ms: Floats) -> Bools:
    """(M,) whether no other is at least as accurate and as fast, and better in one of the two.

    >>> pareto_front(np.array([0.8, 0.9, 0.7]), np.array([1.0, 2.0, 1.5])).tolist()
    [True, True, False]
    """
    at_least = (accuracy[:, None] >= accuracy) & (ms[:, None] <= ms)  # (M, M) row over column
    better = (accuracy[:, None] > accuracy) | (ms[:, None] < ms)
    return np.asarray(~(at_least & better).any(axis=0), bool)


def choose(hits: Bools, speed: Speed) -> Choice:
    """Of the backbones that are not shown to be worse than the best, the fastest.

    Only the Pareto front is looked at. Worse is what McNemar's exact test shows at SIGNIFICANCE,
    each against the best on the same photos. Nothing is corrected for several comparisons: a
    correction would call more differences unproven, and so give accuracy away for speed. Where
    speeds are not clearly apart (quartiles overlap the fastest's), the more accurate is taken: so
    the choice does not hang on a busy moment of the machine.

    Args:
        hits: (M, N) bool, whether each backbone's probe was right about each photo.

    Source: McNemar 1947, with the binomial distribution; Dietterich 1998 on comparing classifiers.
    """
    accuracy, ms = hits.mean(axis=1), speed.ms
    best = min(range(len(ms)), key=lambda at: (-accuracy[at], ms[at]))
    p_values = np.array([_mcnemar(row, hits[best]) for row in hits])
    kept = np.flatnonzero((p_values > SIGNIFICANCE) & pareto_front(accuracy, ms))
    fastest = min(kept, key=lambda at: (ms[at], -accuracy[at]))
    as_fast = [at for at in kept if speed.low[at] <= speed.high[fastest]]
    chosen = min(as_fast, key=lambda at: (-accuracy[at], ms[at]))
    return Choice(best, int(chosen), p_values)


def _mcnemar(one: Bools, other: Bools) -> float:
    """The exact two-sided p-value of two rows of answers (N,) being equally good."""
    return mcnemar(int((one & ~other).sum()), int((other & ~one).sum()))
