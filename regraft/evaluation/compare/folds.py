"""Cross-validation folds, with photos to solve a head, to choose its penalty, and to judge it."""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold

from regraft.core.errors import DataError

N_FOLDS = 5  # Source: Hastie et al. 2009, sec. 7.10 recommend 5 or 10; 10 take twice as long

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Fold:
    """Positions of photos; no photo, copy or group is in two of fit, choose and judge.

    train: all photos except those of judge.
    fit: the part of train that heads are solved on while the penalty is chosen.
    choose: the part of train that chooses the penalty.
    judge: the photos that test the final head, which is solved on all of train.
    """

    train: Ints
    fit: Ints
    choose: Ints
    judge: Ints


def make_folds(y: Ints, units: Ints, seed: int) -> tuple[Fold, ...]:
    """Return at most N_FOLDS stratified folds; every photo is in exactly one judge.

    Args:
        y: (N,) classes.
        units: (N,) numbers of units that must stay together, see unit_numbers().
        seed: of the draw; any integer >= 0.

    Raises:
        DataError: all photos are one unit.
    """
    if len(np.unique(units)) < 2:
        raise DataError(
            f"Expected at least two different photos to compare backbones on, got {len(y)} photos "
            "that are all copies of each other or of one group. Add photos."
        )
    return tuple(
        _with_inner(train, judge, y, units, seed) for train, judge in _cuts(y, units, seed)
    )


def _with_inner(train: Ints, judge: Ints, y: Ints, units: Ints, seed: int) -> Fold:
    """Return the fold with train divided once more; a single unit is both fit and choose."""
    cuts = _cuts(y[train], units[train], seed) if len(np.unique(units[train])) > 1 else iter(())
    everything = np.arange(len(train))
    fit, choose = next(cuts, (everything, everything))
    return Fold(train, train[fit], train[choose], judge)


def _cuts(y: Ints, units: Ints, seed: int) -> Iterator[tuple[Ints, Ints]]:
    largest = int(np.bincount(y).max())  # more folds than photos of a class cannot be stratified
    n_folds = max(2, min(N_FOLDS, len(np.unique(units)), largest))
    strata = y if largest > 1 else np.zeros_like(y)
    cutter = StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():  # for classes with fewer photos than folds
        warnings.simplefilter("ignore", UserWarning)
        cuts = list(cutter.split(np.zeros(len(y)), strata, units))
    return ((rest, part) for rest, part in cuts if len(rest) and len(part))
