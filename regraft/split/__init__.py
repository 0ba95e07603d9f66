"""Split: which photo is trained on, which chooses, which judges."""

from regraft.split.copies import connected, find_near_pairs
from regraft.split.table import RELABELLED, WAITING, WIDENED, Splits, split
from regraft.split.widening import Widening

__all__ = [
    "RELABELLED",
    "WAITING",
    "WIDENED",
    "Splits",
    "Widening",
    "connected",
    "find_near_pairs",
    "split",
]
