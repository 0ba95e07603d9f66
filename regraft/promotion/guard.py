"""The result of one check of a verdict."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from regraft.core.outcomes import CheckOutcome

NO_LIMIT = math.nan


@dataclass(frozen=True)
class Guard:
    """The result of one check of a verdict.

    outcome: failed = the challenger may not become champion; inconclusive = too few photos to
        decide; info = a measurement without a limit.
    measured, limit: the measured number and its limit, NaN where there is none.
    message: a sentence with the number and its unit.
    """

    name: str
    outcome: CheckOutcome
    measured: float
    limit: float
    message: str


def is_correct(photos: pd.DataFrame, who: Literal["challenger", "champion"]) -> NDArray[np.bool_]:
    """Return (N,) whether the model predicted the label of each photo of a paired evaluation."""
    return np.asarray(photos[who] == photos.label)
