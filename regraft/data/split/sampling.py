"""Deterministic stratified samples of photos."""

import pandas as pd


def stratified_head(photos: pd.DataFrame, n: int) -> pd.DataFrame:
    """Return n photos in the class shares by Adams's rule, which starts with a photo of each class.

    Within a class, the photos with the lowest sha256 are selected. So the sample does not depend on
    names and order, and added photos replace only few photos of the sample.

    Args:
        photos: with the columns path, sha256 and label.
        n: size of the sample, >= 0. If there are fewer photos, all are returned.
    """
    ordered = photos.sort_values(["sha256", "path"])
    of_class = ordered.groupby("label").sha256
    place = of_class.cumcount() / of_class.transform("size")  # (N,) in [0, 1)
    return ordered.loc[place.sort_values(kind="stable").index[:n]]
