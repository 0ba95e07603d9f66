"""Split: which photo is trained on, which chooses, which judges."""

from regraft.split.copies import connected, find_near_pairs
from regraft.split.table import Splits, split

__all__ = ["Splits", "connected", "find_near_pairs", "split"]
