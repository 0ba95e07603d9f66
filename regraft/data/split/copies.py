"""Near copies: photos that differ in encoding, size or brightness only."""

import itertools
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

_Ints = npt.NDArray[np.int64]
_Bits = npt.NDArray[np.uint64]
_Floats = npt.NDArray[np.float32]
_Greys = npt.NDArray[np.uint8]

HASH_BITS = 64
# All values are measured. For artificial copies (of 120 photos each of clothes, rubbish and solar
# cells), these rules with 4 hash bits detect: JPEG quality 50 99-100 %, half size 98-100 %,
# brightness + 5 % 99-100 %, + 10 % 94-99 %, without a false pair. Of 2624 solar cells, which all
# look similar, they join 16 pairs in units of at most 3 photos (three pairs were inspected, and
# each seems to show the same cell twice); at 0.12 they would join 89 pairs. Of 70 000
# Fashion-MNIST photos they join 131 photos, in units of at most 4.
MAX_RESIDUAL = 0.08
MAX_MEAN_SHIFT = 26.0  # grey levels of 255: brightness + 10 %
MAX_CONTRAST_RATIO = 1.25  # brightness + 10 % of full contrast needs 1.1
FLAT = 2.0  # grey levels: a thumbnail with less standard deviation has no shape to compare
# A film of a static scene has as many pairs as photos squared. This many evenly spaced partners per
# photo and band are enough to connect the unit, and fit in memory. Guess.
MAX_PARTNERS = 64


@dataclass(frozen=True)
class NearPairs:
    """Pairs of photos with different bytes and nearly the same content.

    Attributes:
        first, second: (P,) row numbers of the searched table, first < second.
        distance: (P,) bits in which the perceptual hashes differ.
    """

    first: _Ints
    second: _Ints
    distance: _Ints


class _Features(NamedTuple):
    """The features that are compared, one row per photo."""

    hashes: _Bits  # (N,)
    greys: _Greys  # (N, 256)
    shapes: _Floats  # (N, 256) mean 0, norm 1
    means: _Floats  # (N,) grey levels
    contrasts: _Floats  # (N,) standard deviation, grey levels


def find_near_pairs(photos: pd.DataFrame, n_bits: int) -> NearPairs:
    """Return all pairs whose hashes differ in at most n_bits and whose thumbnails agree.

    Two hashes within n_bits agree on at least one of n_bits + 1 bands (pigeonhole), so only photos
    that share a band are compared. Thumbnails agree if, after the best change of brightness and
    contrast (within MAX_MEAN_SHIFT and MAX_CONTRAST_RATIO), the residual is at most MAX_RESIDUAL of
    their contrast.

    Args:
        photos: columns phash and thumbnail, one row per distinct content.
        n_bits: in [0, 16]; with 0 there are no pairs, because exact copies are not near copies.

    Source: Manku, Jain & Das Sarma 2007 (bands); constants measured, see above.
    """
    empty = np.zeros(0, dtype=np.int64)
    if n_bits == 0 or len(photos) < 2:
        return NearPairs(empty, empty, empty)
    features = _features(photos)
    by_band = [_search_band(features, n_bits, band) for band in _bands(features.hashes, n_bits)]
    pairs = np.unique(np.concatenate(by_band), axis=0)  # (P, 2)
    distance = np.bitwise_count(features.hashes[pairs[:, 0]] ^ features.hashes[pairs[:, 1]])
    return NearPairs(pairs[:, 0], pairs[:, 1], distance.astype(np.int64))


def connected(n_nodes: int, first: _Ints, second: _Ints) -> _Ints:
    """Return the number of each node's connected component, (n_nodes,)."""
    links = coo_array((np.ones(len(first), dtype=np.int8), (first, second)), (n_nodes, n_nodes))
    return np.asarray(connected_components(links, directed=False)[1], dtype=np.int64)


def _features(photos: pd.DataFrame) -> _Features:
    joined = b"".join(photos["thumbnail"])
    greys = np.frombuffer(joined, dtype=np.uint8).reshape(len(photos), -1)  # (N, 256)
    means = greys.mean(axis=1, dtype=np.float32)  # (N,)
    shapes = greys - means[:, None]  # (N, 256)
    norms = np.sqrt(np.square(shapes).sum(axis=1))  # (N,)
    shapes /= np.maximum(norms, 1e-6)[:, None]
    hashes = np.array([int(phash, 16) for phash in photos["phash"]], dtype=np.uint64)  # (N,)
    contrasts = norms / np.float32(np.sqrt(greys.shape[1]))  # (N,)
    return _Features(hashes, greys, shapes, means, contrasts)


def _bands(hashes: _Bits, n_bits: int) -> list[_Bits]:
    """Return the value of each hash in each band; a single empty band if bands would be slower."""
    edges = np.linspace(0, HASH_BITS, n_bits + 2).astype(np.uint64)
    bit = np.uint64(1)
    bands = [
        (hashes >> low) & ((bit << (high - low)) - bit) for low, high in itertools.pairwise(edges)
    ]
    n_compared = sum(int((np.unique(band, return_counts=True)[1] ** 2).sum()) for band in bands)
    return bands if n_compared < len(hashes) ** 2 else [np.zeros_like(hashes)]


def _search_band(features: _Features, n_bits: int, band: _Bits) -> _Ints:
    """Return the near pairs among the photos that agree on this band, (P, 2)."""
    order = np.argsort(band, kind="stable")
    in_band = band[order]
    ends = np.searchsorted(in_band, in_band, side="right")
    hashes = features.hashes[order]
    pairs = [np.zeros((0, 2), dtype=np.int64)]
    for start in np.flatnonzero(ends - np.arange(len(ends)) > 1):
        distances = np.bitwise_count(hashes[start + 1 : ends[start]] ^ hashes[start])
        near = np.flatnonzero(distances <= n_bits)
        if len(near) == 0:
            continue
        partners = _agreeing(features, order[start], order[start + 1 + near])
        partners = partners[:: len(partners) // MAX_PARTNERS + 1]
        rows = np.stack([np.full_like(partners, order[start]), partners], axis=1)
        pairs.append(np.sort(rows, axis=1))
    return np.concatenate(pairs)


def _agreeing(features: _Features, photo: np.int64, candidates: _Ints) -> _Ints:
    """Return the candidates, a part of (P,), whose thumbnails agree with the photo's."""
    least_r = np.sqrt(1.0 - MAX_RESIDUAL**2)  # residual = sqrt(1 - r^2); a negative r is no copy
    r = features.shapes[candidates] @ features.shapes[photo]  # (P,)
    low = np.minimum(features.contrasts[candidates], features.contrasts[photo])
    high = np.maximum(features.contrasts[candidates], features.contrasts[photo])
    shift = np.abs(features.means[candidates] - features.means[photo])
    same = (r >= least_r) & (high <= MAX_CONTRAST_RATIO * low) & (shift <= MAX_MEAN_SHIFT)
    flat = low < FLAT
    if flat.any():
        flat_greys = features.greys[candidates[flat]].astype(np.float32)
        difference = flat_greys - features.greys[photo]
        same[flat] = np.abs(difference).mean(axis=1) <= FLAT
    agreeing: _Ints = candidates[same]
    return agreeing
