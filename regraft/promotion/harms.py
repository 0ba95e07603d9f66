"""What may have got worse, and the evidence that it has: classes, slices, calibration."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from regraft.core.config import Config
from regraft.evaluation.evaluate.calibration import bins_of
from regraft.evaluation.evaluate.metrics import slices_of
from regraft.promotion.guard import Guard, right
from regraft.stats import Rise, gain_p_value, holm, paired_bootstrap

N_RESAMPLES = 2000  # at least. Source: Efron & Tibshirani 1993 advise 1000 and more for intervals
SEED = 0  # of the bootstrap; a constant, so that a verdict can be made again


@dataclass(frozen=True)
class Harm:
    """A part of the photos that may have got worse, and the evidence that it has.

    kind: "recall", "slices" or "calibration". p_value: of no loss beyond what is allowed.
    """

    kind: str
    part: str
    n: int
    loss: float
    p_value: float


def harms(compared: pd.DataFrame, config: Config) -> Iterator[Guard]:
    """Whether a class, a slice or the calibration is shown to have got worse.

    All of them together stop a challenger that harms nothing with a chance of config.promote.level:
    their p-values are corrected by Holm's method. Those of classes and slices are exact; that of
    the calibration is a bootstrap's, a little bolder where the rise is just what is allowed.
    """
    found = [*_recalls(compared, config), *_slices(compared, config)]
    found.append(_calibration(compared, config, len(found) + 1))
    adjusted = holm([harm.p_value for harm in found])
    judged = sorted(zip(found, adjusted, strict=True), key=lambda pair: (pair[1], -pair[0].loss))
    limits = {
        "recall": config.promote.max_recall_drop,
        "slices": config.promote.max_slice_drop,
        "calibration": config.promote.max_calibration_rise,
    }
    for kind, limit in limits.items():
        ours = [(harm, p) for harm, p in judged if harm.kind == kind]
        if ours:
            yield _worst(kind, limit, ours, config.promote.level, len(found))


def _recalls(compared: pd.DataFrame, config: Config) -> Iterator[Harm]:
    margin = config.promote.max_recall_drop
    for label, group in compared.groupby("label", sort=True):
        yield _harm("recall", str(label), group, margin)


def _slices(compared: pd.DataFrame, config: Config) -> Iterator[Harm]:
    margin = config.promote.max_slice_drop
    for column, value, inside in slices_of(compared, config.evaluate.max_slice_values):
        yield _harm("slices", f"{column} {value}", compared[inside], margin)


def _harm(kind: str, part: str, group: pd.DataFrame, margin: float) -> Harm:
    new, old = right(group, "challenger"), right(group, "champion")
    n, b, c = len(group), int((new & ~old).sum()), int((old & ~new).sum())
    return Harm(kind, part, n, (c - b) / n, gain_p_value(n, c, b, margin))


def _calibration(compared: pd.DataFrame, config: Config, n_tests: int) -> Harm:
    # The least p-value is one part of the samples: corrected, it has to stay below the level.
    n_resamples = max(N_RESAMPLES, math.ceil(2 * n_tests / config.promote.level))
    rise = calibration_rise(compared, config, n_resamples)
    return Harm("calibration", "calibration", len(compared), rise.rise, rise.p_value)


def calibration_rise(compared: pd.DataFrame, config: Config, n_resamples: int) -> Rise:
    """By how much the expected calibration error grew, by resampling the photos.

    From each bin what a calibrated model of that confidence would show by luck is taken off. With
    few photos a bin the plain error is mostly that luck, and more of it where a model is less sure:
    it called a calibrated model worse in most draws of 250 photos (simulated).

    Source: Guo et al. 2017, eq. 3; the mean of a normal variable's size is sqrt(2 / pi) deviations.
    """
    n_bins = config.evaluate.n_bins
    misses = {who: _Misses.of(compared, who, n_bins) for who in ("challenger", "champion")}

    def difference(at: NDArray[np.int64]) -> float:
        return misses["challenger"].error(at) - misses["champion"].error(at)

    margin = config.promote.max_calibration_rise
    return paired_bootstrap(len(compared), difference, margin, SEED, n_resamples)


@dataclass(frozen=True)
class _Misses:
    """Of each photo: its bin, right or not less the confidence, and that difference's variance."""

    bins: NDArray[np.int64]
    gaps: NDArray[np.float64]
    variances: NDArray[np.float64]
    n_bins: int

    @staticmethod
    def of(
        compared: pd.DataFrame, who: Literal["challenger", "champion"], n_bins: int
    ) -> "_Misses":
        sure = compared[f"{who}_confidence"].to_numpy(float)
        bins, gaps = bins_of(sure, n_bins), right(compared, who) - sure
        return _Misses(bins, gaps, sure * (1 - sure), n_bins)

    def error(self, at: NDArray[np.int64]) -> float:
        """Of the photos at these positions, in [-1, 1]."""
        bins = self.bins[at]
        seen = np.abs(np.bincount(bins, self.gaps[at], self.n_bins))
        luck = np.sqrt(2 / np.pi * np.bincount(bins, self.variances[at], self.n_bins))
        return float((seen - luck).sum() / len(at))


def _worst(
    kind: str, limit: float, judged: list[tuple[Harm, float]], level: float, n_tests: int
) -> Guard:
    """The part with the strongest evidence speaks for all; those that fail are all named."""
    failed = [harm for harm, p in judged if p <= level]
    harm, p = judged[0]
    if kind == "calibration":
        told = f"calibration error {harm.loss:+.1%} against the champion's (p = {p:.2g})"
        said = told if failed else f"not shown to be worse by more than {limit:.1%}: {told}"
    else:
        named = ", ".join(
            f"{one.part} ({0.0 - one.loss:+.1%} on {one.n})" for one in failed or [harm]
        )
        told = f"{named} (p = {p:.2g} for the first, corrected for {n_tests} tests)"
        said = f"worse: {told}" if failed else f"none shown to be worse; nearest: {told}"
        if not limit and not failed:  # half of a half of a half: coin flips that all fall alike
            n_shown = math.ceil(math.log2(n_tests / level))
            said += f"; {n_shown} photos lost and none gained would show it"
    return Guard(kind, "failed" if failed else "passed", harm.loss, limit, said)
