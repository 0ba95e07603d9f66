"""Statistics of two models on the same photos: intervals, p-values and power."""

from regraft.stats.bootstrap import Increase, Positions, paired_bootstrap
from regraft.stats.gain import compute_power, discordant_share, gain_p_value, smallest_gain
from regraft.stats.holm import holm
from regraft.stats.interval import CONFIDENCE, mcnemar, paired_interval
from regraft.stats.transfer_gain import TransferGain

__all__ = [
    "CONFIDENCE",
    "Increase",
    "Positions",
    "TransferGain",
    "compute_power",
    "discordant_share",
    "gain_p_value",
    "holm",
    "mcnemar",
    "paired_bootstrap",
    "paired_interval",
    "smallest_gain",
]
