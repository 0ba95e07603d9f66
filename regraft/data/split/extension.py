"""The new photos that a frozen test split accepts, with the reasons."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import pandas as pd

Reason = Literal["copy", "new class", "small share"]
REASON_TEXTS: dict[Reason, str] = {
    "copy": "copies or groups of test photos",
    "new class": "of classes that were not in the test split",
    "small share": "of classes with a test share below split.widen_test_below",
}


@dataclass(frozen=True)
class SplitExtension:
    """New photos of a class in a frozen test split.

    n_photos: at least 1.
    reason: copy = copies of test photos, or photos of their groups; new class = the test split had
        no photo of the class; small share = the test split had too small a share of the class.
    """

    label: str
    n_photos: int
    reason: Reason


def find_extensions(placed: pd.DataFrame, new: pd.DataFrame) -> tuple[SplitExtension, ...]:
    """Return the extensions of a frozen test split, sorted by label.

    Args:
        placed: columns unit, label, is_here (bool) and remembered (the recorded split, "" if none).
        new: the rows of placed that are assigned for the first time; the same columns, and split.
    """
    before = placed[placed["remembered"] == "test"]
    units, labels = set(before["unit"]), set(before.loc[before["is_here"], "label"])
    added = new[new["split"] == "test"]
    counts = Counter(
        (str(label), _reason(int(unit) in units, str(label) in labels))
        for unit, label in zip(added["unit"], added["label"], strict=True)
    )
    return tuple(SplitExtension(label, n, reason) for (label, reason), n in sorted(counts.items()))


def format_extensions(extensions: Iterable[SplitExtension]) -> str:
    """Return the number of new photos by reason; "" for none.

    >>> format_extensions((SplitExtension("cat", 2, "copy"), SplitExtension("emu", 3, "new class")))
    '5 (2 copies or groups of test photos, 3 of classes that were not in the test split)'
    """
    counts = dict.fromkeys(REASON_TEXTS, 0)
    for extension in extensions:
        counts[extension.reason] += extension.n_photos
    parts = ", ".join(f"{n} {REASON_TEXTS[reason]}" for reason, n in counts.items() if n)
    return f"{sum(counts.values())} ({parts})" if parts else ""


def _reason(is_copy: bool, is_known_class: bool) -> Reason:
    if is_copy:
        return "copy"
    return "small share" if is_known_class else "new class"
