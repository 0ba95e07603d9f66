"""Calibration of the confidence by a temperature, and the calibration error."""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from torch import Tensor

from regraft.model.embed import probabilities

TEMPERATURES = (0.05, 20.0)  # bounds of the search; a minimum at a bound is rejected
MIN_PHOTOS = 20  # guess: a number fitted to fewer photos overfits them


@dataclass(frozen=True)
class LabelledLogits:
    """Logits (N, K) of N photos and their true positions (N,) int64."""

    scores: Tensor
    codes: Tensor

    @property
    def predicted(self) -> Tensor:
        """Positions of the highest logits, (N,)."""
        return self.scores.argmax(dim=1)

    @property
    def correct(self) -> Tensor:
        """Whether the prediction is correct, (N,) bool."""
        return self.predicted == self.codes


@dataclass(frozen=True)
class Calibration:
    """The temperature and its effect on the test photos; ece in [0, 1], nll in nats a photo."""

    temperature: float
    ece_before: float
    ece_after: float
    nll_before: float
    nll_after: float
    reliability: pd.DataFrame


def calibrate(validation: LabelledLogits, test: LabelledLogits, n_bins: int) -> Calibration:
    """Return the temperature fitted on validation, and its effect on test.

    The reliability table is the one after the temperature.
    """
    temperature = fit_temperature(validation.scores, validation.codes)
    before, after = (_reliability(test, t, n_bins) for t in (1.0, temperature))
    return Calibration(
        temperature=temperature,
        ece_before=calibration_error(before),
        ece_after=calibration_error(after),
        nll_before=mean_nll(test.scores, test.codes, 1.0),
        nll_after=mean_nll(test.scores, test.codes, temperature),
        reliability=after,
    )


def mean_nll(scores: Tensor, codes: Tensor, temperature: float) -> float:
    """Return the mean negative log-probability of the true class, in nats; NaN without photos.

    Args:
        scores: (N, K) logits.
        codes: (N,) int64 true positions.
        temperature: divides the logits, > 0.
    """
    return float(torch.nn.functional.cross_entropy(scores.double() / temperature, codes))


def fit_temperature(scores: Tensor, codes: Tensor) -> float:
    """Return the temperature with the smallest NLL on the validation photos; 1 if none is fitted.

    None is fitted to fewer than MIN_PHOTOS photos, to a single class, to photos whose predictions
    are all correct (a lower temperature would always be better), or if the minimum is at a bound.

    Args:
        scores: (N, K) logits of validation photos.
        codes: (N,) int64 true positions.

    Source: Guo et al. 2017, section 4.2.
    """
    too_few = len(codes) < MIN_PHOTOS or bool((codes == codes[0]).all())
    if too_few or bool((scores.argmax(dim=1) == codes).all()):
        return 1.0
    bounds = (math.log(TEMPERATURES[0]), math.log(TEMPERATURES[1]))
    minimum = minimize_scalar(
        lambda log_t: mean_nll(scores, codes, math.exp(log_t)), bounds=bounds, method="bounded"
    )
    margin = 0.01
    at_a_bound = not bounds[0] + margin < minimum.x < bounds[1] - margin
    return 1.0 if at_a_bound else math.exp(float(minimum.x))


def assign_bins(confidence: NDArray[np.float64], n_bins: int) -> NDArray[np.int64]:
    """Return the bin (low, high] of each confidence in [0, 1], (N,), from 0 to n_bins - 1."""
    edges = np.linspace(0, 1, n_bins + 1)
    return np.clip(np.digitize(confidence, edges, right=True) - 1, 0, n_bins - 1)


def reliability_table(
    confidence: NDArray[np.float64], correct: NDArray[np.bool_], n_bins: int
) -> pd.DataFrame:
    """Return a row a bin: low, high, n, mean confidence, accuracy.

    A bin is (low, high]. In an empty bin, confidence and accuracy are NaN.

    Args:
        confidence: (N,) probability of the predicted class, in [0, 1].
        correct: (N,) whether it is correct.
        n_bins: bins of equal width, >= 1.

    Source: Guo et al. 2017, section 2.
    """
    edges = np.linspace(0, 1, n_bins + 1)
    bins = assign_bins(confidence, n_bins)
    photos = pd.DataFrame({"bin": bins, "confidence": confidence, "correct": correct})
    table = photos.groupby("bin").agg(
        n=("correct", "size"), confidence=("confidence", "mean"), accuracy=("correct", "mean")
    )
    table = table.reindex(range(n_bins)).reset_index(drop=True)
    table["n"] = table.n.fillna(0).astype(int)
    table.insert(0, "low", edges[:-1])
    table.insert(1, "high", edges[1:])
    return table


def calibration_error(reliability: pd.DataFrame) -> float:
    """Return the expected calibration error in [0, 1].

    It is the mean of |accuracy - confidence| over the bins, weighted by their n.

    Source: Guo et al. 2017, eq. 3.
    """
    filled = reliability[reliability.n > 0]
    gap = (filled.accuracy - filled.confidence).abs()
    return float((gap * filled.n).sum() / filled.n.sum())


def _reliability(test: LabelledLogits, temperature: float, n_bins: int) -> pd.DataFrame:
    confidence = probabilities(test.scores, temperature).amax(dim=1)  # (N,)
    return reliability_table(confidence.numpy(), test.correct.numpy(), n_bins)
