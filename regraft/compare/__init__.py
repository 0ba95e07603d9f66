"""Compare: several backbones on the same photos, and the one that is worth its milliseconds."""

from regraft.compare.candidate import config_of, settings_of
from regraft.compare.comparison import Comparison, choose_backbone, compare
from regraft.compare.plot import plot

__all__ = ["Comparison", "choose_backbone", "compare", "config_of", "plot", "settings_of"]
