"""Leaks: copies of a photo in two splits, and their removal from the lower-ranked split."""

import pandas as pd

from regraft.core.errors import SplitLeak
from regraft.core.text import format_count
from regraft.data.split.copies import find_closest_copies

COLUMNS = (
    "path",
    "label",
    "split",
    "other_path",
    "other_label",
    "other_split",
    "kind",
    "distance",
    "action",
)
_RANK = {"train": 0, "validation": 1, "test": 2}
_OTHER = {"path": "other_path", "label": "other_label", "split": "other_split", "rank": "rank"}
_KINDS = {"copy": 0, "near copy": 1, "group": 2}


def find_leaks(photos: pd.DataFrame, n_bits: int, *, drop: bool) -> pd.DataFrame:
    """Return the leaks: photos with a copy, a near copy or their group in a higher-ranked split.

    Test ranks above validation, and validation above train. With drop, train photos are compared
    only with the validation photos that remain.

    Args:
        photos: columns path, label, split, group, unit (see group_duplicates()), content (equal
            for exact copies), phash and thumbnail.
        n_bits: split.near_duplicate_bits, in [0, 16].
        drop: whether the action is "dropped" instead of "kept".

    Returns:
        One row per photo, columns as COLUMNS, with the index of photos. kind is copy, near copy or
        group. distance is in hash bits, 0 for a copy, -1 for a group. If a photo matches several
        others, the row contains the closest.
    """
    placed = photos.drop_duplicates(["unit", "split"])["unit"]
    is_torn = photos["unit"].isin(placed[placed.duplicated()])
    if not is_torn.any():  # the usual case: a leak requires a unit in two splits
        return _no_leaks(photos)
    photos, leaks = photos[is_torn], []
    for split in ("validation", "train"):
        leaks.append(_leaks_of(split, photos, n_bits))
        if drop:
            photos = photos.drop(index=leaks[-1].index)
    action = "dropped" if drop else "kept"
    return pd.concat(leaks).assign(action=action)[list(COLUMNS)].sort_values("path")


def _no_leaks(photos: pd.DataFrame) -> pd.DataFrame:
    types = dict.fromkeys(COLUMNS, "str") | {"distance": "int64"}
    return pd.DataFrame(index=photos.index[:0], columns=list(COLUMNS)).astype(types)


def refuse_leaks(leaks: pd.DataFrame) -> None:
    """Raise an error if there are leaks.

    Raises:
        SplitLeak: there are leaks; the message contains their number and the first leak.
    """
    if leaks.empty:
        return
    first = leaks.iloc[0]
    what = {
        "copy": "the same bytes",
        "near copy": f"nearly the same photo, {first['distance']} of 64 hash bits differ",
        "group": "the same group",
    }[str(first["kind"])]
    raise SplitLeak(
        f"Expected each photo in a single split, got {format_count(len(leaks), 'photo')} in two "
        "splits (first: "
        f"{first['path']} in {first['split']} = {first['other_path']} in {first['other_split']}, "
        f"{what}). Remove the copies, or set split.on_leak=drop to exclude them."
    )


def _leaks_of(split: str, photos: pd.DataFrame, n_bits: int) -> pd.DataFrame:
    rank = photos["split"].map(_RANK)
    mine = photos[photos["split"] == split].reset_index(names="row")
    others = photos[rank > _RANK[split]].assign(rank=rank).sort_values(["rank", "path"])
    grouped = others[others["group"] != ""]
    matches = [
        _match(mine, "content", others, "copy").assign(distance=0),
        _near_copies(mine, others, n_bits),
        _match(mine, "group", grouped, "group").assign(distance=-1),
    ]
    leaks = pd.concat([match for match in matches if len(match)] or matches[:1])
    order = leaks["kind"].map(_KINDS)
    leaks = leaks.assign(order=order).sort_values(["order", "distance", "rank", "other_path"])
    return leaks.drop_duplicates("row").set_index("row")


def _near_copies(mine: pd.DataFrame, others: pd.DataFrame, n_bits: int) -> pd.DataFrame:
    """Join each photo of mine with its closest near copy in others, if any."""
    near = find_closest_copies(mine, others, n_bits)
    photos = mine.iloc[near.first].reset_index(drop=True)
    copies = others.iloc[near.second][list(_OTHER)].rename(columns=_OTHER).reset_index(drop=True)
    matches = pd.concat([photos, copies], axis=1)
    return matches.assign(kind="near copy", distance=near.distance)


def _match(mine: pd.DataFrame, key: str, others: pd.DataFrame, kind: str) -> pd.DataFrame:
    """Join each photo of mine with the first photo of others that has the same key, if any."""
    named = others[[key, *_OTHER]].rename(columns=_OTHER).drop_duplicates(key)
    return mine.merge(named, on=key).assign(kind=kind)
