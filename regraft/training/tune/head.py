"""The solved head: softmax regression on embeddings; validation selects the penalty."""

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

MAX_ITERATIONS = 1000  # of L-BFGS; standardised embeddings need 20-200 (measured)
GRAD_TOL = 1e-5  # of the mean loss. Source: a tenth of scikit-learn's default
MIN_STD = 1e-6  # avoids a division by zero for a constant embedding dimension
CHUNK = 4096  # photos standardised at once: 21 MB for 1280 values each
IN_MEMORY_BYTES = 1e9  # of stored embeddings: 390 000 photos of 1280 values in bf16. Guess

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class LabelledEmbeddings:
    """Embeddings (N, D) and class positions (N,) in [0, K)."""

    rows: Rows
    y: NDArray[np.int64]


@dataclass(frozen=True)
class SolvedHead:
    """weight (K, D) and bias (K,) of a linear layer on raw embeddings, and all candidates."""

    weight: Floats
    bias: Floats
    best: EpochRecord
    candidates: tuple[EpochRecord, ...]


@dataclass(frozen=True)
class _Standardised:
    """Embeddings on the scale of train, (n, D) at a time; in memory if all fit into one chunk."""

    source: Rows
    mean: Floats
    std: Floats
    in_memory: Floats | None

    def chunks(self) -> Iterator[Floats]:
        if self.in_memory is not None:
            yield self.in_memory
            return
        mean, std = self.mean.astype(np.float32), self.std.astype(np.float32)
        for chunk in self.source.chunks(CHUNK):
            yield (chunk.float().numpy() - mean) / std


@dataclass(frozen=True)
class _Problem:
    """Mean weighted negative log-likelihood + l2 / 2 |weight|^2, and its gradient."""

    x: _Standardised
    y: NDArray[np.int64]
    photo_weights: Floats
    n_classes: int

    def __call__(self, flat: Floats, l2: float) -> tuple[float, Floats]:
        matrix = flat.reshape(self.n_classes, -1)  # (K, D + 1), the bias last
        loss, gradient, at = 0.0, np.zeros_like(matrix), 0
        for x in self.x.chunks():
            y, weights = self.y[at : at + len(x)], self.photo_weights[at : at + len(x)]
            logs = log_softmax(_scores(x, matrix), axis=1)  # (n, K)
            loss -= float(weights @ logs[np.arange(len(x)), y])
            errors = np.exp(logs)
            errors[np.arange(len(x)), y] -= 1
            errors *= weights[:, None]
            gradient[:, :-1] += errors.T.astype(x.dtype) @ x
            gradient[:, -1] += errors.sum(0)
            at += len(x)
        gradient[:, :-1] += l2 * matrix[:, :-1]
        return loss + l2 / 2 * float((matrix[:, :-1] ** 2).sum()), gradient.ravel()


def solve_head(
    train: LabelledEmbeddings, validation: LabelledEmbeddings, n_classes: int, config: TuneConfig
) -> SolvedHead:
    """Return the penalised maximum-likelihood head, by L-BFGS to convergence, without randomness.

    Embeddings are standardised inside, and the scale is folded back into weight and bias. Of the
    penalties config.head_l2, the one with the lowest validation loss is selected, the larger on a
    tie. Up to IN_MEMORY_BYTES of embeddings are in memory, CHUNK of them standardised.

    Args:
        train: at least one photo of every class.
        validation: used to select the penalty only.

    Source: Kornblith et al. 2019 (L-BFGS softmax regression on frozen embeddings), app. A.
    """
    x, validation_x = _standardised(train.rows, validation.rows)
    mean, std = x.mean, x.std
    problem = _Problem(x, train.y, _photo_weights(train.y, n_classes, config), n_classes)
    solution = np.zeros(n_classes * (len(mean) + 1))
    solved: list[SolvedHead] = []
    # One thread: six times faster for a few hundred photos (measured), the same sums everywhere.
    with threadpool_limits(1):
        for l2 in sorted(config.head_l2, reverse=True):
            # A weak penalty may not converge on separable classes: validation judges the result.
            options = {"maxiter": MAX_ITERATIONS, "gtol": GRAD_TOL, "ftol": 0.0}
            solution = minimize(problem, solution, l2, "L-BFGS-B", jac=True, options=options).x
            matrix = solution.reshape(n_classes, -1)
            losses = [_score(x, train.y, matrix), _score(validation_x, validation.y, matrix)]
            record = EpochRecord("head", len(solved) + 1, *losses[0], *losses[1], 0.0, l2, 0.0)
            weight = matrix[:, :-1] / std
            solved.append(SolvedHead(weight, matrix[:, -1] - weight @ mean, record, ()))
    best = min(solved, key=lambda head: head.best.validation_loss)
    return SolvedHead(best.weight, best.bias, best.best, tuple(head.best for head in solved))


def _standardised(train: Rows, validation: Rows) -> tuple[_Standardised, _Standardised]:
    """Return both splits on the scale of train: mean 0 and std 1 in each dimension."""
    sums = [chunk.double().sum(0).numpy() for chunk in train.chunks(CHUNK)]
    mean = np.sum(sums, axis=0) / len(train)
    squares = [np.square(c.double().numpy() - mean).sum(0) for c in train.chunks(CHUNK)]
    std = np.maximum(np.sqrt(np.sum(squares, axis=0) / len(train)), MIN_STD)
    return _on_scale(train, mean, std), _on_scale(validation, mean, std)


def _on_scale(rows: Rows, mean: Floats, std: Floats) -> _Standardised:
    if rows.n_bytes <= IN_MEMORY_BYTES:
        rows = Rows.of(rows.all())  # read once: each step of L-BFGS needs all rows
    fits = len(rows) <= CHUNK
    in_memory = (rows.all().double().numpy() - mean) / std if fits else None
    return _Standardised(rows, mean, std, in_memory)


def _photo_weights(y: NDArray[np.int64], n_classes: int, config: TuneConfig) -> Floats:
    """Return (N,) weights with the sum 1."""
    if config.class_weights == "none":
        return np.full(len(y), 1 / len(y))
    return (1 / (n_classes * np.bincount(y, minlength=n_classes)))[y]


def _scores(x: Floats, matrix: Floats) -> Floats:
    scores: Floats = x @ matrix[:, :-1].T.astype(x.dtype) + matrix[:, -1]  # (n, K)
    return scores


def _score(x: _Standardised, y: NDArray[np.int64], matrix: Floats) -> tuple[float, float]:
    """Return the mean negative log-likelihood and the accuracy."""
    logs = np.concatenate([log_softmax(_scores(chunk, matrix), axis=1) for chunk in x.chunks()])
    return float(-logs[np.arange(len(y)), y].mean()), float((logs.argmax(1) == y).mean())


def head_to_state(head: SolvedHead) -> dict[str, Any]:
    """Return the head as tensors and plain values, for a checkpoint."""
    return {
        "weight": torch.from_numpy(head.weight),
        "bias": torch.from_numpy(head.bias),
        "best": asdict(head.best),
        "candidates": [asdict(candidate) for candidate in head.candidates],
    }


def head_from_state(state: dict[str, Any]) -> SolvedHead:
    """Return the head from the result of head_to_state()."""
    candidates = tuple(EpochRecord(**candidate) for candidate in state["candidates"])
    weight, bias = state["weight"].numpy(), state["bias"].numpy()
    return SolvedHead(weight, bias, EpochRecord(**state["best"]), candidates)
