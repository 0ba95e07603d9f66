"""Whether "90 % sure" is right nine times in ten, and the temperature that makes it so."""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from torch import Tensor

from regraft.model.embed import probabilities

TEMPERATURES = (0.05, 20.0)  # searched; an optimum at a bound is no optimum
MIN_PHOTOS = 20  # guess: one number fitted to fewer photos says more about them than about the rest


@dataclass(frozen=True)
class Answers:
    """Logits (N, K) of N photos and their true positions (N,) int64."""

    scores: Tensor
    codes: Tensor

    @property
    def predicted(self) -> Tensor:
        """(N,) positions of the highest logits."""
        return self.scores.argmax(dim=1)

    @property
    def correct(self) -> Tensor:
        """(N,) bool, whether that was right."""
        return self.predicted == self.codes


@dataclass(frozen=True)
class Calibration:
    """The temperature and what it does to the test photos; ece in [0, 1], nll in nats a photo."""

    temperature: float
    ece_before: float
    ece_after: float
    nll_before: float
    nll_after: float
    reliability: pd.DataFrame


def calibrate(validation: Answers, test: Answers, n_bins: int) -> Calibration:
    """The temperature fitted on validation, measured on test; the table is the one after it."""
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
    """Mean negative log-probability of the true class, nats a photo; NaN for no photo.

    Args:
        scores: (N, K) logits.
        codes: (N,) int64 true positions.
        temperature: divides the logits, > 0.
    """
    return float(torch.nn.functional.cross_entropy(scores.double() / temperature, codes))


def fit_temperature(scores: Tensor, codes: Tensor) -> float:
    """The temperature with the least NLL on the validation photos; 1 where none can be fitted.

    None can be fitted to fewer than MIN_PHOTOS photos, to a single class, to photos that are all
    judged rightly (sharper would always be better), or where the optimum lies at a bound.

    Args:
        scores: (N, K) logits of validation photos.
        codes: (N,) int64 true positions.

    Source: Guo et al. 2017, section 4.2.
    """
    too_few = len(codes) < MIN_PHOTOS or bool((codes == codes[0]).all())
    if too_few or bool((scores.argmax(dim=1) == codes).all()):
        return 1.0
    bounds = (math.log(TEMPERATURES[0]), math.log(TEMPERATURES[1]))
    found = minimize_scalar(
        lambda log_t: mean_nll(scores, codes, math.exp(log_t)), bounds=bounds, method="bounded"
    )
    margin = 0.01
    at_a_bound = not bounds[0] + margin < found.x < bounds[1] - margin
    return 1.0 if at_a_bound else math.exp(float(found.x))


def bins_of(confidence: NDArray[np.float64], n_bins: int) -> NDArray[np.int64]:
    """(N,) the bin (low, high] of each confidence in [0, 1], from 0 to n_bins - 1."""
    edges = np.linspace(0, 1, n_bins + 1)
    return np.clip(np.digitize(confidence, edges, right=True) - 1, 0, n_bins - 1)


def reliability_table(
    confidence: NDArray[np.float64], correct: NDArray[np.bool_], n_bins: int
) -> pd.DataFrame:
    """A row a bin (low, high]: n, mean confidence, accuracy; both NaN in an empty bin.

    Args:
        confidence: (N,) probability of the predicted class, in [0, 1].
        correct: (N,) whether it was right.
        n_bins: bins of equal width, >= 1.

    Source: Guo et al. 2017, section 2.
    """
    edges = np.linspace(0, 1, n_bins + 1)
    bins = bins_of(confidence, n_bins)
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
    """The expected calibration error in [0, 1]: mean |accuracy - confidence|, bins by their n.

    Source: Guo et al. 2017, eq. 3.
    """
    filled = reliability[reliability.n > 0]
    gap = (filled.accuracy - filled.confidence).abs()
    return float((gap * filled.n).sum() / filled.n.sum())


def _reliability(test: Answers, temperature: float, n_bins: int) -> pd.DataFrame:
    confidence = probabilities(test.scores, temperature).amax(dim=1)  # (N,)
    return reliability_table(confidence.numpy(), test.correct.numpy(), n_bins)
