"""Whether a gain in accuracy is larger than a margin, and which gain could have been shown.

The gain of one model over another on n photos that both answered is the share that only the one got
right minus the share that only the other got right. The question is always the same: is the true
gain LARGER than a margin?

* margin 0: better at all. Exact conditional test of McNemar, one-sided.
* margin > 0: better by more than that (superiority).
* margin < 0: worse by less than that (non-inferiority).

Whether the one has LOST more than a margin is the same question asked of the other:
gain_p_value(n, only_other, only_one, margin).
"""

import math
from functools import lru_cache

import numpy as np
from scipy.optimize import brentq
from scipy.stats import binom

from regraft.stats.score import TIE, Counts, largest_size, region_above, rejection_chances, score

TINY = 1e-12  # stands for a share of no discordant photo at all, which divides nothing


def gain_p_value(n: int, only_one: int, only_other: int, margin: float = 0.0) -> float:
    """The chance of at least so much evidence for a gain above the margin, were it only the margin.

    In [0, 1]; 1 where no photo was answered, or where none is discordant and margin >= 0.

    With margin 0 only the discordant photos are looked at. With any other, the chance is the
    largest over all shares of discordant photos that the two models might truly have, so a promised
    level is kept whatever they have; what the search for the largest misses is below 0.1 % of it.
    Such a test sees a little more than the one with margin 0. For a margin > 0 both must show the
    gain, lest a model be better by more than 0.001 and yet not better.

    Args:
        n: photos, >= 0.
        only_one, only_other: photos that only the one, only the other got right; together <= n.
        margin: of the gain, in [-1, 1].

    Source: McNemar 1947 with the binomial distribution (margin 0); Tango 1998, made exact as by
    Hsueh, Liu & Chen 2001 (any other).

    >>> gain_p_value(100, 5, 0)
    0.03125
    >>> gain_p_value(100, 5, 0, margin=0.02) > gain_p_value(100, 5, 0, margin=-0.02)
    True
    """
    discordant = only_one + only_other
    if n == 0 or margin >= 1 or (margin >= 0 and discordant == 0):
        return 1.0
    if margin <= -1:
        return float(only_other == n)
    at_all = float(binom.sf(only_one - 1, discordant, 0.5)) if margin >= 0 else 0.0
    if margin == 0:
        return at_all
    seen = score(n, np.array([only_one]), np.array([only_other]), margin)
    return max(at_all, largest_size(region_above(n, margin, float(seen[0])), margin))


def power_of(n: int, discordant: float, gain: float, margin: float, level: float) -> float:
    """The exact chance that gain_p_value() <= level on n new photos, in [0, 1].

    Args:
        n: photos, >= 0.
        discordant: true share of photos that only one of the two gets right, in [0, 1]; taken as
            |gain| where that is more, for less is impossible.
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
    """The smallest true gain that gain_p_value() <= level would have shown with such power.

    In (margin, 1], to 1e-6; NaN where not even a gain of 1 would have been shown. It may be
    negative where margin < 0.

    Args:
        n: photos, >= 0.
        discordant: see power_of(); grows with the gain where the gain is more.
        margin: in [-1, 1].
        level: of the test, in (0, 0.5).
        power: wanted, in [0.5, 1). Source of 0.8: Cohen 1988.
    """

    def excess(gain: float) -> float:
        return power_of(n, discordant, gain, margin, level) - power

    if n == 0 or excess(1.0) < 0:
        return math.nan
    return float(brentq(excess, margin, 1.0, xtol=1e-6))


def discordant_share(n: int, only_one: int, only_other: int) -> float:
    """The share of discordant photos to plan with, in (0, 1), as n answered photos show it.

    Half a photo is added to each of the four cells, as in paired_interval(): two models that never
    differed on few photos may still differ on the next one.

    Source: Agresti & Min 2005.
    """
    return (only_one + only_other + 1) / (n + 2)


@lru_cache(maxsize=64)
def _region(n: int, margin: float, level: float) -> Counts:
    """The region on which gain_p_value() <= level, see score.py."""
    if abs(margin) >= 1:
        discordant = np.arange(n + 1)
        return np.where(margin > 0, discordant + 1, discordant == n).astype(np.int64)
    if margin == 0:
        return _region_at_all(n, level)
    low, high = 0.0, float(score(n, np.array([n]), np.array([0]), margin)[0]) + 1
    while high - low > TIE:
        middle = (low + high) / 2
        kept = largest_size(region_above(n, margin, middle), margin) <= level
        low, high = (low, middle) if kept else (middle, high)
    region = region_above(n, margin, high)
    return np.maximum(region, _region_at_all(n, level)) if margin > 0 else region


def _region_at_all(n: int, level: float) -> Counts:
    """The region for margin 0: the fewest heads of D fair coins that are so surprising."""
    discordant = np.arange(n + 1)
    fewest = binom.isf(level, discordant, 0.5)
    fewest = fewest + (binom.sf(fewest - 1, discordant, 0.5) > level)
    return np.asarray(fewest, dtype=np.int64)
