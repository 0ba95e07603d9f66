"""Comparison of several backbones on the same photos, and the choice of a backbone."""

from regraft.evaluation.compare.candidate import config_overrides, parse_candidate
from regraft.evaluation.compare.comparison import Comparison, choose_backbone, compare
from regraft.evaluation.compare.plot import plot

__all__ = [
    "Comparison",
    "choose_backbone",
    "compare",
    "config_overrides",
    "parse_candidate",
    "plot",
]
