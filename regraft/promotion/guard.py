"""One line of a verdict."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Outcome = Literal["passed", "failed", "open", "noted"]
NO_LIMIT = math.nan


@dataclass(frozen=True)
class Guard:
    """One line of a verdict.

    outcome: failed = the challenger may not serve; open = these photos cannot say; noted = there is
        no limit to hold it against.
    measured, limit: the number and what it was held against, NaN where there is none; what they
        count is in said, a sentence.
    """

    name: str
    outcome: Outcome
    measured: float
    limit: float
    said: str


def right(photos: pd.DataFrame, who: Literal["challenger", "champion"]) -> NDArray[np.bool_]:
    """(N,) whether a contender named each photo of a duel rightly."""
    return np.asarray(photos[who] == photos.label)
