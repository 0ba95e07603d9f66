"""The automatic assignment: whole units are distributed over train, validation and test."""

import hashlib
import math
from collections import defaultdict
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from regraft.data.split.copies import NearPairs, connected

SPLIT_NAMES = ("train", "validation", "test")


@dataclass(frozen=True)
class Shares:
    """The share of each class in each split.

    Attributes:
        fractions: shares of the assignable photos of a class, in (0, 1), for "test", "validation"
            or both, in this order: the higher-ranked split is filled first.
        salt: a different salt gives a different split; "" = order by the content hash itself.
        extend_test_below: None = test is filled up to its share whenever photos are added. A
            number means that test is frozen, and is the share of a class, in [0, 1], below which
            test still accepts new photos of that class.
    """

    fractions: dict[str, float]
    salt: str = ""
    extend_test_below: float | None = None


class _Unit(NamedTuple):
    """A unit without a split; units are sorted by key."""

    key: str
    number: int
    n_photos: int


@dataclass
class _ClassState:
    """The state of a class during the assignment of its units.

    n_photos, n_units: of the class. filled: {split: number of photos}. waiting: units without a
    split, sorted. assigned: {unit number: split}.
    """

    n_photos: int
    n_units: int
    filled: dict[str, int]
    waiting: list[_Unit]
    assigned: dict[int, str]


def group_duplicates(photos: pd.DataFrame, pairs: NearPairs) -> "pd.Series[int]":
    """Return the unit number of each photo; the photos of a unit must be in the same split.

    Args:
        photos: columns content (the row numbers in pairs) and group.
        pairs: near copies.

    Returns:
        A series with the index of photos. Two photos share a unit if a chain of equal contents,
        near copies and equal groups connects them.
    """
    contents = photos["content"].to_numpy()
    n_contents = int(contents.max()) + 1
    grouped = (photos["group"] != "").to_numpy()
    group_nodes = n_contents + pd.factorize(photos["group"].to_numpy()[grouped])[0]
    first = np.concatenate([pairs.first, contents[grouped]])
    second = np.concatenate([pairs.second, group_nodes])
    components = connected(n_contents + int(grouped.sum()), first, second)
    return pd.Series(components[contents], index=photos.index)


def assign(photos: pd.DataFrame, shares: Shares) -> "pd.Series[str]":
    """Return a split for every photo.

    A photo with a split keeps it. A photo without a split takes the split of its unit. If the unit
    is in two splits, or contains a photo with a given split, the photo goes to train, and the leak
    detection decides about it. Units without any split are distributed class by class; the class of
    a unit is its most frequent label. In the order of a content hash, test takes the units that fit
    into its share of the photos of the class, then validation does; train takes the rest. So a
    split never exceeds its (rounded) share, and misses it by less than the size of a unit, except
    that a class of three or more units has at least one unit in each split.

    A frozen test split takes no units of a class that it contains, unless its share of the class is
    below shares.extend_test_below: then it takes new units up to this share, in the same order. Of
    a class that it does not contain, it takes its share of the new photos. The rule applies to each
    class, because the share of all photos could stay large enough while a class that grows alone
    would always be judged by a few photos.

    Args:
        photos: columns unit, label, sha256, group, split ("" = none yet), is_given (bool: the user
            gave the split) and is_free (bool: this function assigns or has assigned the split, so
            the photo counts in the shares of its class). Photos that are only recorded in the
            memory are neither given nor free.
        shares: of the splits.

    Returns:
        Splits with the index of photos.
    """
    joined = _by_unit(photos["unit"], _splits_of_units(photos), "")
    split = photos["split"].where(photos["split"] != "", joined)
    assigned: dict[int, str] = {}
    for state in _class_states(photos.assign(split=split), shares.salt):
        _distribute(state, shares)
        assigned |= state.assigned
    return split.where(split != "", _by_unit(photos["unit"], assigned, "train"))


def _by_unit(units: "pd.Series[int]", splits: dict[int, str], default: str) -> "pd.Series[str]":
    return pd.Series([splits.get(unit, default) for unit in units], units.index, dtype=str)


def _splits_of_units(photos: pd.DataFrame) -> dict[int, str]:
    placed = photos[photos["split"] != ""]
    n_splits = placed.groupby("unit")["split"].nunique()
    any_given = placed.groupby("unit")["is_given"].any()
    first = placed.groupby("unit")["split"].first()
    splits = first.where((n_splits == 1) & ~any_given, "train")
    return dict(splits.items())  # type: ignore[arg-type]


def _class_states(photos: pd.DataFrame, salt: str) -> list[_ClassState]:
    free = photos[photos["is_free"]]
    if free.empty:
        return []
    counts = free.groupby(["unit", "label"]).size().rename("n").reset_index()
    counts = counts.sort_values(["unit", "n", "label"], ascending=[True, False, True])
    label_of = counts.drop_duplicates("unit").set_index("unit")["label"]
    free = free.assign(unit_label=free["unit"].map(label_of), key=_keys(free, salt))
    return [_class_state(rows) for _, rows in free.groupby("unit_label")]


def _keys(photos: pd.DataFrame, salt: str) -> "pd.Series[str]":
    """Return the hashes that order units: of the content, or of the name of the group, if any."""
    names = photos["sha256"].where(photos["group"] == "", photos["group"])
    plain = (photos["group"] == "") & (salt == "")
    hashed = [hashlib.sha256(f"{salt}{name}".encode()).hexdigest() for name in names]
    return photos["sha256"].where(plain, pd.Series(hashed, names.index, dtype=str))


def _class_state(rows: pd.DataFrame) -> _ClassState:
    new = rows[rows["split"] == ""]
    keys: dict[int, list[str]] = defaultdict(list)
    for unit, key in zip(new["unit"].tolist(), new["key"].tolist(), strict=True):
        keys[unit].append(key)
    counts = rows["split"].value_counts()
    return _ClassState(
        n_photos=len(rows),
        n_units=rows["unit"].nunique(),
        filled={split: int(counts.get(split, 0)) for split in SPLIT_NAMES},
        waiting=sorted(_Unit(min(those), unit, len(those)) for unit, those in keys.items()),
        assigned={},
    )


def _distribute(state: _ClassState, shares: Shares) -> None:
    """Assign the waiting units of a class; the units that stay unassigned belong to train."""
    wanted = {split: _wanted(state, split, shares) for split in shares.fractions}
    n_for_train = 0 if state.filled["train"] else 1
    state.waiting = state.waiting[: max(0, len(state.waiting) - n_for_train)]
    splits = list(wanted)
    for position, split in enumerate(splits):
        later = splits[position + 1 :]
        n_spared = sum(not state.filled[other] for other in later) if state.n_units >= 3 else 0
        _fill(state, split, wanted[split], n_spared)


def _wanted(state: _ClassState, split: str, shares: Shares) -> int:
    """Return the number of photos of the class up to which a split is filled."""
    fraction = shares.fractions[split]
    if split != "test" or shares.extend_test_below is None:
        return int(fraction * state.n_photos + 0.5)
    if state.filled["test"]:
        least = shares.extend_test_below * state.n_photos
        return math.ceil(least - 1e-9)  # 0.07 * 100 is a little more than 7 in binary
    n_new = state.n_photos - sum(state.filled.values())
    return int(fraction * n_new + 0.5)


def _fill(state: _ClassState, split: str, share: int, n_spared: int) -> None:
    """Assign the units that fit to the split; spare some units for splits that are filled later."""
    for unit in list(state.waiting):
        if len(state.waiting) > n_spared and state.filled[split] + unit.n_photos <= share:
            _assign(state, split, unit)
    if state.n_units >= 3 and not state.filled[split] and len(state.waiting) > n_spared:
        _assign(state, split, min(state.waiting, key=lambda unit: (unit.n_photos, unit.key)))


def _assign(state: _ClassState, split: str, unit: _Unit) -> None:
    state.assigned[unit.number] = split
    state.filled[split] += unit.n_photos
    state.waiting.remove(unit)
