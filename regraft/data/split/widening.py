"""What a frozen test side took in all the same, and why."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import pandas as pd

Why = Literal["copy", "new class", "small share"]
WORDS: dict[Why, str] = {
    "copy": "copies or groups of test photos",
    "new class": "of classes that it did not have",
    "small share": "of classes of which it had less than split.widen_test_below",
}


@dataclass(frozen=True)
class Widening:
    """New photos of one class on a frozen test side.

    n_photos: at least 1.
    why: copy = they show what a test photo shows, or belong to its group; new class = there was no
        test photo of the class; small share = there were too few.
    """

    label: str
    n_photos: int
    why: Why


def widenings(placed: pd.DataFrame, new: pd.DataFrame) -> tuple[Widening, ...]:
    """What a frozen test side took in, sorted by label.

    Args:
        placed: columns unit, label, is_here (bool) and remembered (the side before, "" if none).
        new: those of them that have a side for the first time; the same columns, and side.
    """
    before = placed[placed["remembered"] == "test"]
    units, labels = set(before["unit"]), set(before.loc[before["is_here"], "label"])
    added = new[new["side"] == "test"]
    counts = Counter(
        (str(label), _why(int(unit) in units, str(label) in labels))
        for unit, label in zip(added["unit"], added["label"], strict=True)
    )
    return tuple(Widening(label, n, why) for (label, why), n in sorted(counts.items()))


def told(widened: Iterable[Widening]) -> str:
    """How many photos, and why; "" for none.

    >>> told((Widening("cat", 2, "copy"), Widening("emu", 3, "new class")))
    '5 (2 copies or groups of test photos, 3 of classes that it did not have)'
    """
    widened = tuple(widened)
    counts = {why: sum(one.n_photos for one in widened if one.why == why) for why in WORDS}
    parts = ", ".join(f"{n} {WORDS[why]}" for why, n in counts.items() if n)
    return f"{sum(counts.values())} ({parts})" if parts else ""


def _why(is_copy: bool, is_known: bool) -> Why:
    if is_copy:
        return "copy"
    return "small share" if is_known else "new class"
