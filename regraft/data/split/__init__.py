"""Split: which photo is trained on, which chooses, which judges."""

from regraft.data.split.copies import connected, find_near_pairs
from regraft.data.split.table import RELABELLED, WAITING, WIDENED, Splits, split
from regraft.data.split.widening import Widening

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
