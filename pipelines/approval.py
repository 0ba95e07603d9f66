"""A pending verdict: the run pauses, its process ends, and an answer resumes it."""

import zenml
from zenml import pipeline
from zenml.enums import ExecutionMode

from regraft.core.config import TrackingConfig
from regraft.promotion.answer import ApprovalDecision
from steps.carry_out import carry_out
from steps.mirror import mirror

PAUSE_AT_ONCE_S = 0  # a process that polls gains nothing


@pipeline(dynamic=True, execution_mode=ExecutionMode.FAIL_FAST)
def approval(version: int, config: TrackingConfig) -> None:
    """A decision, carried out and mirrored."""
    name = f"{config.name}/{version}"
    question = f"Promote {name} to champion?"
    decision = zenml.wait(ApprovalDecision, timeout=PAUSE_AT_ONCE_S, question=question, name=name)
    carry_out(decision, version, config)
    mirror(config)
