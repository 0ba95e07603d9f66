"""The views of the registry follow it: the status page, and ZenML's mirror."""

from datetime import UTC, datetime

from regraft.core.state import State
from regraft.operations.status import rebuild
from regraft.operations.workflows.runner import PipelineRunner


def update_views(state: State, runner: PipelineRunner) -> None:
    """Rebuild the status page, then repair the runner's mirror of the registry.

    Call it last in a command: ZenML takes seconds to start, and the change itself is complete.
    """
    rebuild(state, datetime.now(UTC))
    runner.repair_mirror()
