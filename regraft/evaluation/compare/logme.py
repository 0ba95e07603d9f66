"""LogME: how probable the labels are under the embeddings, without training and without folds."""

import math

import numpy as np
from numpy.typing import NDArray

MAX_STEPS = 100  # where the labels follow nothing, alpha grows for ever; a guess
TOLERANCE = 1e-6  # of the change of the evidence a photo, at which the search ends; a guess
SMALLEST = 1e-12  # no sum of squares is divided by less, where embeddings explain all or nothing

Floats = NDArray[np.float64]


def logme(x: NDArray[np.floating], y: NDArray[np.int64]) -> float:
    """The mean over classes of the log evidence a photo; higher is better, comparable on one set.

    For each class its one-hot labels are a linear model of the embeddings, y = x w + noise, with
    w ~ N(0, 1 / alpha) and noise ~ N(0, 1 / beta). w is integrated out, alpha and beta maximise
    what is left. Embeddings are taken as they are: neither centred nor standardised.

    Args:
        x: (N, D) embeddings, N >= 2.
        y: (N,) classes; a class without photos is left out.

    Source: You et al. 2021 (the evidence and the fixed point); MacKay 1992 before them.
    """
    u, s, _ = np.linalg.svd(np.asarray(x, np.float64), full_matrices=False)  # (N, r), (r,)
    one_hot = (y[:, None] == np.unique(y)).astype(np.float64)  # (N, K)
    seen = np.square(u.T @ one_hot)  # (r, K)
    evidence = [
        maximal_evidence(np.square(s), seen[:, k], float(one_hot[:, k].sum()), x.shape)
        for k in range(one_hot.shape[1])
    ]
    return float(np.mean(evidence)) / len(y)


def maximal_evidence(
    variances: Floats, seen: Floats, square: float, shape: tuple[int, ...]
) -> float:
    """The log evidence of one class's labels at the best alpha and beta.

    Args:
        variances: (r,) squared singular values of the embeddings.
        seen: (r,) squared labels along the left singular vectors.
        square: |y|^2.
        shape: (N, D) of the embeddings.
    """
    alpha = beta = 1.0
    unseen = max(square - float(seen.sum()), 0.0)  # |y|^2 outside what embeddings can reach
    best = -math.inf
    for _ in range(MAX_STEPS):
        reached = beta * variances / (alpha + beta * variances)  # (r,) how far y is followed
        residual = max(float(np.square(1 - reached) @ seen) + unseen, SMALLEST)
        positive = variances > 0
        weight = float((np.square(reached[positive]) / variances[positive]) @ seen[positive])
        found = _log_evidence((alpha, beta), (residual, weight), variances, shape)
        if found - best < TOLERANCE * shape[0]:
            return max(found, best)
        best = found
        n_effective = float(reached.sum())
        alpha = max(n_effective, SMALLEST) / max(weight, SMALLEST)
        beta = max(shape[0] - n_effective, SMALLEST) / residual
    return best


def _log_evidence(
    precisions: tuple[float, float],
    squares: tuple[float, float],
    variances: Floats,
    shape: tuple[int, ...],
) -> float:
    """Half of n log beta + D log alpha - n log 2pi - beta |xm - y|^2 - alpha |m|^2 - log |A|.

    squares: |x m - y|^2 and |m|^2.
    """
    (alpha, beta), (residual, weight), (n, width) = precisions, squares, shape
    # log |A| of A = alpha I + beta x'x, whose other D - r eigenvalues are alpha
    log_det = float(np.log(alpha + beta * variances).sum())
    log_det += (width - len(variances)) * math.log(alpha)
    exponent = n * math.log(beta) + width * math.log(alpha) - n * math.log(2 * math.pi)
    return (exponent - beta * residual - alpha * weight - log_det) / 2
