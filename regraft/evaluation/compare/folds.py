"""Which photos a head is solved on, which choose its penalty, and which judge it."""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold

from regraft.core.errors import DataError
from regraft.data.split.copies import find_near_pairs
from regraft.data.split.sides import unite

N_FOLDS = 5  # Source: Hastie et al. 2009, sec. 7.10 recommend 5 or 10; 10 take twice as long

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Fold:
    """Positions of photos; no photo, copy or group stands in two of fit, choose and judge.

    train: all that is not for judging; of these,
    fit: what a head is solved on while its penalty is chosen, and
    choose: what chooses the penalty.
    judge: what the head, solved again on all of train, is asked about.
    """

    train: Ints
    fit: Ints
    choose: Ints
    judge: Ints


def units_of(photos: pd.DataFrame, n_bits: int) -> Ints:
    """(N,) the number of each photo's unit: copies, near copies and a group share one.

    Args:
        photos: columns sha256 and group, and for n_bits > 0 phash and thumbnail, as in Splits.
        n_bits: split.near_duplicate_bits, as the sides themselves were made with.
    """
    content = pd.factorize(photos["sha256"])[0]
    nodes = photos.assign(content=content)
    pairs = find_near_pairs(nodes.drop_duplicates("sha256"), n_bits)
    return np.asarray(unite(nodes, pairs), np.int64)


def folds_of(y: Ints, units: Ints, seed: int) -> tuple[Fold, ...]:
    """At most N_FOLDS folds with about the same classes each; every photo judges exactly once.

    Args:
        y: (N,) classes.
        units: (N,) what must stay together.
        seed: of the draw; any integer >= 0.

    Raises:
        DataError: everything is one unit.
    """
    if len(np.unique(units)) < 2:
        raise DataError(
            f"Expected photos that can be told apart to compare backbones on, got {len(y)} that "
            "are all copies of each other or one group. Add photos."
        )
    return tuple(_inner(train, judge, y, units, seed) for train, judge in _cuts(y, units, seed))


def _inner(train: Ints, judge: Ints, y: Ints, units: Ints, seed: int) -> Fold:
    """The training photos cut once more; a single unit must both fit and choose."""
    cuts = _cuts(y[train], units[train], seed) if len(np.unique(units[train])) > 1 else iter(())
    everything = np.arange(len(train))
    fit, choose = next(cuts, (everything, everything))
    return Fold(train, train[fit], train[choose], judge)


def _cuts(y: Ints, units: Ints, seed: int) -> Iterator[tuple[Ints, Ints]]:
    largest = int(np.bincount(y).max())  # with more folds than that there is nothing to stratify
    n_folds = max(2, min(N_FOLDS, len(np.unique(units)), largest))
    strata = y if largest > 1 else np.zeros_like(y)
    cutter = StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():  # of classes with fewer photos than folds
        warnings.simplefilter("ignore", UserWarning)
        cuts = list(cutter.split(np.zeros(len(y)), strata, units))
    return ((rest, part) for rest, part in cuts if len(rest) and len(part))
