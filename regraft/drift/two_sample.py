"""Two sets of photos: are they of one kind? Permutation tests, exact however few or odd they are.

A p-value is (1 + permutations at least as extreme) / (1 + permutations): if both sets were drawn
alike it is at most x with a chance of at most x, for any x. Source: Phipson & Smyth 2010.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh
from threadpoolctl import ThreadpoolController

Floats = NDArray[np.floating[Any]]
# From (b, N), 1 = new and 0 = reference, a row a permutation, to (b,): how far apart the two are.
Statistic = Callable[[Floats], Floats]
N_COMPONENTS = 50
_BLOCK = 256  # permutations at once: 3 MB of 3000 photos
_LEAST_SPREAD = 1e-6  # what never varies is not divided by zero
# Of a statistic, relative: sums of the same numbers in another order are the same statistic.
_ROUNDING = 1e-5


@cache
def threads() -> ThreadpoolController:
    """The threads of the linear algebra below, to be limited; to find them takes 30 ms."""
    return ThreadpoolController()


@dataclass(frozen=True)
class Shuffles:
    """Which of N photos count as new in each permutation.

    n_reference, n_new: the photos are in this order. n: permutations. seed: of them.
    """

    n_reference: int
    n_new: int
    n: int
    seed: int

    def blocks(self) -> Iterator[Floats]:
        """(b, N) of 0 and 1 at a time, n rows together; each row sums to n_new."""
        generator = np.random.default_rng(self.seed)
        n_photos = self.n_reference + self.n_new
        for at in range(0, self.n, _BLOCK):
            n_rows = min(_BLOCK, self.n - at)
            keys = generator.random((n_rows, n_photos), dtype=np.float32)
            chosen = np.argpartition(keys, self.n_new - 1, axis=1)[:, : self.n_new]
            is_new = np.zeros((n_rows, n_photos), np.float32)
            np.put_along_axis(is_new, chosen, 1.0, axis=1)
            yield is_new

    @property
    def observed(self) -> Floats:
        """(1, N) as it is: the reference first."""
        return np.repeat(np.array([0, 1], np.float32), [self.n_reference, self.n_new])[None]


def whitened(reference: Floats, new: Floats) -> Floats:
    """(N, C) both, the reference first, as their principal components, each with the same spread.

    Of both together: on the scale of the reference alone the two would not be treated alike, and
    the tests not be exact. What sets some of the photos apart is often a direction of its own.
    Measured with 50 new photos of clothes against 400, at level 0.01: where three of ten are
    blurred the test finds it in 53 % of draws, noise in 37 %, another camera in all in 40 %; with
    the embeddings standardised only, 10 %, 0 % and 3 %; no better with 20, 100 or 200 components.
    """
    pooled = np.concatenate([reference, new]).astype(np.float32)
    pooled -= pooled.mean(axis=0)
    n_components = min(N_COMPONENTS, *pooled.shape)
    small = pooled if len(pooled) > pooled.shape[1] else pooled.T
    # The smaller of the two matrices of products has the same components.
    products = small.T @ small
    largest = (len(products) - n_components, len(products) - 1)
    values, vectors = eigh(products, subset_by_index=largest)
    vectors = vectors[:, values > _LEAST_SPREAD * max(float(values[-1]), _LEAST_SPREAD)]
    components = pooled @ vectors if small is pooled else vectors
    lengths = np.sqrt((components**2).mean(axis=0))
    scaled: Floats = components / np.maximum(lengths, _LEAST_SPREAD)
    return scaled


def squared_distances(left: Floats, right: Floats) -> Floats:
    """(L, R) squared Euclidean distances of rows."""
    lengths = (left**2).sum(axis=1)[:, None] + (right**2).sum(axis=1)
    apart: Floats = np.maximum(lengths - 2 * left @ right.T, 0)
    return apart


def kernel(pooled: Floats) -> Floats:
    """(N, N) Gaussian kernel whose bandwidth is the median distance, centred.

    Args:
        pooled: (N, D).

    Source: Gretton et al. 2012, sec. 8 (median heuristic). Centring changes no statistic, and lets
    float32 do: each row sums to 0.
    """
    apart = squared_distances(pooled, pooled)  # (N, N)
    middle = float(np.median(apart[np.triu_indices(len(apart), 1)]))
    alike = np.exp(-apart / (2 * max(middle, _LEAST_SPREAD)))
    means = alike.mean(axis=0)
    centred: Floats = alike - means - means[:, None] + means.mean()
    return centred


def mmd(centred: Floats) -> Statistic:
    """Maximum mean discrepancy: whether both are drawn from one distribution.

    Args:
        centred: (N, N) kernel() of all photos.

    Source: Gretton et al. 2012, eq. 5. The biased one, without its constant factor: the order of
    permutations is that of the unbiased one, because the diagonal is alike before centring.
    """

    def statistic(is_new: Floats) -> Floats:
        summed: Floats = ((is_new @ centred) * is_new).sum(axis=1)
        return summed

    return statistic


def ks(values: Floats) -> Statistic:
    """Kolmogorov-Smirnov: the largest gap between the distributions of a number.

    Args:
        values: (N,) of all photos; ties are no trouble.
    """
    order = np.argsort(values, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(values[order]) != 0, True))  # the last of equal ones
    expected = (ends + 1) / len(values)

    def statistic(is_new: Floats) -> Floats:
        counts = np.cumsum(is_new[:, order], axis=1)[:, ends]  # (b, distinct)
        gaps: Floats = np.abs(counts / is_new[:1].sum() - expected).max(axis=1)
        return gaps

    return statistic


def p_values(statistics: Sequence[Statistic], shuffles: Shuffles) -> list[float]:
    """The p-value of each statistic, all on the same permutations; a large one is extreme."""
    observed = [float(statistic(shuffles.observed)[0]) for statistic in statistics]
    least = [value - _ROUNDING * abs(value) for value in observed]
    n_extreme = np.zeros(len(statistics))
    for is_new in shuffles.blocks():
        for at, statistic in enumerate(statistics):
            n_extreme[at] += int((statistic(is_new) >= least[at]).sum())
    return [float(count) for count in (1 + n_extreme) / (1 + shuffles.n)]
