"""Fine-tuning: the head is solved on the frozen backbone, then the thawed part is trained."""

from regraft.tune.challenger import Challenger, EpochRecord
from regraft.tune.fine_tune import fine_tune
from regraft.tune.head import SolvedHead, solve_head

__all__ = ["Challenger", "EpochRecord", "SolvedHead", "fine_tune", "solve_head"]
