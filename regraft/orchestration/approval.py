"""A pending verdict as a paused ZenML run, which an answer resumes.

MLflow records which verdict is pending (the tag "approval" of its version); the paused run is where
ZenML shows it. A run that was lost, swept or never started is started when the answer comes.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from regraft.core.config import TrackingConfig
from regraft.core.errors import NothingPendingApproval
from regraft.core.state import State, marked_runs, run_marker
from regraft.orchestration.zenml_private import publish_stopped_run
from regraft.promotion import Verdict, pending_versions
from regraft.promotion.answer import ApprovalDecision
from regraft.registry import Entry

PIPELINE = "approval"  # the name of the DAG that waits for an answer
_PAGE_SIZE = 1000


@dataclass(frozen=True)
class WaitingRun:
    """A run that waits for an answer. condition: the id of the condition that it waits for."""

    name: str
    run_id: UUID
    condition: UUID


def start_approval(
    dag: Callable[..., Any],
    verdict: Verdict,
    tracking: TrackingConfig,
    state: State,
    now: datetime,
) -> WaitingRun:
    """Return the run that waits for an answer to the verdict; start it if there is none.

    Args:
        dag: the pipeline "approval".
        verdict: pending, stored with its version's run.
        state: opened, activated and bootstrapped.
        now: UTC.
    """
    waiting = waiting_runs(verdict.name, verdict.challenger)
    if waiting:
        return waiting[0]
    named = tracking.model_copy(update={"name": verdict.name})
    stem = f"{verdict.name}-v{verdict.challenger}-approval"
    run_name = f"{stem}-{now:%Y%m%d-%H%M%S}-{os.getpid()}"
    with run_marker(state, run_name):
        dag.with_options(run_name=run_name)(verdict.challenger, named)  # type: ignore[attr-defined]
    return waiting_runs(verdict.name, verdict.challenger)[0]


def waiting_runs(name: str, version: int) -> list[WaitingRun]:
    """Return the unfinished runs that wait for an answer about the version, newest first."""
    from zenml.client import Client

    conditions = Client().list_run_wait_conditions(
        status="pending", name=f"{name}/{version}", size=_PAGE_SIZE, hydrate=True
    )
    return [
        WaitingRun(condition.run.name, condition.run.id, condition.id)
        for condition in conditions.items
        if not condition.run.status.is_finished
    ]


def answer(waiting: WaitingRun, decision: ApprovalDecision, state: State) -> Entry:
    """Resume the run with the answer, in this process; return the ledger's entry.

    Raises:
        NothingPendingApproval: another person has answered meanwhile.
        ChampionMoved: as regraft.promotion.answer.apply_decision().
    """
    from zenml.client import Client
    from zenml.exceptions import IllegalOperationError
    from zenml.stack import Stack

    with run_marker(state, waiting.name):  # first: a sweep takes a run without one for dead
        try:
            Client().resolve_run_wait_condition(waiting.condition, result=decision.model_dump())
        except IllegalOperationError:
            raise NothingPendingApproval(
                f"Expected the run {waiting.name} to wait for an answer, but another answer has "
                "just been given. See `regraft history`."
            ) from None
        run = Client().get_pipeline_run(waiting.run_id)
        stack = Stack.from_model(run.snapshot.stack)
        stack.orchestrator.resume_run(snapshot=run.snapshot, run=run, stack=stack)
    entry: Entry = Client().get_pipeline_run(waiting.run_id).steps["carry_out"].output.load()
    return entry


def sweep_approvals(tracking: TrackingConfig, state: State) -> list[str]:
    """Stop paused runs that no answer can resume any more; return their names.

    Their version was judged again, answered elsewhere or deleted; or the answer was given and its
    process was killed before it was carried out, in which case another run waits for an answer.
    """
    from zenml.client import Client
    from zenml.enums import ExecutionStatus

    pending = [f"{version.name}/{version.version}" for version in pending_versions(tracking)]
    alive = {name for name, is_alive in marked_runs(state).items() if is_alive}
    paused = Client().list_pipeline_runs(
        pipeline_name=PIPELINE, status=ExecutionStatus.PAUSED, size=_PAGE_SIZE, hydrate=True
    )
    lost = [
        run
        for run in paused.items
        if run.name not in alive
        and run.config.parameters["config"]["uri"] == tracking.uri
        and not (run.active_wait_condition and run.active_wait_condition.name in pending)
    ]
    for run in lost:
        publish_stopped_run(run.id, "no verdict is pending")
    return sorted(run.name for run in lost)
