"""Which photos are copies of each other: exactly, or but for re-encoding, resizing, brightness."""

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
# All measured. Of copies made on purpose (of 120 photos each of clothes, rubbish and solar cells),
# these rules with 4 hash bits find: JPEG quality 50 99-100 %, half size 98-100 %, brightness + 5 %
# 99-100 %, + 10 % 94-99 %; and no false pair among them. Of 2624 cells, which all look alike, they
# join 16 pairs in units of at most 3 photos (the three looked at seem to be one cell photographed
# twice); at 0.12 it would be 89 pairs. Of 70 000 Fashion-MNIST photos they join 131 photos, in
# units of at most 4.
MAX_RESIDUAL = 0.08
MAX_MEAN_SHIFT = 26.0  # grey levels of 255: brightness + 10 %
MAX_CONTRAST_RATIO = 1.25  # brightness + 10 % of full contrast needs 1.1
FLAT = 2.0  # grey levels: a thumbnail with less standard deviation has no shape to compare
# A film of one still scene has as many pairs as photos squared. So many partners a photo and band,
# evenly spread, join the unit as surely as all of them, and fit in memory. Guess.
MAX_PARTNERS = 64


@dataclass(frozen=True)
class NearPairs:
    """Pairs of photos with different bytes that show nearly the same.

    Attributes:
        first, second: (P,) row numbers of the searched table, first < second.
        distance: (P,) bits in which the perceptual hashes differ.
    """

    first: _Ints
    second: _Ints
    distance: _Ints


class _Looks(NamedTuple):
    """What the photos are compared by, one row a photo."""

    hashes: _Bits  # (N,)
    greys: _Greys  # (N, 256)
    shapes: _Floats  # (N, 256) mean 0, norm 1
    means: _Floats  # (N,) grey levels
    contrasts: _Floats  # (N,) standard deviation, grey levels


def find_near_pairs(photos: pd.DataFrame, n_bits: int) -> NearPairs:
    """All pairs whose hashes differ in at most n_bits and whose thumbnails agree.

    Two hashes within n_bits agree on at least one of n_bits + 1 bands (pigeonhole), so only photos
    that share a band are compared. Thumbnails agree if, after the best change of brightness and
    contrast (within MAX_MEAN_SHIFT and MAX_CONTRAST_RATIO), what remains is at most MAX_RESIDUAL of
    their contrast.

    Args:
        photos: columns phash and thumbnail, one row a distinct content.
        n_bits: in [0, 16]; 0 finds nothing, for exact copies are no near copies.

    Source: Manku, Jain & Das Sarma 2007 (bands); constants measured, see above.
    """
    nothing = np.zeros(0, dtype=np.int64)
    if n_bits == 0 or len(photos) < 2:
        return NearPairs(nothing, nothing, nothing)
    looks = _looks(photos)
    found = [_search_band(looks, n_bits, band) for band in _bands(looks.hashes, n_bits)]
    pairs = np.unique(np.concatenate(found), axis=0)  # (P, 2)
    distance = np.bitwise_count(looks.hashes[pairs[:, 0]] ^ looks.hashes[pairs[:, 1]])
    return NearPairs(pairs[:, 0], pairs[:, 1], distance.astype(np.int64))


def connected(n_nodes: int, first: _Ints, second: _Ints) -> _Ints:
    """(n_nodes,) the number of each node's connected component."""
    links = coo_array((np.ones(len(first), dtype=np.int8), (first, second)), (n_nodes, n_nodes))
    return np.asarray(connected_components(links, directed=False)[1], dtype=np.int64)


def _looks(photos: pd.DataFrame) -> _Looks:
    joined = b"".join(photos["thumbnail"])
    greys = np.frombuffer(joined, dtype=np.uint8).reshape(len(photos), -1)  # (N, 256)
    means = greys.mean(axis=1, dtype=np.float32)  # (N,)
    shapes = greys - means[:, None]  # (N, 256)
    norms = np.sqrt(np.square(shapes).sum(axis=1))  # (N,)
    shapes /= np.maximum(norms, 1e-6)[:, None]
    hashes = np.array([int(phash, 16) for phash in photos["phash"]], dtype=np.uint64)  # (N,)
    return _Looks(hashes, greys, shapes, means, norms / np.float32(np.sqrt(greys.shape[1])))


def _bands(hashes: _Bits, n_bits: int) -> list[_Bits]:
    """The value of each hash in each band; one band of no bits where bands would not pay."""
    edges = np.linspace(0, HASH_BITS, n_bits + 2).astype(np.uint64)
    one = np.uint64(1)
    bands = [
        (hashes >> low) & ((one << (high - low)) - one) for low, high in itertools.pairwise(edges)
    ]
    n_compared = sum(int((np.unique(band, return_counts=True)[1] ** 2).sum()) for band in bands)
    return bands if n_compared < len(hashes) ** 2 else [np.zeros_like(hashes)]


def _search_band(looks: _Looks, n_bits: int, band: _Bits) -> _Ints:
    """(P, 2) the confirmed pairs among the photos that agree on this band."""
    order = np.argsort(band, kind="stable")
    in_band = band[order]
    ends = np.searchsorted(in_band, in_band, side="right")
    hashes = looks.hashes[order]
    found = [np.zeros((0, 2), dtype=np.int64)]
    for here in np.flatnonzero(ends - np.arange(len(ends)) > 1):
        distances = np.bitwise_count(hashes[here + 1 : ends[here]] ^ hashes[here])
        near = np.flatnonzero(distances <= n_bits)
        if len(near) == 0:
            continue
        theirs = _agreeing(looks, order[here], order[here + 1 + near])
        theirs = theirs[:: len(theirs) // MAX_PARTNERS + 1]
        pairs = np.stack([np.full_like(theirs, order[here]), theirs], axis=1)
        found.append(np.sort(pairs, axis=1))
    return np.concatenate(found)


def _agreeing(looks: _Looks, one: np.int64, many: _Ints) -> _Ints:
    """Those of many (P,) whose thumbnail shows what the thumbnail of one shows."""
    least_r = np.sqrt(1.0 - MAX_RESIDUAL**2)  # residual = sqrt(1 - r^2); a negative is no copy
    r = looks.shapes[many] @ looks.shapes[one]  # (P,)
    low = np.minimum(looks.contrasts[many], looks.contrasts[one])
    high = np.maximum(looks.contrasts[many], looks.contrasts[one])
    shift = np.abs(looks.means[many] - looks.means[one])
    same = (r >= least_r) & (high <= MAX_CONTRAST_RATIO * low) & (shift <= MAX_MEAN_SHIFT)
    flat = low < FLAT
    if flat.any():
        difference = looks.greys[many[flat]].astype(np.float32) - looks.greys[one]
        same[flat] = np.abs(difference).mean(axis=1) <= FLAT
    agreeing: _Ints = many[same]
    return agreeing
