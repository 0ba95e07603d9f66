"""A paired bootstrap for a number that is measured on all photos together."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from regraft.stats.interval import CONFIDENCE

Positions = NDArray[np.int64]  # (N,) of photos, drawn with replacement


@dataclass(frozen=True)
class Increase:
    """The increase of a number from an old model to a new model.

    Attributes:
        value: as observed.
        low, high: its 95 % interval.
        p_value: of the hypothesis that the increase is at most the margin, in (0, 1].
    """

    value: float
    low: float
    high: float
    p_value: float


def paired_bootstrap(
    n: int,
    difference: Callable[[Positions], float],
    margin: float,
    seed: int,
    n_resamples: int = 2000,
) -> Increase:
    """Return the increase of a number, and the p-value that it is at most the margin.

    A resample deviates from the observed sample as the observed sample deviated from the truth. So
    the deviation is subtracted from the observed increase, not added (the "basic" bootstrap). The
    p-value is the share of resamples for which the rest is at most the margin; the observed sample
    counts as one of them.

    The basic bootstrap matters for a number that is biased upwards on few photos, such as the
    calibration error: resampling adds the same bias again. The plain share of resamples with an
    increase <= margin reported an increase above 0.05 in nine of ten sets of 250 photos without any
    increase, only because the new model, equally well calibrated, was less often certain.

    A bias remains if the number is biased more for the new model than for the old. With the
    calibration error of 15 bins it caused false alarms in 14 of 100 sets of 100 photos and in 2 of
    100 sets of 250. It vanishes if `difference` subtracts the number of a perfectly calibrated
    model on the same photos. With a true increase of exactly the margin, 8 to 12 of 100 tests
    rejected at the level 0.05, on 40 to 1000 photos: a bootstrap is slightly anticonservative. On a
    handful of photos it shows nothing reliable.

    Args:
        n: photos, >= 0. For fewer than two all is NaN and the p-value 1: the variance is unknown.
        difference: new minus old, measured on the photos at the positions (N,), each in [0, n). A
            resample where it is NaN counts against an increase, and the interval becomes NaN.
        margin: of the increase, in its unit.
        seed: of the resamples, >= 0.
        n_resamples: >= 200; the smallest p-value is 1 / (n_resamples + 1).

    Source: Davison & Hinkley 1997, sections 4.4 and 5.2 (eq. 5.6). A test compares it with
    scipy.stats.bootstrap(method="basic"), which draws all resamples at once and warns of NaN.
    """
    if n < 2:
        return Increase(math.nan, math.nan, math.nan, 1.0)
    generator = np.random.default_rng(seed)
    increase = float(difference(np.arange(n)))
    basic = np.array(  # a resample at a time: all at once would be n * n_resamples numbers
        [2 * increase - difference(generator.integers(0, n, size=n)) for _ in range(n_resamples)]
    )
    low, high = np.quantile(basic, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    not_shown = n_resamples - int(np.sum(basic > margin))
    return Increase(increase, float(low), float(high), (1 + not_shown) / (1 + n_resamples))
