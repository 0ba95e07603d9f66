"""Test whether a gain in accuracy is larger than a margin, and the power of this test.

The gain of the first model over the second, on n photos that both answered, is the share that only
the first answered correctly minus the share that only the second did. The hypothesis to be shown is
always the same: the true gain is LARGER than a margin.

* margin 0: better at all. Exact conditional test of McNemar, one-sided.
* margin > 0: better by more than that (superiority).
* margin < 0: worse by less than that (non-inferiority).

To show that the first model LOST more than a margin, exchange the models:
gain_p_value(n, only_second, only_first, margin).
"""

import math
from functools import lru_cache

import numpy as np
from scipy.optimize import brentq
from scipy.stats import binom

from regraft.stats.score import TIE, Counts, largest_size, region_above, rejection_chances, score

TINY = 1e-12  # replaces a share of zero discordant photos, which would divide by zero


def gain_p_value(n: int, only_first: int, only_second: int, margin: float = 0.0) -> float:
    """Return the p-value against the hypothesis that the gain is at most the margin, in [0, 1].

    It is 1 if no photo was answered, or if none is discordant and margin >= 0.

    With margin 0 only the discordant photos count. With another margin, the p-value is the largest
    over all possible true shares of discordant photos, so the test keeps its level for every share;
    the numerical search misses less than 0.1 % of the maximum. This test is slightly more powerful
    than the test with margin 0. For a margin > 0 both tests must show the gain. Otherwise a model
    could be better by more than 0.001 and not be better at all.

    Args:
        n: photos, >= 0.
        only_first, only_second: photos that only the first, or only the second, model answered
            correctly; their sum is at most n.
        margin: of the gain, in [-1, 1].

    Source: McNemar 1947 with the binomial distribution (margin 0); Tango 1998, made exact as by
    Hsueh, Liu & Chen 2001 (any other).

    >>> gain_p_value(100, 5, 0)
    0.03125
    >>> gain_p_value(100, 5, 0, margin=0.02) > gain_p_value(100, 5, 0, margin=-0.02)
    True
    """
    discordant = only_first + only_second
    if n == 0 or margin >= 1 or (margin >= 0 and discordant == 0):
        return 1.0
    if margin <= -1:
        return float(only_second == n)
    better_at_all = float(binom.sf(only_first - 1, discordant, 0.5)) if margin >= 0 else 0.0
    if margin == 0:
        return better_at_all
    observed = score(n, np.array([only_first]), np.array([only_second]), margin)
    return max(better_at_all, largest_size(region_above(n, margin, float(observed[0])), margin))


def compute_power(n: int, discordant: float, gain: float, margin: float, level: float) -> float:
    """Return the exact chance that gain_p_value() <= level on n new photos, in [0, 1].

    Args:
        n: photos, >= 0.
        discordant: true share of photos that exactly one model answers correctly, in [0, 1];
            raised to |gain| if it is smaller, because a smaller share is impossible.
        gain: the true gain, in [-1, 1].
        margin: in [-1, 1].
        level: of the test, in (0, 0.5).

    Source: Suissa & Shuster 1991, the unconditional power of a test on paired answers.
    """
    if n == 0:
        return 0.0
    share = np.array([min(1.0, max(discordant, abs(gain), TINY))])
    return float(rejection_chances(_region(n, margin, level), share, gain)[0])


def smallest_gain(n: int, discordant: float, margin: float, level: float, power: float) -> float:
    """Return the smallest true gain that the test would have shown with the given power.

    It lies in (margin, 1], with a tolerance of 1e-6, so it may be negative if margin < 0. It is NaN
    if not even a gain of 1 would have been shown.

    Args:
        n: photos, >= 0.
        discordant: see compute_power(); raised to the gain if it is smaller.
        margin: in [-1, 1].
        level: of the test, in (0, 0.5).
        power: wanted, in [0.5, 1). Source of 0.8: Cohen 1988.
    """

    def excess(gain: float) -> float:
        return compute_power(n, discordant, gain, margin, level) - power

    if n == 0 or excess(1.0) < 0:
        return math.nan
    return float(brentq(excess, margin, 1.0, xtol=1e-6))


def discordant_share(n: int, only_first: int, only_second: int) -> float:
    """Return the estimated share of discordant photos, in (0, 1), for power calculations.

    Half a photo is added to each of the four cells, as in paired_interval(): two models that agreed
    on a few photos may still differ on the next photo.

    Source: Agresti & Min 2005.
    """
    return (only_first + only_second + 1) / (n + 2)


@lru_cache(maxsize=64)
def _region(n: int, margin: float, level: float) -> Counts:
    """Return the region on which gain_p_value() <= level, see score.py."""
    if abs(margin) >= 1:
        discordant = np.arange(n + 1)
        return np.where(margin > 0, discordant + 1, discordant == n).astype(np.int64)
    if margin == 0:
        return _region_without_margin(n, level)
    low, high = 0.0, float(score(n, np.array([n]), np.array([0]), margin)[0]) + 1
    while high - low > TIE:
        middle = (low + high) / 2
        size = largest_size(region_above(n, margin, middle), margin)
        low, high = (low, middle) if size <= level else (middle, high)
    region = region_above(n, margin, high)
    return np.maximum(region, _region_without_margin(n, level)) if margin > 0 else region


def _region_without_margin(n: int, level: float) -> Counts:
    """Return the region for margin 0: the fewest heads of D fair coins with a p-value <= level."""
    discordant = np.arange(n + 1)
    fewest = binom.isf(level, discordant, 0.5)
    fewest = fewest + (binom.sf(fewest - 1, discordant, 0.5) > level)
    return np.asarray(fewest, dtype=np.int64)
