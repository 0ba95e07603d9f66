"""The automatic rule: whole units are shared out among train, validation and test."""

import hashlib
import math
from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import pandas as pd

from regraft.data.split.copies import NearPairs, connected

SIDES = ("train", "validation", "test")


@dataclass(frozen=True)
class Shares:
    """How much of each class the sides get.

    Attributes:
        fractions: of a class's free photos, for "test", "validation" or both, in that order: who
            judges more chooses first.
        salt: another salt, another split; "" = the content hash as it is.
        widen_below: None: test is filled up to its share as photos come. Else it is frozen, and
            this is the share of a class, in [0, 1], below which it takes new photos of that class
            all the same.
    """

    fractions: dict[str, float]
    salt: str = ""
    widen_below: float | None = None


@dataclass
class _Class:
    """One class while its units are shared out."""

    n_photos: int
    n_units: int
    filled: dict[str, int]  # photos a side
    waiting: list[tuple[str, int, int]]  # new units, sorted: (key, unit, photos in it)
    given: dict[int, str]  # unit -> side


def unite(photos: pd.DataFrame, pairs: NearPairs) -> "pd.Series[int]":
    """The number of each photo's unit: what must stay on one side.

    Args:
        photos: columns content (the row numbers that pairs speak of) and group.
        pairs: near copies.

    Returns:
        A series like photos; two photos share a unit if a chain of equal contents, near copies and
        equal groups leads from one to the other.
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
    """A side for every photo.

    A photo that has a side keeps it. One without takes the side of its unit; where the unit stands
    on two sides (the photo is a bridge), or holds a photo whose side the user gave, it goes to
    train, and the search for leaks judges it. Units without any side are shared out class by class,
    the class of a unit being its most frequent label: in the order of a content hash, test takes
    what fits into its share of the class's photos, then validation; the rest is train. So a side
    never exceeds its share (rounded) and misses it by less than one unit of the class; except that
    a class of three units or more has at least one on each side.

    A frozen test side has all that it needs of a class that it has; where that is less than
    shares.widen_below of the class, it takes new units up to there, in the same order. Of a class
    that it does not have it takes its share of the new photos. It is done class by class because a
    class that grows alone would else be judged by a handful of photos for ever, while the share of
    all photos still looked large enough.

    Args:
        photos: columns unit, label, sha256, group, side ("" = none yet), is_given (bool: the user
            gave the side) and is_free (bool: it did or will get its side from this rule, so the
            shares of its class count it). Photos only remembered are neither.
        shares: of the sides.

    Returns:
        Sides with the index of photos.
    """
    joined = _looked_up(photos["unit"], _sides_of_units(photos), "")
    side = photos["side"].where(photos["side"] != "", joined)
    shared_out: dict[int, str] = {}
    for one in _classes(photos.assign(side=side), shares.salt):
        _share_out(one, shares)
        shared_out |= one.given
    return side.where(side != "", _looked_up(photos["unit"], shared_out, "train"))


def _looked_up(units: "pd.Series[int]", sides: dict[int, str], otherwise: str) -> "pd.Series[str]":
    return pd.Series([sides.get(unit, otherwise) for unit in units], units.index, dtype=str)


def _sides_of_units(photos: pd.DataFrame) -> dict[int, str]:
    placed = photos[photos["side"] != ""]
    n_sides = placed.groupby("unit")["side"].nunique()
    any_given = placed.groupby("unit")["is_given"].any()
    first = placed.groupby("unit")["side"].first()
    return dict(first.where((n_sides == 1) & ~any_given, "train").items())  # type: ignore[arg-type]


def _classes(photos: pd.DataFrame, salt: str) -> list[_Class]:
    free = photos[photos["is_free"]]
    if free.empty:
        return []
    counts = free.groupby(["unit", "label"]).size().rename("n").reset_index()
    counts = counts.sort_values(["unit", "n", "label"], ascending=[True, False, True])
    label_of = counts.drop_duplicates("unit").set_index("unit")["label"]
    free = free.assign(unit_label=free["unit"].map(label_of), key=_keys(free, salt))
    return [_class(rows) for _, rows in free.groupby("unit_label")]


def _keys(photos: pd.DataFrame, salt: str) -> "pd.Series[str]":
    """The hash that orders units: of the group's name, so that it stays as the group grows."""
    names = photos["sha256"].where(photos["group"] == "", photos["group"])
    plain = (photos["group"] == "") & (salt == "")
    hashed = [hashlib.sha256(f"{salt}{name}".encode()).hexdigest() for name in names]
    return photos["sha256"].where(plain, pd.Series(hashed, names.index, dtype=str))


def _class(rows: pd.DataFrame) -> _Class:
    new = rows[rows["side"] == ""]
    keys: dict[int, list[str]] = defaultdict(list)
    for unit, key in zip(new["unit"].tolist(), new["key"].tolist(), strict=True):
        keys[unit].append(key)
    counts = rows["side"].value_counts()
    return _Class(
        n_photos=len(rows),
        n_units=rows["unit"].nunique(),
        filled={side: int(counts.get(side, 0)) for side in SIDES},
        waiting=sorted((min(those), unit, len(those)) for unit, those in keys.items()),
        given={},
    )


def _share_out(one: _Class, shares: Shares) -> None:
    """Moves units from waiting to given; what is left waiting is for train."""
    wanted = {side: _wanted(one, side, shares) for side in shares.fractions}
    kept_for_train = [] if one.filled["train"] else one.waiting[-1:]
    one.waiting = one.waiting[: len(one.waiting) - len(kept_for_train)]
    sides = list(wanted)
    for position, side in enumerate(sides):
        later = sides[position + 1 :]
        n_spared = sum(not one.filled[other] for other in later) if one.n_units >= 3 else 0
        _fill(one, side, wanted[side], n_spared)


def _wanted(one: _Class, side: str, shares: Shares) -> int:
    """Photos of the class that a side is filled up to."""
    fraction = shares.fractions[side]
    if side != "test" or shares.widen_below is None:
        return int(fraction * one.n_photos + 0.5)
    if one.filled["test"]:
        least = shares.widen_below * one.n_photos
        return math.ceil(least - 1e-9)  # 0.07 * 100 is a little more than 7 in binary
    n_new = one.n_photos - sum(one.filled.values())
    return int(fraction * n_new + 0.5)


def _fill(one: _Class, side: str, share: int, n_spared: int) -> None:
    """Gives the side the units that fit, sparing some for the sides that choose later."""
    for entry in list(one.waiting):
        if len(one.waiting) > n_spared and one.filled[side] + entry[2] <= share:
            _give(one, side, entry)
    if one.n_units >= 3 and not one.filled[side] and len(one.waiting) > n_spared:
        _give(one, side, min(one.waiting, key=lambda entry: (entry[2], entry[0])))


def _give(one: _Class, side: str, entry: tuple[str, int, int]) -> None:
    _, unit, n_photos = entry
    one.given[unit] = side
    one.filled[side] += n_photos
    one.waiting.remove(entry)
