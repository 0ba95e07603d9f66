"""A verdict that waits for somebody: the run pauses, its process ends, and an answer resumes it.

MLflow knows which verdict waits (the tag "approval" of its version), and the paused run is where
ZenML shows it. A run that was lost, swept or never begun here is begun when the answer comes.
"""

import os
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import zenml
from zenml import pipeline
from zenml.client import Client
from zenml.enums import ExecutionMode, ExecutionStatus
from zenml.exceptions import IllegalOperationError
from zenml.models import PipelineRunResponse
from zenml.orchestrators import publish_utils
from zenml.stack import Stack

from regraft.core.config import TrackingConfig
from regraft.core.errors import NothingWaits
from regraft.core.state import State, marked_runs, run_marker
from regraft.promotion import Verdict, waiting_versions
from steps.carry_out import Decision, carry_out
from steps.mirror import mirror

PAUSE_AT_ONCE_S = 0  # there is nothing to be gained from a process that polls
_PAGE_SIZE = 1000


@pipeline(dynamic=True, execution_mode=ExecutionMode.FAIL_FAST)
def approval(version: int, config: TrackingConfig) -> None:
    """A decision, carried out and mirrored."""
    name = f"{config.name}/{version}"
    question = f"Shall {name} serve?"
    decision = zenml.wait(Decision, timeout=PAUSE_AT_ONCE_S, question=question, name=name)
    carry_out(decision, version, config)
    mirror(config)


@dataclass(frozen=True)
class WaitingRun:
    """A run that waits for an answer. condition: the id of what it waits for."""

    name: str
    run_id: UUID
    condition: UUID


def start_approval(
    verdict: Verdict, tracking: TrackingConfig, state: State, now: datetime
) -> WaitingRun:
    """The run that waits for an answer to the verdict: one that does already, else a new one.

    Args:
        verdict: one that waits, stored with its version's run.
        state: opened, activated and bootstrapped.
        now: UTC.
    """
    waiting = waiting_runs(verdict.name, verdict.challenger)
    if waiting:
        return waiting[0]
    where = tracking.model_copy(update={"name": verdict.name})
    stem = f"{verdict.name}-v{verdict.challenger}-approval"
    run_name = f"{stem}-{now:%Y%m%d-%H%M%S}-{os.getpid()}"
    with run_marker(state, run_name):
        approval.with_options(run_name=run_name)(verdict.challenger, where)
    return waiting_runs(verdict.name, verdict.challenger)[0]


def waiting_runs(name: str, version: int) -> list[WaitingRun]:
    """The unfinished runs that wait for an answer about the version, newest first."""
    wanted = f"{name}/{version}"
    found = Client().list_run_wait_conditions(
        status="pending", name=wanted, size=_PAGE_SIZE, hydrate=True
    )
    return [
        WaitingRun(one.run.name, one.run.id, one.id)
        for one in found.items
        if not one.run.status.is_finished
    ]


def answer(waiting: WaitingRun, decision: Decision, state: State) -> PipelineRunResponse:
    """The run, after it got the answer and went on to its end in this process.

    Raises:
        NothingWaits: somebody else has answered meanwhile.
        ChampionMoved: as steps.carry_out.act_on().
    """
    with run_marker(state, waiting.name):  # first: a sweep takes a run without one for dead
        try:
            Client().resolve_run_wait_condition(waiting.condition, result=decision.model_dump())
        except IllegalOperationError:
            raise NothingWaits(
                f"Expected the run {waiting.name} to wait for an answer, but somebody else has "
                "just given one. See `regraft history`."
            ) from None
        run = Client().get_pipeline_run(waiting.run_id)
        stack = Stack.from_model(run.snapshot.stack)
        stack.orchestrator.resume_run(snapshot=run.snapshot, run=run, stack=stack)
    return Client().get_pipeline_run(waiting.run_id)


def sweep_approvals(tracking: TrackingConfig, state: State) -> list[str]:
    """Stops paused runs that no answer can resume any more; returns their names.

    Their version was judged again, answered elsewhere or deleted; or the answer was given and its
    process was killed before it was carried out, in which case another run will ask again.
    """
    waiting = [f"{version.name}/{version.version}" for version in waiting_versions(tracking)]
    alive = {name for name, lives in marked_runs(state).items() if lives}
    paused = Client().list_pipeline_runs(
        pipeline_name=approval.name, status=ExecutionStatus.PAUSED, size=_PAGE_SIZE, hydrate=True
    )
    lost = [
        run
        for run in paused.items
        if run.name not in alive
        and run.config.parameters["config"]["uri"] == tracking.uri
        and not (run.active_wait_condition and run.active_wait_condition.name in waiting)
    ]
    for run in lost:
        publish_utils.publish_pipeline_run_status_update(
            run.id, ExecutionStatus.STOPPED, status_reason="nothing waits for its answer"
        )
    return sorted(run.name for run in lost)
