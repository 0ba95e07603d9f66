"""Compare: several backbones on the same photos, and the one that is worth its milliseconds."""

from regraft.evaluation.compare.candidate import config_of, settings_of
from regraft.evaluation.compare.comparison import Comparison, choose_backbone, compare
from regraft.evaluation.compare.plot import plot

__all__ = ["Comparison", "choose_backbone", "compare", "config_of", "plot", "settings_of"]
