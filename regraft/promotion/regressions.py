"""Regression checks: is a class, a slice or the calibration shown to be worse than before?"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from regraft.core.config import Config
from regraft.evaluation.evaluate.calibration import assign_bins
from regraft.evaluation.evaluate.metrics import slices_of
from regraft.promotion.guard import Guard, is_correct
from regraft.stats import Increase, gain_p_value, holm, paired_bootstrap

N_RESAMPLES = 2000  # at least. Source: Efron & Tibshirani 1993 recommend 1000 or more
SEED = 0  # of the bootstrap; a constant, so that a verdict is reproducible

Kind = Literal["recall", "slices", "calibration"]


@dataclass(frozen=True)
class Regression:
    """A possible regression in a part of the photos, and the evidence for it.

    part: a class, a slice, or "calibration". n: photos. loss: of accuracy, or the rise of the
    calibration error. p_value: of the hypothesis that the loss is at most the allowed one.
    """

    kind: Kind
    part: str
    n: int
    loss: float
    p_value: float


def regression_checks(compared: pd.DataFrame, config: Config) -> Iterator[Guard]:
    """Yield a guard each for the classes, the slices and the calibration.

    The p-values are corrected together by Holm's method: for a challenger without regressions the
    chance that any of the checks fails is at most config.promote.level. The p-values of classes and
    slices are exact. That of the calibration is from a bootstrap and slightly too small where the
    rise is exactly the allowed one.
    """
    regressions = [*_recall_regressions(compared, config), *_slice_regressions(compared, config)]
    regressions.append(_calibration_regression(compared, config, len(regressions) + 1))
    adjusted = holm([regression.p_value for regression in regressions])
    by_evidence = sorted(
        zip(regressions, adjusted, strict=True), key=lambda pair: (pair[1], -pair[0].loss)
    )
    limits: dict[Kind, float] = {
        "recall": config.promote.max_recall_drop,
        "slices": config.promote.max_slice_drop,
        "calibration": config.promote.max_calibration_rise,
    }
    for kind, limit in limits.items():
        of_kind = [(regression, p) for regression, p in by_evidence if regression.kind == kind]
        if of_kind:
            yield _guard(kind, limit, of_kind, config.promote.level, len(regressions))


def _recall_regressions(compared: pd.DataFrame, config: Config) -> Iterator[Regression]:
    margin = config.promote.max_recall_drop
    for label, group in compared.groupby("label", sort=True):
        yield _accuracy_regression("recall", str(label), group, margin)


def _slice_regressions(compared: pd.DataFrame, config: Config) -> Iterator[Regression]:
    margin = config.promote.max_slice_drop
    for column, value, inside in slices_of(compared, config.evaluate.max_slice_values):
        yield _accuracy_regression("slices", f"{column} {value}", compared[inside], margin)


def _accuracy_regression(kind: Kind, part: str, group: pd.DataFrame, margin: float) -> Regression:
    new, old = is_correct(group, "challenger"), is_correct(group, "champion")  # (N,), (N,)
    n, b, c = len(group), int((new & ~old).sum()), int((old & ~new).sum())
    return Regression(kind, part, n, (c - b) / n, gain_p_value(n, c, b, margin))


def _calibration_regression(compared: pd.DataFrame, config: Config, n_tests: int) -> Regression:
    # The smallest possible p-value is 1 / n_resamples. It must stay below the level when corrected.
    n_resamples = max(N_RESAMPLES, math.ceil(2 * n_tests / config.promote.level))
    rise = calibration_rise(compared, config, n_resamples)
    return Regression("calibration", "calibration", len(compared), rise.value, rise.p_value)


def calibration_rise(compared: pd.DataFrame, config: Config, n_resamples: int) -> Increase:
    """Return the rise of the expected calibration error, by bootstrap over the photos.

    The expected error of a perfectly calibrated model is subtracted in each bin. With few photos a
    bin the plain error is mostly this sampling error, and it is larger for a less confident model:
    without the correction a calibrated model is called worse in most draws of 250 photos
    (simulated).

    Source: Guo et al. 2017, eq. 3; the mean absolute value of a normal variable is sqrt(2 / pi)
    standard deviations.
    """
    n_bins = config.evaluate.n_bins
    new = _CalibrationGaps.of(compared, "challenger", n_bins)
    old = _CalibrationGaps.of(compared, "champion", n_bins)

    def difference(at: NDArray[np.int64]) -> float:
        return new.error(at) - old.error(at)

    margin = config.promote.max_calibration_rise
    return paired_bootstrap(len(compared), difference, margin, SEED, n_resamples)


@dataclass(frozen=True)
class _CalibrationGaps:
    """(N,) each photo's confidence bin, its correctness minus the confidence, and the variance."""

    bins: NDArray[np.int64]
    gaps: NDArray[np.float64]
    variances: NDArray[np.float64]
    n_bins: int

    @staticmethod
    def of(
        compared: pd.DataFrame, who: Literal["challenger", "champion"], n_bins: int
    ) -> "_CalibrationGaps":
        confidence = compared[f"{who}_confidence"].to_numpy(float)  # (N,)
        bins = assign_bins(confidence, n_bins)  # (N,)
        gaps = is_correct(compared, who) - confidence  # (N,)
        return _CalibrationGaps(bins, gaps, confidence * (1 - confidence), n_bins)

    def error(self, at: NDArray[np.int64]) -> float:
        """Return the corrected calibration error of the photos at these positions, in [-1, 1]."""
        bins = self.bins[at]
        observed = np.abs(np.bincount(bins, self.gaps[at], self.n_bins))  # (n_bins,)
        variance = np.bincount(bins, self.variances[at], self.n_bins)  # (n_bins,)
        expected = np.sqrt(2 / np.pi * variance)
        return float((observed - expected).sum() / len(at))


def _guard(
    kind: Kind, limit: float, tested: list[tuple[Regression, float]], level: float, n_tests: int
) -> Guard:
    """Return the guard of a kind: the strongest evidence decides, all failed parts are named.

    Args:
        kind: of all regressions in tested.
        limit: the allowed loss.
        tested: (regression, corrected p-value), the smallest p-value first.
        level: the significance level.
        n_tests: of all kinds, for the message.
    """
    failed = [regression for regression, p in tested if p <= level]
    worst, p = tested[0]
    if kind == "calibration":
        change = f"calibration error {worst.loss:+.1%} against the champion's (p = {p:.2g})"
        message = change if failed else f"not shown to be worse by more than {limit:.1%}: {change}"
    else:
        parts = ", ".join(
            f"{regression.part} ({0.0 - regression.loss:+.1%} on {regression.n})"
            for regression in failed or [worst]
        )
        change = f"{parts} (p = {p:.2g} for the first, corrected for {n_tests} tests)"
        message = f"worse: {change}" if failed else f"none shown to be worse; nearest: {change}"
        if not limit and not failed:  # p of n losses without a gain is 0.5 ** n
            n_needed = math.ceil(math.log2(n_tests / level))
            message += f"; {n_needed} photos lost and none gained would show a loss"
    return Guard(kind, "failed" if failed else "passed", worst.loss, limit, message)
