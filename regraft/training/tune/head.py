"""The head, solved: softmax regression on embeddings, its penalty chosen on validation."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import log_softmax
from threadpoolctl import threadpool_limits

from regraft.core.config import TuneConfig
from regraft.model.embed import Rows
from regraft.training.tune.challenger import EpochRecord

MAX_ITERATIONS = 1000  # L-BFGS steps; on standardised embeddings it needs 20-200 (measured)
SLOPE = 1e-5  # of the mean loss, at which L-BFGS stops. Source: a tenth of scikit-learn's default
SMALLEST_SPREAD = 1e-6  # an embedding dimension that never varies is not divided by zero
CHUNK = 4096  # photos standardised at once: 21 MB of 1280 numbers
HELD_BYTES = 1e9  # of embeddings as they are kept: 390 000 photos of 1280 numbers in bf16. Guess

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Embedded:
    """Embeddings (N, D) and class positions (N,) in [0, K)."""

    rows: Rows
    y: NDArray[np.int64]


@dataclass(frozen=True)
class SolvedHead:
    """weight (K, D) and bias (K,) of a linear layer on raw embeddings, and the candidates tried."""

    weight: Floats
    bias: Floats
    best: EpochRecord
    candidates: tuple[EpochRecord, ...]


@dataclass(frozen=True)
class _Standardised:
    """Embeddings on the scale of train, (n, D) at a time; held where all fit into one chunk."""

    source: Rows
    mean: Floats
    spread: Floats
    held: Floats | None

    def chunks(self) -> Iterator[Floats]:
        if self.held is not None:
            yield self.held
            return
        mean, spread = self.mean.astype(np.float32), self.spread.astype(np.float32)
        for chunk in self.source.chunks(CHUNK):
            yield (chunk.float().numpy() - mean) / spread


@dataclass(frozen=True)
class _Problem:
    """Mean weighted negative log-likelihood + l2 / 2 |weight|^2, and its slope."""

    x: _Standardised
    y: NDArray[np.int64]
    photo_weights: Floats
    n_classes: int

    def __call__(self, flat: Floats, l2: float) -> tuple[float, Floats]:
        matrix = flat.reshape(self.n_classes, -1)  # (K, D + 1), the bias last
        loss, slope, at = 0.0, np.zeros_like(matrix), 0
        for x in self.x.chunks():
            y, weights = self.y[at : at + len(x)], self.photo_weights[at : at + len(x)]
            logs = log_softmax(_scores(x, matrix), axis=1)  # (n, K)
            loss -= float(weights @ logs[np.arange(len(x)), y])
            errors = np.exp(logs)
            errors[np.arange(len(x)), y] -= 1
            errors *= weights[:, None]
            slope[:, :-1] += errors.T.astype(x.dtype) @ x
            slope[:, -1] += errors.sum(0)
            at += len(x)
        slope[:, :-1] += l2 * matrix[:, :-1]
        return loss + l2 / 2 * float((matrix[:, :-1] ** 2).sum()), slope.ravel()


def solve_head(
    train: Embedded, validation: Embedded, n_classes: int, config: TuneConfig
) -> SolvedHead:
    """The penalised maximum-likelihood head, by L-BFGS to convergence: no seed, no learning rate.

    Embeddings are standardised inside and the scale is folded back into weight and bias. Of the
    penalties config.head_l2 the one with the lowest validation loss is kept, the larger on a tie.
    Embeddings of up to HELD_BYTES are in memory as they are kept, CHUNK of them standardised.

    Args:
        train: every class has at least one photo.
        validation: used to choose the penalty only.

    Source: Kornblith et al. 2019 (L-BFGS softmax regression on frozen embeddings), app. A.
    """
    x, judged = _standardised(train.rows, validation.rows)
    mean, spread = x.mean, x.spread
    problem = _Problem(x, train.y, _photo_weights(train.y, n_classes, config), n_classes)
    found = np.zeros(n_classes * (len(mean) + 1))
    solved: list[SolvedHead] = []
    # One thread: six times as fast on a few hundred photos (measured), and the same sum everywhere.
    with threadpool_limits(1):
        for l2 in sorted(config.head_l2, reverse=True):
            # A weak penalty on separable classes may want more steps: validation judges it as is.
            options = {"maxiter": MAX_ITERATIONS, "gtol": SLOPE, "ftol": 0.0}
            found = minimize(problem, found, l2, "L-BFGS-B", jac=True, options=options).x
            matrix = found.reshape(n_classes, -1)
            losses = [_score(x, train.y, matrix), _score(judged, validation.y, matrix)]
            record = EpochRecord("head", len(solved) + 1, *losses[0], *losses[1], 0.0, l2, 0.0)
            weight = matrix[:, :-1] / spread
            solved.append(SolvedHead(weight, matrix[:, -1] - weight @ mean, record, ()))
    best = min(solved, key=lambda head: head.best.validation_loss)
    return SolvedHead(best.weight, best.bias, best.best, tuple(head.best for head in solved))


def _standardised(train: Rows, validation: Rows) -> tuple[_Standardised, _Standardised]:
    """Both sides on the scale of train: mean 0 and spread 1 in each dimension."""
    sums = [chunk.double().sum(0).numpy() for chunk in train.chunks(CHUNK)]
    mean = np.sum(sums, axis=0) / len(train)
    squares = [np.square(c.double().numpy() - mean).sum(0) for c in train.chunks(CHUNK)]
    spread = np.maximum(np.sqrt(np.sum(squares, axis=0) / len(train)), SMALLEST_SPREAD)
    return _on_scale(train, mean, spread), _on_scale(validation, mean, spread)


def _on_scale(rows: Rows, mean: Floats, spread: Floats) -> _Standardised:
    if rows.n_bytes <= HELD_BYTES:
        rows = Rows.of(rows.all())  # gathered once: each step of L-BFGS reads all of them
    fits = len(rows) <= CHUNK
    held = (rows.all().double().numpy() - mean) / spread if fits else None
    return _Standardised(rows, mean, spread, held)


def _photo_weights(y: NDArray[np.int64], n_classes: int, config: TuneConfig) -> Floats:
    """(N,) with the sum 1."""
    if config.class_weights == "none":
        return np.full(len(y), 1 / len(y))
    return (1 / (n_classes * np.bincount(y, minlength=n_classes)))[y]


def _scores(x: Floats, matrix: Floats) -> Floats:
    scores: Floats = x @ matrix[:, :-1].T.astype(x.dtype) + matrix[:, -1]  # (n, K)
    return scores


def _score(x: _Standardised, y: NDArray[np.int64], matrix: Floats) -> tuple[float, float]:
    """Mean negative log-likelihood, and accuracy."""
    logs = np.concatenate([log_softmax(_scores(chunk, matrix), axis=1) for chunk in x.chunks()])
    return float(-logs[np.arange(len(y)), y].mean()), float((logs.argmax(1) == y).mean())


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
