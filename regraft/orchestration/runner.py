"""ZenML as the runner of the workflows: it runs the DAGs of pipelines/ on the active stack."""

import os
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from regraft.core import errors
from regraft.core.config import Config, NotifyConfig, TrackingConfig
from regraft.core.errors import RegraftError, UnusablePhoto
from regraft.core.state import State, places, reported_faults
from regraft.operations.workflows.runner import Dag, StageTime
from regraft.orchestration.runs import prepared_run, sweep_stuck
from regraft.orchestration.stack import bootstrap, silence_zenml

if TYPE_CHECKING:
    from zenml.models import PipelineRunResponse

    from regraft.promotion import Verdict
    from regraft.promotion.answer import ApprovalDecision
    from regraft.registry import Entry

FindDag = Callable[[str], Callable[..., Any]]
"""Returns the pipeline of a name, such as "train"; pipelines/ lies above this package."""

# ZenML would start ten threads, however many steps may run at once.
_N_WORKERS = "ZENML_DYNAMIC_PIPELINE_WORKER_COUNT"


class ZenRun:
    """A run that ZenML has brought to its end."""

    def __init__(self, run: "PipelineRunResponse") -> None:
        self._run = run

    @property
    def name(self) -> str:
        """The run's name, unique in ZenML."""
        return str(self._run.name)

    def load(self, stage: str) -> Any:  # noqa: ANN401 - of the stage's own type
        """Return the output of a stage that has one output."""
        return self._run.steps[stage].output.load()

    def stage_times(self) -> tuple[StageTime, ...]:
        """Return the time of every stage, in the order in which they started."""
        steps = [step for step in self._run.steps.values() if step.start_time and step.end_time]
        return tuple(
            StageTime(
                step.name,
                (step.end_time - step.start_time).total_seconds(),
                step.status.value == "cached",
            )
            for step in sorted(steps, key=lambda step: step.start_time)
        )


class ZenRunner:
    """Runs DAGs on the private stack of a state folder.

    Args:
        state: opened, and activated before zenml was imported.
    """

    def __init__(self, state: State, find_dag: FindDag) -> None:
        self._state, self._find_dag = state, find_dag

    def prepare(self) -> None:
        """Create or upgrade the stores; see regraft.operations.workflows.runner.PipelineRunner."""
        bootstrap(self._state)

    def run(
        self, dag: Dag, tracking: TrackingConfig, *arguments: object, n_workers: int = 1
    ) -> ZenRun:
        """Run a DAG to its end; see regraft.operations.workflows.runner.PipelineRunner."""
        os.environ[_N_WORKERS] = str(n_workers)
        with reported_faults(), prepared_run(tracking, self._state) as run_name:
            from zenml.client import Client
            from zenml.exceptions import StepExecutionException

            pipeline: Any = self._find_dag(dag)
            stored = [_without_targets(argument) for argument in arguments]
            try:
                pipeline.with_options(run_name=run_name)(*stored)
            except StepExecutionException as error:  # of a thread, perhaps another than failed
                raise step_failure(run_name) or error from None
            return ZenRun(Client().get_pipeline_run(run_name))

    def request_approval(self, verdict: "Verdict", tracking: TrackingConfig) -> None:
        """Start the run that waits for an answer to a pending verdict, unless one waits already."""
        from regraft.orchestration.approval import PIPELINE, start_approval

        dag = self._find_dag(PIPELINE)
        start_approval(dag, verdict, tracking, self._state, datetime.now(UTC))

    def answer(
        self, verdict: "Verdict", tracking: TrackingConfig, decision: "ApprovalDecision"
    ) -> "Entry":
        """Answer a pending verdict; see regraft.operations.workflows.runner.PipelineRunner."""
        bootstrap(self._state)
        if not self._state.debug:
            silence_zenml()
        from regraft.orchestration.approval import PIPELINE, answer, start_approval, sweep_approvals

        now = datetime.now(UTC)
        sweep_stuck(self._state, now)
        sweep_approvals(tracking, self._state)
        dag = self._find_dag(PIPELINE)
        waiting = start_approval(dag, verdict, tracking, self._state, now)
        return answer(waiting, decision, self._state)

    def repair_mirror(self) -> None:
        """Make ZenML's Model Control Plane follow the registry, if the state folder has a store."""
        if not self._state.zenml_database.exists():
            return
        bootstrap(self._state)
        from regraft.orchestration.mirror import repair

        repair(places(self._state).tracking)


def _without_targets(argument: object) -> object:
    """Return the argument without notification targets: ZenML stores the arguments of a run."""
    if isinstance(argument, Config):
        return argument.model_copy(update={"notify": NotifyConfig()})
    return argument


def step_failure(run_name: str) -> RegraftError | None:
    """Return the error of Regraft that a step of the run failed with; None if there is none.

    A step of another thread or machine raises nothing in this one, but ZenML stores its message.
    """
    kinds = {
        f"{kind.__module__}.{kind.__name__}": kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, RegraftError) and kind is not UnusablePhoto
    }
    from zenml.client import Client

    for step in Client().get_pipeline_run(run_name).steps.values():
        failure = step.exception_info
        if failure and failure.source in kinds:
            return kinds[failure.source](failure.message)
    return None
