"""The interval of a share, in plain arithmetic: the status page shows it without numpy or scipy."""

import math
from dataclasses import dataclass
from statistics import NormalDist


@dataclass(frozen=True)
class Interval:
    """A share in [0, 1] and its bounds; all NaN where nothing was counted."""

    value: float
    low: float
    high: float


def wilson_interval(n_hits: int, n: int, confidence: float) -> Interval:
    """Return the share of hits with its Wilson interval; NaN if n is 0.

    Args:
        n_hits: in [0, n].
        n: trials, >= 0.
        confidence: of the interval, in (0, 1).

    Source: Wilson 1927; Brown, Cai & DasGupta 2001 recommend it for small n. A test compares it
    with scipy.stats.

    >>> wilson_interval(9, 10, 0.95).value
    0.9
    """
    if n == 0:
        return Interval(math.nan, math.nan, math.nan)
    share, n = float(n_hits / n), int(n)
    z2 = NormalDist().inv_cdf((1 + confidence) / 2) ** 2
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = math.sqrt(z2 * (share * (1 - share) / n + z2 / (4 * n**2))) / (1 + z2 / n)
    low = 0.0 if n_hits == 0 else max(0.0, middle - half)
    high = 1.0 if n_hits == n else min(1.0, middle + half)
    return Interval(share, low, high)
