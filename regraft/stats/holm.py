"""Correction of p-values for the number of tests."""

import math
from collections.abc import Sequence


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Return the adjusted p-values in the same order, in [0, 1].

    If none of the tested effects exists, the chance that any adjusted p-value is <= level is at
    most level, for any dependence between the tests.

    Args:
        p_values: (K,), each in [0, 1], or NaN where nothing could be tested. NaN stays NaN and does
            not count as a test.

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
