"""The same photo on two sides: found, told, and dropped from the side that judges less."""

import pandas as pd

from regraft.core.errors import SplitLeak
from regraft.data.split.copies import NearPairs

COLUMNS = (
    "path",
    "label",
    "side",
    "other_path",
    "other_label",
    "other_side",
    "kind",
    "distance",
    "action",
)
_RANK = {"train": 0, "validation": 1, "test": 2}
_KINDS = {"copy": 0, "near copy": 1, "group": 2}


def find_leaks(photos: pd.DataFrame, pairs: NearPairs, *, drop: bool) -> pd.DataFrame:
    """One row a photo that has a copy, a near copy or its group on a side that judges more.

    Test judges more than validation, validation more than train. With drop, a train photo is
    compared with the validation photos that stay.

    Args:
        photos: columns path, label, side, group, unit (what belongs together, see unite()) and
            content (the row numbers pairs speak of).
        pairs: near copies.
        drop: the action: "dropped", else "kept".

    Returns:
        Columns as COLUMNS, with the index of photos; kind is copy, near copy or group; distance is
        in hash bits, 0 for a copy, -1 for a group; where there are several others, the row shows
        the closest.
    """
    placed = photos.drop_duplicates(["unit", "side"])["unit"]
    is_torn = photos["unit"].isin(placed[placed.duplicated()])
    if not is_torn.any():  # the usual case: a leak needs a unit that stands on two sides
        return _no_leaks(photos)
    photos, found = photos[is_torn], []
    for side in ("validation", "train"):
        leaks = _leaks_of(side, photos, pairs)
        found.append(leaks)
        if drop:
            photos = photos.drop(index=leaks.index)
    action = "dropped" if drop else "kept"
    return pd.concat(found).assign(action=action)[list(COLUMNS)].sort_values("path")


def _no_leaks(photos: pd.DataFrame) -> pd.DataFrame:
    types = dict.fromkeys(COLUMNS, "str") | {"distance": "int64"}
    return pd.DataFrame(index=photos.index[:0], columns=list(COLUMNS)).astype(types)


def refuse_leaks(leaks: pd.DataFrame) -> None:
    """Nothing, if there are no leaks.

    Raises:
        SplitLeak: there are; counts them and shows the first.
    """
    if leaks.empty:
        return
    first = leaks.iloc[0]
    what = {
        "copy": "the same bytes",
        "near copy": f"nearly the same photo, {first['distance']} of 64 hash bits apart",
        "group": "the same group",
    }[str(first["kind"])]
    raise SplitLeak(
        f"{len(leaks)} photos appear on two sides of the split (first: {first['path']} on "
        f"{first['side']} = {first['other_path']} on {first['other_side']}, {what}). Remove the "
        f"copies, or set split.on_leak=drop to leave them out."
    )


def _leaks_of(side: str, photos: pd.DataFrame, pairs: NearPairs) -> pd.DataFrame:
    rank = photos["side"].map(_RANK)
    mine = photos[photos["side"] == side].reset_index(names="row")
    others = photos[rank > _RANK[side]].assign(rank=rank).sort_values(["rank", "path"])
    grouped = others[others["group"] != ""]
    matches = [
        _match(mine, "content", others, "copy").assign(distance=0),
        _match(_with_near(mine, pairs), "near", others, "near copy"),
        _match(mine, "group", grouped, "group").assign(distance=-1),
    ]
    found = pd.concat([match for match in matches if len(match)] or matches[:1])
    order = found["kind"].map(_KINDS)
    found = found.assign(order=order).sort_values(["order", "distance", "rank", "other_path"])
    return found.drop_duplicates("row").set_index("row")


def _with_near(mine: pd.DataFrame, pairs: NearPairs) -> pd.DataFrame:
    one_way = pd.DataFrame(
        {"content": pairs.first, "near": pairs.second, "distance": pairs.distance}
    )
    both = pd.concat([one_way, one_way.rename(columns={"content": "near", "near": "content"})])
    return mine.merge(both, on="content")


def _match(mine: pd.DataFrame, key: str, others: pd.DataFrame, kind: str) -> pd.DataFrame:
    """Each of mine beside the first of the others with the same key, if there is one."""
    theirs = "content" if key == "near" else key
    named = pd.DataFrame(
        {
            key: others[theirs],
            "other_path": others["path"],
            "other_label": others["label"],
            "other_side": others["side"],
            "rank": others["rank"],
        }
    ).drop_duplicates(key)
    return mine.merge(named, on=key).assign(kind=kind)
