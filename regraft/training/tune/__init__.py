"""Fine-tuning: the head is solved on the frozen backbone, then the thawed part is trained."""

from regraft.training.tune.challenger import Challenger, EpochRecord
from regraft.training.tune.fine_tune import fine_tune
from regraft.training.tune.head import SolvedHead, solve_head

__all__ = ["Challenger", "EpochRecord", "SolvedHead", "fine_tune", "solve_head"]
