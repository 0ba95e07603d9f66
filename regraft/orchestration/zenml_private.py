"""The private functions of ZenML that Regraft calls, seen in ZenML 0.98.0.

A run whose process was killed stays "running" in ZenML: no public function ends it.
"""

from uuid import UUID


def publish_failed_step(step_run_id: UUID) -> None:
    """Mark a step run as failed."""
    from zenml.enums import ExecutionStatus
    from zenml.orchestrators import publish_utils

    publish_utils.publish_step_run_status_update(step_run_id, ExecutionStatus.FAILED)


def publish_failed_run(run_id: UUID, reason: str) -> None:
    """Mark a pipeline run as failed, for a reason that ZenML shows beside the status."""
    from zenml.enums import ExecutionStatus
    from zenml.orchestrators import publish_utils

    publish_utils.publish_pipeline_run_status_update(
        run_id, ExecutionStatus.FAILED, status_reason=reason
    )


def publish_stopped_run(run_id: UUID, reason: str) -> None:
    """Mark a pipeline run as stopped, for a reason that ZenML shows beside the status."""
    from zenml.enums import ExecutionStatus
    from zenml.orchestrators import publish_utils

    publish_utils.publish_pipeline_run_status_update(
        run_id, ExecutionStatus.STOPPED, status_reason=reason
    )
