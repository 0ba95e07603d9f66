"""What a model gains by saying "unsure": fewer wrong answers, at the price of fewer answers."""

import logging
import math

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import binom

from regraft.core.config import PredictConfig
from regraft.evaluation.evaluate.metrics import wilson
from regraft.model.classifier import UNSURE

ALL_ANSWERED = 0.0
NONE_ANSWERED = 1.0  # but for a photo whose probability is rounded to 1
LEVEL = 0.05  # chance that the share of wrong answers is not below the one that was asked for
LEAST_COVERAGE = 0.5  # guess: a model that is unsure of more than half of the photos helps nobody

logger = logging.getLogger("regraft.evaluate")


def coverage_table(confidence: NDArray[np.float64], correct: NDArray[np.bool_]) -> pd.DataFrame:
    """What would be answered, and how much of it wrongly, at each possible threshold.

    Args:
        confidence: (N,) probability of the predicted class, in [0, 1].
        correct: (N,) whether it was right.

    Returns:
        A row a distinct confidence, the highest first: threshold; coverage in (0, 1], the share of
        the photos with at least that confidence; risk in [0, 1], the share of these that is wrong;
        n, these photos.

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
    """How much can be answered if no more than a share of it may be wrong.

    Args:
        coverage: of coverage_table().
        risks: the shares, each in [0, 1].
        level: confidence of the interval, in (0, 1).

    Returns:
        A row a share: target, and of the lowest threshold that keeps it on these very photos
        threshold, coverage, n, risk with its interval low, high. Where none does, coverage and n
        are 0 and the rest is NaN.
    """
    rows = []
    for target in risks:
        kept = coverage[coverage.risk <= target].tail(1)
        n = int(kept.n.sum())
        risk = wilson(round(float((kept.risk * kept.n).sum())), n, level)
        threshold = float(kept.threshold.iloc[0]) if n else math.nan
        share = float(kept.coverage.sum())
        rows.append((target, threshold, share, n, risk.value, risk.low, risk.high))
    names = ("target", "threshold", "coverage", "n", "risk", "low", "high")
    return pd.DataFrame(rows, columns=list(names))


def abstain_below(predictions: pd.DataFrame, config: PredictConfig) -> float:
    """The least confidence of an answer; 0 = every photo is answered.

    It is config.abstain_below, or the lowest threshold for which it is shown on the validation
    photos, with LEVEL as the chance of error, that less than config.target_risk of the answers is
    wrong. The one-sided Clopper-Pearson bound of one threshold is exact, but the lowest of many
    that pass would pass by luck too often. So they are tried in a fixed order, the highest first,
    up to the first that fails. Where a higher confidence is never more often wrong, only one test
    can do harm, the first of a threshold that is too low, so the whole has its level. The binary
    search of Geifman & El-Yaniv pays for every step; this pays for none. The first test is of half
    of the photos: with fewer, one wrong label among the surest would end it all.

    The temperature and the head's penalty were chosen on the same photos, a handful of numbers; the
    report's curve is of the test photos, on which nothing was.

    Args:
        predictions: of an EvaluationReport.

    Returns:
        In [0, 1]; 1 if no threshold is shown to keep the risk: a warning says so.

    Source: Geifman & El-Yaniv 2017 (the task); Angelopoulos et al. 2021 (the order);
        Clopper & Pearson 1934 (the bound).
    """
    below = config.abstain_below
    if config.target_risk:
        validation = coverage_of(predictions[predictions.side == "validation"])
        below = _shown(validation, config.target_risk)
    if below:
        test = coverage_of(predictions[predictions.side == "test"])
        kept = test[test.threshold >= below].tail(1)
        logger.info(
            'abstain: "%s" below the confidence %.4g: %.1f %% of the test photos are answered, '
            "%.1f %% of these wrongly",
            *(UNSURE, below, 100 * kept.coverage.sum(), 100 * kept.risk.sum()),
        )
    return below


def coverage_of(predictions: pd.DataFrame) -> pd.DataFrame:
    """coverage_table() of these rows of an EvaluationReport's predictions."""
    right = (predictions.predicted == predictions.label).to_numpy(dtype=bool)
    return coverage_table(predictions.confidence.to_numpy(dtype=float), right)


def _shown(table: pd.DataFrame, risk: float) -> float:
    """The lowest threshold that is shown to keep the risk, by the order of abstain_below()."""
    n = int(table.n.max()) if len(table) else 0
    needed = math.floor(math.log(LEVEL) / math.log1p(-risk)) + 1  # photos, were none of them wrong
    tested = table[table.n >= max(needed, LEAST_COVERAGE * n)]
    n_wrong = np.rint(tested.risk * tested.n)
    shown = binom.cdf(n_wrong, tested.n, risk) < LEVEL  # as "the upper bound is below the risk"
    n_shown = int(np.logical_and.accumulate(shown).sum())
    if n_shown == 0:
        logger.warning(_nothing_shown(n, needed, tested, risk))
        return NONE_ANSWERED
    return ALL_ANSWERED if n_shown == len(tested) else float(tested.threshold.iloc[n_shown - 1])


def _nothing_shown(n: int, needed: int, tested: pd.DataFrame, risk: float) -> str:
    cause = (
        f"that takes {needed} photos at least"
        if tested.empty
        else f"of the surest {tested.n.iloc[0]}, {tested.risk.iloc[0]:.1%} are answered wrongly"
    )
    return (
        f'abstain: the model says "{UNSURE}" to every photo that it is not certain of: '
        f"{n} validation photos cannot show that less than {risk:.1%} of its answers is wrong; "
        f"{cause}. Add validation photos, raise predict.target_risk, or set predict.abstain_below."
    )
