"""The score statistic of a gain against a margin, and the exact rejection probabilities.

Terms in this file, for n photos that two models answered:

* wins, losses: photos that only the first model, or only the second, answered correctly.
* discordant: wins + losses; its true share q is a nuisance parameter.
* gain: true share of wins minus true share of losses, in [-q, q].
* a region (n + 1,) int64: for each number of discordant photos D from 0 to n, the fewest wins with
  which the test rejects; D + 1 = never. Every test here rejects on such a region, because its
  statistic grows with each photo that turns from a loss into a win.
"""

import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import betainc
from scipy.stats import binom

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

TAIL = 1e-12  # total chance of the numbers of discordant photos that a sum leaves out
TIE = 1e-9  # statistics closer than this are equal except for rounding
N_NODES = 96  # shares tried; against 4000 shares the relative error of the maximum was 1e-6
N_END_NODES = 20  # more shares near each end, where a single photo changes the chance
N_PEAKS = 4  # number of shares around which the search is refined
ROUNDS = 2  # of refinement


def score(n: int, wins: Counts, losses: Counts, margin: float) -> Floats:
    """Return the standardised distance of the observed gain from the margin.

    Large values mean a gain above the margin.

    Args:
        n: photos, >= 1.
        wins, losses: any equal shape, wins + losses <= n.
        margin: in (-1, 1), not 0.

    Source: Tango 1998, eq. 8 and 9, with the maximum-likelihood variance under gain = margin.
    """
    linear = -wins - losses + (2 * n - wins + losses) * margin
    constant = -losses * margin * (1 - margin)
    root = np.sqrt(np.maximum(linear**2 - 8 * n * constant, 0.0))
    share_lost = (root - linear) / (4 * n)  # maximum likelihood under gain = margin
    variance = 2 * share_lost + margin - margin**2
    return np.asarray((wins - losses - n * margin) / np.sqrt(n * variance), dtype=np.float64)


def region_above(n: int, margin: float, threshold: float) -> Counts:
    """Return the region of a score >= threshold, by bisection over the wins for all D at once.

    Args: as in score().
    """
    discordant = np.arange(n + 1)
    low, high = np.zeros(n + 1, dtype=np.int64), discordant + 1
    for _ in range(n.bit_length() + 1):
        middle = np.minimum((low + high) // 2, discordant)
        rejects = score(n, middle, discordant - middle, margin) >= threshold - TIE
        high, low = np.where(rejects, middle, high), np.where(rejects, low, middle + 1)
    return high


def rejection_chances(region: Counts, shares: Floats, gain: float) -> Floats:
    """Return the rejection probability of the region for each share of discordant photos, (S,).

    Args:
        region: (n + 1,), n >= 1.
        shares: (S,) true shares of discordant photos, in [max(|gain|, tiny), 1].
        gain: true gain, in [-1, 1].

    Source: the binomial sum of Hsueh, Liu & Chen 2001, section 3. By the inequality of Bernstein
    1924, the numbers of discordant photos that are left out have a chance of at most TAIL.
    """
    n = len(region) - 1
    log_tail = math.log(2 / TAIL)
    half_width = np.sqrt(log_tail**2 / 9 + 2 * log_tail * n * shares * (1 - shares)) + log_tail / 3
    first = np.maximum(np.floor(n * shares - half_width), 0).astype(np.int64)  # (S,)
    last = np.minimum(np.ceil(n * shares + half_width), n).astype(np.int64)  # (S,)
    size = last - first + 1
    start = np.cumsum(size) - size
    row = np.repeat(np.arange(len(shares)), size)  # (sum of sizes,)
    discordant = np.arange(size.sum()) - (start - first)[row]
    won = np.clip((shares + gain) / (2 * shares), 0.0, 1.0)[row]
    terms = binom.pmf(discordant, n, shares[row]) * _at_least(region[discordant], discordant, won)
    return np.minimum(np.add.reduceat(terms, start), 1.0)


def largest_size(region: Counts, margin: float) -> float:
    """Return the largest rejection probability under gain = margin.

    The search tries shares that are denser towards both ends of [|margin|, 1], then refines around
    the highest. A gain below the margin has a smaller rejection probability, because the score
    grows with wins and falls with losses: see Hsueh, Liu & Chen 2001, theorem 1.
    """
    n = len(region) - 1
    ends = np.minimum(np.arange(N_END_NODES) * 0.5 / math.sqrt(n), math.pi)
    nodes = np.unique(np.concatenate([ends, np.linspace(0, math.pi, N_NODES), math.pi - ends]))
    sizes = _sizes_at(region, margin, nodes)
    for _ in range(ROUNDS):
        top = np.argsort(sizes)[-N_PEAKS:]
        left, right = nodes[np.maximum(top - 1, 0)], nodes[np.minimum(top + 1, len(nodes) - 1)]
        nodes = np.unique(np.concatenate([nodes[top], np.linspace(left, right, 9).ravel()]))
        sizes = _sizes_at(region, margin, nodes)
    return float(sizes.max())


def _sizes_at(region: Counts, margin: float, angles: Floats) -> Floats:
    """Return the rejection probabilities at shares |margin|..1, given as angles 0..pi.

    Equal steps of the angle are equal numbers of standard deviations of the share.
    """
    least = abs(margin)
    shares = np.minimum(least + (1 - least) * np.sin(angles / 2) ** 2, 1.0)
    return rejection_chances(region, shares, margin)


def _at_least(wins: Counts, discordant: Counts, won: Floats) -> Floats:
    """Return the chance of at least so many wins, where `won` is the chance to win a photo."""
    tail = betainc(np.maximum(wins, 1), np.maximum(discordant - wins + 1, 1), won)
    tail = np.where(wins > discordant, 0.0, tail)
    return np.asarray(np.where(wins <= 0, 1.0, tail), dtype=np.float64)
