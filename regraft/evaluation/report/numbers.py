"""Numbers of a report as text: shares, intervals and differences."""

import pandas as pd

UNDEFINED = "\N{EN DASH}"
MINUS = "\N{MINUS SIGN}"


def percent(share: float, digits: int = 1) -> str:
    """Return the share as a percentage with a no-break space; UNDEFINED for NaN."""
    return UNDEFINED if pd.isna(share) else f"{100 * share:.{digits}f}\N{NO-BREAK SPACE}%"


def bounds(low: float, high: float, digits: int = 1) -> str:
    """Return an interval as percentages, "80.4-90.5 %" with an en dash; UNDEFINED for NaN."""
    if pd.isna(low):
        return UNDEFINED
    return f"{100 * low:.{digits}f}\N{EN DASH}{percent(high, digits)}"


def points(gain: float, digits: int = 1) -> str:
    """Return the difference of two shares in points, with a sign.

    >>> points(0.432)
    '+43.2'
    """
    return f"{100 * gain:+.{digits}f}".replace("-", MINUS)
