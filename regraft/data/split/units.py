"""Unit numbers of photos: copies, near copies and groups share a unit."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from regraft.data.split.assignment import group_duplicates
from regraft.data.split.copies import find_near_pairs


def unit_numbers(photos: pd.DataFrame, n_bits: int, by_group: bool) -> NDArray[np.int64]:
    """Return the unit number of each photo, (N,); copies and near copies share a number.

    Args:
        photos: N rows with the column sha256; for n_bits > 0 also phash and thumbnail, and for
            by_group also group ("" or missing = none).
        n_bits: split.near_duplicate_bits, in [0, 16]; 0 joins exact copies only.
        by_group: whether the photos of a group share a number.
    """
    if photos.empty:
        return np.zeros(0, np.int64)
    groups = photos["group"].fillna("") if by_group else ""
    nodes = photos.assign(content=pd.factorize(photos["sha256"])[0], group=groups)
    pairs = find_near_pairs(nodes.drop_duplicates("sha256"), n_bits)
    return np.asarray(group_duplicates(nodes, pairs), np.int64)
