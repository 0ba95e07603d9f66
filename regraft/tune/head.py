"""The head, solved: softmax regression on embeddings, its penalty chosen on validation."""

import warnings
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, log_loss
from threadpoolctl import threadpool_limits

from regraft.config import TuneConfig
from regraft.tune.challenger import EpochRecord

MAX_ITERATIONS = 1000  # L-BFGS steps; on standardised embeddings it needs 20-200 (measured)
SMALLEST_SPREAD = 1e-6  # an embedding dimension that never varies is not divided by zero


@dataclass(frozen=True)
class Embedded:
    """Embeddings (N, D) and class positions (N,) in [0, K)."""

    x: NDArray[np.float64]
    y: NDArray[np.int64]


@dataclass(frozen=True)
class SolvedHead:
    """weight (K, D) and bias (K,) of a linear layer on raw embeddings, and the candidates tried."""

    weight: NDArray[np.float64]
    bias: NDArray[np.float64]
    best: EpochRecord
    candidates: tuple[EpochRecord, ...]


def solve_head(
    train: Embedded, validation: Embedded, n_classes: int, config: TuneConfig
) -> SolvedHead:
    """The penalised maximum-likelihood head, by L-BFGS to convergence: no seed, no learning rate.

    Embeddings are standardised inside and the scale is folded back into weight and bias. Of the
    penalties config.head_l2 the one with the lowest validation loss is kept, the larger on a tie.

    Args:
        train: every class has at least one photo.
        validation: used to choose the penalty only.

    Source: Kornblith et al. 2019 (L-BFGS softmax regression on frozen embeddings), app. A.
    """
    mean, spread = train.x.mean(0), np.maximum(train.x.std(0), SMALLEST_SPREAD)
    scaled = [Embedded((part.x - mean) / spread, part.y) for part in (train, validation)]
    solver = LogisticRegression(
        class_weight="balanced" if config.class_weights == "balanced" else None,
        max_iter=MAX_ITERATIONS,
        warm_start=True,
    )
    solved: list[SolvedHead] = []
    for l2 in sorted(config.head_l2, reverse=True):
        solver.set_params(C=1 / (l2 * len(train.y)))
        _fit(solver, scaled[0])
        record = _record(solver, scaled[0], scaled[1], (len(solved) + 1, l2))
        weight, bias = _rows(solver, n_classes)
        solved.append(SolvedHead(weight / spread, bias - (weight / spread) @ mean, record, ()))
    best = min(solved, key=lambda head: head.best.validation_loss)
    return SolvedHead(best.weight, best.bias, best.best, tuple(head.best for head in solved))


def _fit(solver: LogisticRegression, train: Embedded) -> None:
    # One thread: six times as fast on a few hundred photos (measured), and the same sum everywhere.
    with warnings.catch_warnings(), threadpool_limits(1):
        # A weak penalty on separable classes may want more steps: validation then judges it as is.
        warnings.simplefilter("ignore", ConvergenceWarning)
        solver.fit(train.x, train.y)


def _record(
    solver: LogisticRegression, train: Embedded, validation: Embedded, candidate: tuple[int, float]
) -> EpochRecord:
    loss, accuracy = _score(solver, train)
    validation_loss, validation_accuracy = _score(solver, validation)
    number, l2 = candidate
    return EpochRecord(
        "head", number, loss, accuracy, validation_loss, validation_accuracy, 0.0, l2, 0.0
    )


def _score(solver: LogisticRegression, part: Embedded) -> tuple[float, float]:
    probs = solver.predict_proba(part.x)  # (N, K)
    loss = float(log_loss(part.y, probs, labels=solver.classes_))
    return loss, float(accuracy_score(part.y, solver.classes_[probs.argmax(1)]))


def _rows(
    solver: LogisticRegression, n_classes: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(K, D) and (K,); for two classes the solver keeps one row, softmax([0, z]) = sigmoid(z)."""
    weight, bias = solver.coef_, solver.intercept_
    if n_classes == 2:
        return np.vstack([0 * weight, weight]), np.array([0.0, bias[0]])
    return weight.copy(), bias.copy()


def state_of(head: SolvedHead) -> dict[str, Any]:
    """The head as tensors and plain values, for a checkpoint."""
    return {
        "weight": torch.from_numpy(head.weight),
        "bias": torch.from_numpy(head.bias),
        "best": asdict(head.best),
        "candidates": [asdict(candidate) for candidate in head.candidates],
    }


def head_of(state: dict[str, Any]) -> SolvedHead:
    """The head that state_of() was given."""
    candidates = tuple(EpochRecord(**candidate) for candidate in state["candidates"])
    weight, bias = state["weight"].numpy(), state["bias"].numpy()
    return SolvedHead(weight, bias, EpochRecord(**state["best"]), candidates)
