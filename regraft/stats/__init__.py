"""Two answers to the same photos: how far apart they are, and how surely."""

from regraft.stats.bootstrap import Positions, Rise, paired_bootstrap
from regraft.stats.gain import discordant_share, gain_p_value, power_of, smallest_gain
from regraft.stats.holm import holm
from regraft.stats.interval import CONFIDENCE, mcnemar, paired_interval

__all__ = [
    "CONFIDENCE",
    "Positions",
    "Rise",
    "discordant_share",
    "gain_p_value",
    "holm",
    "mcnemar",
    "paired_bootstrap",
    "paired_interval",
    "power_of",
    "smallest_gain",
]
