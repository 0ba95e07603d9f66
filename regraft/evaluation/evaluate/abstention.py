"""Abstention: below a threshold of confidence the model predicts "unsure" instead of a class."""

import logging
import math

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import binom

from regraft.core.config import PredictConfig
from regraft.core.intervals import wilson_interval
from regraft.model.card import UNSURE

ALL_ANSWERED = 0.0
NONE_ANSWERED = 1.0  # except for a photo whose probability is rounded to 1
LEVEL = 0.05  # chance that the share of wrong answers is not below the target
LEAST_COVERAGE = 0.5  # guess: a model that is unsure of more than half of the photos is useless

logger = logging.getLogger("regraft.evaluate")


def coverage_table(confidence: NDArray[np.float64], correct: NDArray[np.bool_]) -> pd.DataFrame:
    """Return the share of answered photos and the share of wrong answers at each threshold.

    Args:
        confidence: (N,) probability of the predicted class, in [0, 1].
        correct: (N,) whether it is correct.

    Returns:
        A row a distinct confidence, the highest first: threshold; coverage in (0, 1], the share of
        photos with at least this confidence; n, their number; risk in [0, 1], the share of them
        that is wrong.

    Source: Geifman & El-Yaniv 2017, section 2 (coverage and selective risk).

    >>> table = coverage_table(np.array([0.9, 0.6, 0.9]), np.array([True, False, True]))
    >>> table.risk.round(2).tolist()
    [0.0, 0.33]
    """
    order = np.argsort(-confidence, kind="stable")
    threshold, n_wrong = confidence[order], np.cumsum(~correct[order])  # (N,)
    is_last = np.append(threshold[1:] != threshold[:-1], np.ones(min(len(order), 1), dtype=bool))
    n = np.arange(1, len(order) + 1)[is_last]
    return pd.DataFrame(
        {
            "threshold": threshold[is_last],
            "coverage": n / max(len(order), 1),
            "risk": n_wrong[is_last] / n,
            "n": n,
        }
    )


def coverage_at(coverage: pd.DataFrame, risks: tuple[float, ...], level: float) -> pd.DataFrame:
    """Return the largest coverage for each maximal share of wrong answers.

    Args:
        coverage: from coverage_table().
        risks: the maximal shares of wrong answers, each in [0, 1].
        level: confidence of the interval, in (0, 1).

    Returns:
        A row a share: target, and for the lowest threshold with a risk <= target on these photos:
        threshold, coverage, n, risk with its interval low, high. Without such a threshold, coverage
        and n are 0 and the other columns NaN.
    """
    rows = []
    for target in risks:
        lowest = coverage[coverage.risk <= target].tail(1)  # a row, or none
        n = int(lowest.n.sum())
        risk = wilson_interval(round(float((lowest.risk * lowest.n).sum())), n, level)
        threshold = float(lowest.threshold.iloc[0]) if n else math.nan
        share = float(lowest.coverage.sum())
        rows.append((target, threshold, share, n, risk.value, risk.low, risk.high))
    names = ("target", "threshold", "coverage", "n", "risk", "low", "high")
    return pd.DataFrame(rows, columns=list(names))


def abstain_below(predictions: pd.DataFrame, config: PredictConfig) -> float:
    """Return the smallest confidence of an answer, in [0, 1]; 0 = every photo is answered.

    It is config.abstain_below, or the lowest threshold that is shown on the validation photos, at
    level LEVEL, to have a share of wrong answers below config.target_risk.

    The one-sided Clopper-Pearson bound is exact for a single threshold, but the lowest of many
    thresholds would pass by luck too often. So they are tested in a fixed order, the highest first,
    up to the first that fails. If a higher confidence is never more often wrong, only the first
    threshold that is too low can pass wrongly, so the procedure keeps its level. The binary search
    of Geifman & El-Yaniv needs a correction for every step, this order needs none. The first test
    uses half of the photos: with fewer, a single wrong label among the most confident photos would
    end the search.

    The temperature and the head's penalty were fitted to the same photos, but these are only a few
    numbers. The curve in the report is of the test photos, on which nothing was fitted.

    Args:
        predictions: of an EvaluationReport.

    Returns:
        1 if no threshold is shown to keep the risk; then a warning is logged.

    Source: Geifman & El-Yaniv 2017 (the task); Angelopoulos et al. 2021 (the order);
        Clopper & Pearson 1934 (the bound).
    """
    below = config.abstain_below
    if config.target_risk:
        validation = coverage_of(predictions[predictions.split == "validation"])
        below = _lowest_shown(validation, config.target_risk)
    if below:
        test = coverage_of(predictions[predictions.split == "test"])
        answered = test[test.threshold >= below].tail(1)
        logger.info(
            'abstain: "%s" below the confidence %.4g: %.1f %% of the test photos are answered, '
            "%.1f %% of these wrongly",
            UNSURE,
            below,
            100 * answered.coverage.sum(),
            100 * answered.risk.sum(),
        )
    return below


def coverage_of(predictions: pd.DataFrame) -> pd.DataFrame:
    """Return the coverage_table() of rows of an EvaluationReport's predictions."""
    correct = (predictions.predicted == predictions.label).to_numpy(dtype=bool)
    return coverage_table(predictions.confidence.to_numpy(dtype=float), correct)


def _lowest_shown(table: pd.DataFrame, risk: float) -> float:
    """Return the lowest threshold that is shown to keep the risk, see abstain_below()."""
    n = int(table.n.max()) if len(table) else 0
    needed = math.floor(math.log(LEVEL) / math.log1p(-risk)) + 1  # photos, if none of them is wrong
    tested = table[table.n >= max(needed, LEAST_COVERAGE * n)]
    n_wrong = np.rint(tested.risk * tested.n)
    shown = binom.cdf(n_wrong, tested.n, risk) < LEVEL  # the upper bound is below the risk
    n_shown = int(np.logical_and.accumulate(shown).sum())
    if n_shown == 0:
        logger.warning(_nothing_shown(n, needed, tested, risk))
        return NONE_ANSWERED
    return ALL_ANSWERED if n_shown == len(tested) else float(tested.threshold.iloc[n_shown - 1])


def _nothing_shown(n: int, needed: int, tested: pd.DataFrame, risk: float) -> str:
    cause = (
        f"at least {needed} photos are needed"
        if tested.empty
        else f"of the {tested.n.iloc[0]} most confident, {tested.risk.iloc[0]:.1%} are wrong"
    )
    return (
        f'abstain: the model predicts "{UNSURE}" for every photo without full confidence: '
        f"{n} validation photos do not show that less than {risk:.1%} of its answers are wrong; "
        f"{cause}. Add validation photos, raise predict.target_risk, or set predict.abstain_below."
    )
