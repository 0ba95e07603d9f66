"""Split: which photo is trained on, which chooses, which judges."""

from regraft.split.table import Splits, split

__all__ = ["Splits", "split"]
