"""Near copies: photos that differ in encoding, size or brightness only."""

import itertools
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

_Ints = npt.NDArray[np.int64]
_Bits = npt.NDArray[np.uint64]
_Floats = npt.NDArray[np.float32]
_Greys = npt.NDArray[np.uint8]
_Bools = npt.NDArray[np.bool_]

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
# A film of a static scene has as many pairs as photos squared. A chain of more photos than this is
# therefore described by pairs that connect it, a shorter chain by all of its pairs. Guess.
MAX_ALL_PAIRS = 512
# A comparison holds ROWS * COLUMNS pairs (16 MB) and COLUMNS thumbnails (8 MB), however many photos
# there are. Measured: larger blocks leave the processor's cache and are slower.
ROWS = 128
COLUMNS = 8192
# Bands are searched if they hold this many times fewer pairs than the table. Photos that share a
# band for many reasons (a film) share several, and would be compared once in each. Guess.
MIN_SAVING = 4


@dataclass(frozen=True)
class NearPairs:
    """Pairs of photos with different bytes and nearly the same content.

    Attributes:
        first, second: (P,) row numbers of the searched tables.
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

    def take(self, rows: _Ints) -> "_Features":
        """Return the features of some rows, in the given order."""
        return _Features(
            self.hashes[rows],
            self.greys[rows],
            self.shapes[rows],
            self.means[rows],
            self.contrasts[rows],
        )


def find_near_pairs(photos: pd.DataFrame, n_bits: int) -> NearPairs:
    """Return pairs whose hashes differ in at most n_bits and whose thumbnails agree.

    The pairs connect two photos if and only if a chain of such pairs does. If the chain has at most
    MAX_ALL_PAIRS photos, all of its pairs are returned. Two hashes within n_bits agree on at least
    one of n_bits + 1 bands (pigeonhole), so only photos that share a band are compared, and not the
    photos of a chain with each other. So the work for a film of one scene grows with its photos.
    Only photos that share a band and are in different chains cost their number squared.

    Thumbnails agree if, after the best change of brightness and contrast (within MAX_MEAN_SHIFT and
    MAX_CONTRAST_RATIO), the residual is at most MAX_RESIDUAL of their contrast.

    Args:
        photos: columns phash and thumbnail, one row per distinct content. Earlier rows have the
            most pairs.
        n_bits: in [0, 16]; with 0 there are no pairs, because exact copies are not near copies.

    Returns:
        The pairs, each once, first < second, sorted.

    Source: Manku, Jain & Das Sarma 2007 (bands); constants measured, see above.
    """
    if n_bits == 0 or len(photos) < 2:
        return _near_pairs(_NO_PAIRS, _NO_BITS)
    features = _features(photos)
    by_group = [
        group[_connecting_pairs(features.take(group), n_bits)]
        for band in _bands(features.hashes, n_bits)
        for group in _groups(features.hashes, band, n_bits)
    ]
    pairs = np.concatenate([_NO_PAIRS, *by_group])  # (P, 2)
    chains = _members(connected(len(photos), pairs[:, 0], pairs[:, 1]))
    short = [chain for chain in chains if 2 < len(chain) <= MAX_ALL_PAIRS]
    all_of_short = [chain[_all_pairs(features.take(chain), n_bits)] for chain in short]
    pairs = np.unique(np.sort(np.concatenate([pairs, *all_of_short]), axis=1), axis=0)
    hashes = features.hashes[pairs]  # (P, 2)
    return _near_pairs(pairs, np.bitwise_count(hashes[:, 0] ^ hashes[:, 1]))


def find_closest_copies(photos: pd.DataFrame, others: pd.DataFrame, n_bits: int) -> NearPairs:
    """Return the closest near copy of each photo among the others, however many there are.

    Args:
        photos, others: columns phash and thumbnail, M and N rows.
        n_bits: as in find_near_pairs().

    Returns:
        At most one pair for each row of photos: first is its row number, second that of the other
        photo with the fewest different hash bits, the earliest if there are several.
    """
    if n_bits == 0 or photos.empty or others.empty:
        return _near_pairs(_NO_PAIRS, _NO_BITS)
    mine, theirs = _features(photos), _features(others)
    best = np.full(len(photos), HASH_BITS + 1, np.uint8)  # (M,)
    partners = np.zeros(len(photos), np.int64)  # (M,)
    for rows in _blocks(len(photos), ROWS):
        for columns in _blocks(len(others), COLUMNS):
            distances, is_near = _compare(mine.take(rows), theirs, columns, n_bits)
            distances[~is_near] = HASH_BITS + 1
            closest = distances.argmin(axis=1)  # (rows,)
            closest_bits = distances[np.arange(len(rows)), closest]
            is_closer = closest_bits < best[rows]
            best[rows[is_closer]] = closest_bits[is_closer]
            partners[rows[is_closer]] = columns[closest[is_closer]]
    has_copy = np.flatnonzero(best <= HASH_BITS)
    return _near_pairs(np.stack([has_copy, partners[has_copy]], axis=1), best[has_copy])


def connected(n_nodes: int, first: _Ints, second: _Ints) -> _Ints:
    """Return the number of each node's connected component, (n_nodes,)."""
    links = coo_array((np.ones(len(first), dtype=np.int8), (first, second)), (n_nodes, n_nodes))
    return np.asarray(connected_components(links, directed=False)[1], dtype=np.int64)


_NO_PAIRS: _Ints = np.zeros((0, 2), np.int64)
_NO_BITS: _Greys = np.zeros(0, np.uint8)


def _near_pairs(pairs: _Ints, distance: _Greys) -> NearPairs:
    return NearPairs(pairs[:, 0], pairs[:, 1], distance.astype(np.int64))


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
    is_faster = MIN_SAVING * n_compared < len(hashes) ** 2
    return bands if is_faster else [np.zeros_like(hashes)]


def _groups(hashes: _Bits, band: _Bits, n_bits: int) -> list[_Ints]:
    """Return the photos of each value of the band, without small groups that have no near hashes.

    Most groups of different photos are small, and comparing their hashes first saves the rest.
    """
    groups = _members(band)
    rows = np.concatenate([_NO_PAIRS[:, 0], *groups])
    sizes = np.array([len(group) for group in groups], np.int64)
    number = np.repeat(np.arange(len(groups)), sizes)
    has_near = sizes > ROWS
    for shift in range(1, min(ROWS, len(rows))):
        differing = np.bitwise_count(hashes[rows[shift:]] ^ hashes[rows[:-shift]])
        is_near = (differing <= n_bits) & (number[shift:] == number[:-shift])
        has_near[number[shift:][is_near]] = True
    return [group for group, is_wanted in zip(groups, has_near, strict=True) if is_wanted]


def _members(values: npt.NDArray[np.integer[Any]]) -> list[_Ints]:
    """Return the row numbers, ascending, of each value that at least two rows have."""
    order = np.argsort(values, kind="stable")
    starts = np.flatnonzero(np.diff(values[order])) + 1
    return [rows for rows in np.split(order, starts) if len(rows) > 1]


def _connecting_pairs(group: _Features, n_bits: int) -> _Ints:
    """Return near pairs that connect all photos of the group that near pairs connect, (P, 2).

    A block of photos is compared with all photos that were not in a block yet. As soon as a chain
    is larger than a block, its photos are only compared with the photos outside of the chain.
    """
    parts = [_NO_PAIRS]
    n = len(group.hashes)
    chains, waiting = np.arange(n), np.arange(n)
    while len(waiting) > 1:
        chain_of = chains[waiting]
        sizes = np.bincount(chain_of)
        is_in_chain = chain_of == sizes.argmax()
        is_large = sizes.max() >= min(ROWS, n)
        block = waiting[is_in_chain][:ROWS] if is_large else waiting[:ROWS]
        pairs = _block_pairs(group, block, waiting[~is_in_chain] if is_large else waiting, n_bits)
        if len(pairs):
            parts.append(pairs)
            chains = connected(int(chains.max()) + 1, *chains[pairs].T)[chains]
        waiting = waiting[~np.isin(waiting, block, assume_unique=True)]
    return np.concatenate(parts)


def _block_pairs(group: _Features, block: _Ints, others: _Ints, n_bits: int) -> _Ints:
    """Return near pairs that connect what all near pairs of the block and the others connect."""
    features, parts = group.take(block), [_NO_PAIRS]
    for columns in _blocks(len(others), COLUMNS):
        partners = others[columns]
        _, is_near = _compare(features, group, partners, n_bits)
        is_reached = is_near.any(axis=0)
        rows, reached = _witnesses(is_near[:, is_reached])
        parts.append(np.stack([block[rows], partners[is_reached][reached]], axis=1))
    pairs = np.concatenate(parts)
    of_two: _Ints = pairs[pairs[:, 0] != pairs[:, 1]]  # not of a photo with itself
    return of_two


def _witnesses(is_near: _Bools) -> tuple[_Ints, _Ints]:
    """Return the rows and columns of entries that connect what all true entries connect.

    Each column is in an entry with its first row. If a column connects its first row with another
    row, so does one of the returned columns.
    """
    n_rows = len(is_near)
    columns, rows = np.nonzero(is_near.T)
    first = is_near.argmax(axis=0)[columns]
    witness = np.full(n_rows * n_rows, -1)
    codes = first * n_rows + rows
    witness[codes] = columns
    linked = np.flatnonzero((witness >= 0) & (np.arange(len(witness)) % (n_rows + 1) != 0))
    of_first = np.flatnonzero(first == rows)
    rows = np.concatenate([rows[of_first], linked % n_rows])
    return rows, np.concatenate([columns[of_first], witness[linked]])


def _all_pairs(chain: _Features, n_bits: int) -> _Ints:
    """Return all near pairs of the chain, (P, 2)."""
    everyone = np.arange(len(chain.hashes))
    blocks = [chain.take(rows) for rows in _blocks(len(everyone), ROWS)]
    is_near = np.concatenate([_compare(rows, chain, everyone, n_bits)[1] for rows in blocks])
    return np.argwhere(np.triu(is_near, 1))


def _blocks(n: int, size: int) -> list[_Ints]:
    return [np.arange(start, min(start + size, n)) for start in range(0, n, size)]


def _compare(
    rows: _Features, others: _Features, columns: _Ints, n_bits: int
) -> tuple[_Greys, _Bools]:
    """Compare R photos with some other photos.

    Args:
        columns: (C,) row numbers in others.

    Returns:
        The number of different hash bits, and whether two photos are near copies, each (R, C).
    """
    distances = np.bitwise_count(rows.hashes[:, None] ^ others.hashes[columns])  # (R, C)
    is_near = distances <= n_bits  # (R, C)
    has_near = is_near.any(axis=0)  # (C,)
    if has_near.all():
        is_near &= _do_agree(rows, others.take(columns))
    elif has_near.any():
        is_near[:, has_near] &= _do_agree(rows, others.take(columns[has_near]))
    return distances, is_near


def _do_agree(rows: _Features, columns: _Features) -> _Bools:
    """Return whether the thumbnails of two photos agree, (R, C)."""
    least_r = np.float32(np.sqrt(1.0 - MAX_RESIDUAL**2))  # residual = sqrt(1 - r^2), and r > 0
    agree: _Bools = rows.shapes @ columns.shapes.T >= least_r  # (R, C)
    i, j = np.nonzero(agree)
    low = np.minimum(rows.contrasts[i], columns.contrasts[j])
    high = np.maximum(rows.contrasts[i], columns.contrasts[j])
    shift = np.abs(rows.means[i] - columns.means[j])
    agree[i, j] = (high <= MAX_CONTRAST_RATIO * low) & (shift <= MAX_MEAN_SHIFT)
    flat_columns = np.flatnonzero(columns.contrasts < FLAT)
    for row, contrast in enumerate(rows.contrasts):
        flat = np.arange(len(columns.greys)) if contrast < FLAT else flat_columns
        if len(flat):
            difference = columns.greys[flat].astype(np.float32) - rows.greys[row]
            agree[row, flat] = np.abs(difference).mean(axis=1) <= FLAT
    return agree
