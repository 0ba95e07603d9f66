"""Fine-tuning: solve the head on the frozen backbone, then train the thawed part."""

from regraft.training.tune.challenger import Challenger, EpochRecord
from regraft.training.tune.fine_tune import fine_tune
from regraft.training.tune.head import SolvedHead, solve_head

__all__ = ["Challenger", "EpochRecord", "SolvedHead", "fine_tune", "solve_head"]
