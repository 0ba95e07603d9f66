"""Two-sample permutation tests: do two sets of photos come from the same distribution?

The tests are exact for any number of photos and any distribution. A p-value is (1 + permutations at
least as extreme) / (1 + permutations): under equal distributions it is at most x with a chance of
at most x, for any x. Source: Phipson & Smyth 2010.
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
# Takes (b, N), a row a permutation, 1 = new and 0 = reference; returns the statistic (b,).
Statistic = Callable[[Floats], Floats]
N_COMPONENTS = 50
_BLOCK = 256  # permutations at once: 3 MB of 3000 photos
_LEAST_STD = 1e-6  # avoids a division by zero where nothing varies
# Relative tolerance of a statistic: sums of the same numbers differ by the order of the sum.
_ROUNDING = 1e-5


@cache
def threads() -> ThreadpoolController:
    """Return the controller of the linear algebra's threads; its construction takes 30 ms."""
    return ThreadpoolController()


@dataclass(frozen=True)
class Permutations:
    """Random assignments of N photos to "reference" and "new".

    n_reference, n_new: sizes of the sets; the reference's photos come first.
    n: number of permutations. seed: of the permutations.
    """

    n_reference: int
    n_new: int
    n: int
    seed: int

    def blocks(self) -> Iterator[Floats]:
        """Yield blocks (b, N) of 0 and 1, n rows in total; each row sums to n_new."""
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
        """The true assignment, (1, N): the reference first."""
        return np.repeat(np.array([0, 1], np.float32), [self.n_reference, self.n_new])[None]


def whiten(reference: Floats, new: Floats) -> Floats:
    """Return the principal components of both sets with equal variance, (N, C), reference first.

    The components are those of both sets together: scaled by the reference alone, the sets would
    not be exchangeable and the tests not exact. A shift of some photos often has a direction of its
    own. Measured with 50 new photos of clothes against 400, at level 0.01: with three of ten photos
    blurred the test detects it in 53 % of draws, noise in 37 %, another camera for all photos in
    40 %; with standardised embeddings in 10 %, 0 % and 3 %. 20, 100 or 200 components are no
    better.

    Args:
        reference: (R, D). new: (M, D).
    """
    pooled = np.concatenate([reference, new]).astype(np.float32)
    pooled -= pooled.mean(axis=0)
    n_components = min(N_COMPONENTS, *pooled.shape)
    small = pooled if len(pooled) > pooled.shape[1] else pooled.T
    # The smaller of the two Gram matrices gives the same components.
    products = small.T @ small
    largest = (len(products) - n_components, len(products) - 1)
    values, vectors = eigh(products, subset_by_index=largest)
    vectors = vectors[:, values > _LEAST_STD * max(float(values[-1]), _LEAST_STD)]
    components = pooled @ vectors if small is pooled else vectors
    lengths = np.sqrt((components**2).mean(axis=0))
    scaled: Floats = components / np.maximum(lengths, _LEAST_STD)
    return scaled


def squared_distances(left: Floats, right: Floats) -> Floats:
    """Return the squared Euclidean distances of the rows, (L, R)."""
    lengths = (left**2).sum(axis=1)[:, None] + (right**2).sum(axis=1)
    apart: Floats = np.maximum(lengths - 2 * left @ right.T, 0)
    return apart


def kernel(pooled: Floats) -> Floats:
    """Return the centred Gaussian kernel with the median distance as bandwidth, (N, N).

    Args:
        pooled: (N, D).

    Source: Gretton et al. 2012, sec. 8 (median heuristic). Centring changes no statistic; with it
    float32 is precise enough, because each row sums to 0.
    """
    apart = squared_distances(pooled, pooled)  # (N, N)
    middle = float(np.median(apart[np.triu_indices(len(apart), 1)]))
    alike = np.exp(-apart / (2 * max(middle, _LEAST_STD)))
    means = alike.mean(axis=0)
    centred: Floats = alike - means - means[:, None] + means.mean()
    return centred


def mmd(centred: Floats) -> Statistic:
    """Return the statistic "maximum mean discrepancy".

    Args:
        centred: (N, N) kernel() of all photos.

    Source: Gretton et al. 2012, eq. 5. It is the biased estimate without its constant factor. It
    orders permutations as the unbiased estimate does, because the diagonal is constant before
    centring.
    """

    def statistic(is_new: Floats) -> Floats:
        summed: Floats = ((is_new @ centred) * is_new).sum(axis=1)
        return summed

    return statistic


def ks(values: Floats) -> Statistic:
    """Return the Kolmogorov-Smirnov statistic: the largest gap between two distribution functions.

    Args:
        values: (N,) of all photos; ties are allowed.
    """
    order = np.argsort(values, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(values[order]) != 0, True))  # the last of equal values
    expected = (ends + 1) / len(values)

    def statistic(is_new: Floats) -> Floats:
        counts = np.cumsum(is_new[:, order], axis=1)[:, ends]  # (b, distinct)
        gaps: Floats = np.abs(counts / is_new[:1].sum() - expected).max(axis=1)
        return gaps

    return statistic


def p_values(statistics: Sequence[Statistic], permutations: Permutations) -> list[float]:
    """Return the p-value of each statistic on the same permutations; large values are extreme."""
    observed = [float(statistic(permutations.observed)[0]) for statistic in statistics]
    least = [value - _ROUNDING * abs(value) for value in observed]
    n_extreme = np.zeros(len(statistics))
    for is_new in permutations.blocks():
        for at, statistic in enumerate(statistics):
            n_extreme[at] += int((statistic(is_new) >= least[at]).sum())
    return [float(count) for count in (1 + n_extreme) / (1 + permutations.n)]
