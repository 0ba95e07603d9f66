"""Split: the photos for training, for validation and for the test."""

from regraft.data.split.extension import SplitExtension
from regraft.data.split.sampling import stratified_head
from regraft.data.split.table import Splits, split
from regraft.data.split.units import unit_numbers

__all__ = [
    "SplitExtension",
    "Splits",
    "split",
    "stratified_head",
    "unit_numbers",
]
