"""The splits that the user gave."""

import pandas as pd

from regraft.core.config import SplitConfig


def given_splits(photos: pd.DataFrame, config: SplitConfig) -> "pd.Series[str]":
    """Return the given split of each photo, "" if the user gave none.

    With config.validation_as_test, given validation photos are test photos, unless other photos
    were given as test.

    Args:
        photos: columns given_split and is_here (bool: False = only recorded in the memory).
    """
    given = photos["given_split"].where(photos["is_here"], "").fillna("")
    if config.validation_as_test and not (given == "test").any():
        return given.replace("validation", "test")
    return given
