"""Many p-values at once: what each is still worth."""

import math
from collections.abc import Sequence


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """The adjusted p-values, in the same order, in [0, 1]: at most `level` = shown at that level.

    The chance that any of them is <= level although there is nothing to show is at most level,
    however the tests depend on each other.

    Args:
        p_values: (K,), each in [0, 1], or NaN where nothing could be tested: NaN stays NaN and the
            others are not adjusted for it.

    Source: Holm 1979. Neither scipy nor scikit-learn has it.

    >>> holm([0.03, 0.01, math.nan])
    (0.03, 0.02, nan)
    """
    tested = sorted((p, place) for place, p in enumerate(p_values) if not math.isnan(p))
    adjusted = [math.nan] * len(p_values)
    largest = 0.0
    for rank, (p, place) in enumerate(tested):
        largest = max(largest, min(1.0, (len(tested) - rank) * p))
        adjusted[place] = largest
    return tuple(adjusted)
