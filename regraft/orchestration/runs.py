"""Runs that need repair before the next run starts.

A run whose process was killed stays "running" in ZenML and in MLflow: they keep no process id; the
markers in <root>/runs do. A step whose artifact was deleted is still a cache hit, and the step
after it fails on a missing file: the cached result of such a step is made to expire.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from regraft.core.config import TrackingConfig
from regraft.core.state import State, marked_runs, remove_run_marker, run_marker
from regraft.orchestration.stack import bootstrap, silence_zenml
from regraft.orchestration.zenml_private import publish_failed_run, publish_failed_step

# Guess. A run without a marker was started without Regraft and may still live.
_UNMARKED_GRACE = timedelta(days=1)
_UNFINISHED = 'oneof:["initializing", "provisioning", "running"]'
PAGE_SIZE = 1000


@dataclass(frozen=True)
class StuckRun:
    """A run that is "running" in ZenML and that no living process executes.

    started: when it was created, UTC.
    marked: whether its process left a marker; without one it was started without Regraft.
    """

    name: str
    id: UUID
    started: datetime
    marked: bool

    def is_sweepable(self, now: datetime) -> bool:
        """Return whether the run may be marked as failed; an unmarked one only after a day."""
        return self.marked or now - self.started > _UNMARKED_GRACE


@dataclass(frozen=True)
class MissingArtifact:
    """An artifact in ZenML's database whose files are gone.

    step_run_id: the step that made it.
    reusable: whether ZenML would still take that step's result from its cache.
    """

    name: str
    uri: str
    step_run_id: UUID
    reusable: bool


@contextmanager
def prepared_run(tracking: TrackingConfig, state: State) -> Iterator[str]:
    """Yield the name of a pipeline run that this process may start now.

    The private stack exists afterwards, and what killed runs left behind is repaired. The run's
    marker exists for as long as the block lives.

    Args:
        tracking: name is the model's; the run's name begins with it.
        state: opened, and activated before zenml was imported.
    """
    bootstrap(state)
    if not state.debug:
        silence_zenml()
    now = datetime.now(UTC)
    sweep_stuck(state, now)
    sweep_tracked(tracking)
    sweep_missing()
    run_name = f"{tracking.name}-{now:%Y%m%d-%H%M%S}-{os.getpid()}"
    with run_marker(state, run_name):
        yield run_name


def stuck_runs(state: State) -> list[StuckRun]:
    """Return runs that are unfinished in ZenML and whose process is dead or unknown."""
    from zenml.client import Client

    before = marked_runs(state)
    runs = Client().list_pipeline_runs(status=_UNFINISHED, size=PAGE_SIZE).items
    marked = marked_runs(state)  # before and after: a run may end meanwhile, or begin
    return [
        StuckRun(
            run.name,
            run.id,
            run.created.replace(tzinfo=UTC),
            run.name in marked or run.name in before,
        )
        for run in runs
        if not (before.get(run.name) or marked.get(run.name))
    ]


def sweep_stuck(state: State, now: datetime) -> list[str]:
    """Mark dead runs and their unfinished steps as failed; return the runs' names.

    A run without a marker is left alone for a day: it may live.

    Args:
        state: opened, activated and bootstrapped.
        now: UTC.
    """
    dead = [run for run in stuck_runs(state) if run.is_sweepable(now)]
    for run in dead:
        _fail(run)
    names = {run.name for run in dead}
    for name, is_alive in marked_runs(state).items():  # also runs that never reached ZenML
        if not is_alive:
            remove_run_marker(state, name)
    return sorted(names)


def sweep_tracked(tracking: TrackingConfig) -> list[str]:
    """Mark MLflow runs as killed whose pipeline run has ended; return their names.

    A training's MLflow run has the name of its pipeline run, and ends before it unless its process
    was killed. MLflow runs without such a pipeline run are not Regraft's and are left alone.

    Args:
        tracking: the store; every experiment in it is searched.
    """
    from regraft.registry.tracking import connect, end_dead_runs

    swept = []
    for experiment in connect(tracking).search_experiments():
        named = tracking.model_copy(update={"name": experiment.name})
        swept += end_dead_runs(named, lambda name: not _has_ended(name))
    return swept


def missing_artifacts() -> list[MissingArtifact]:
    """Return artifacts of completed steps whose local files are gone."""
    from zenml.client import Client
    from zenml.utils.pagination_utils import depaginate

    versions = depaginate(Client().list_artifact_versions, size=PAGE_SIZE)
    artifacts = [_missing_artifact(version.id) for version in versions if _is_gone(version.uri)]
    return [artifact for artifact in artifacts if artifact]


def sweep_missing() -> list[MissingArtifact]:
    """Make cached results expire whose artifacts are gone; return these artifacts.

    Call it before a run: ZenML's cache reads its database only, not the files.
    """
    from zenml.client import Client

    missing = [artifact for artifact in missing_artifacts() if artifact.reusable]
    for step_run_id in {artifact.step_run_id for artifact in missing}:
        Client().update_step_run(step_run_id, cache_expires_at=datetime.now(UTC))
    return missing


def _has_ended(name: str) -> bool:
    from zenml.client import Client

    runs = Client().list_pipeline_runs(name=name, size=1).items
    return bool(runs) and runs[0].status.is_finished


def _fail(run: StuckRun) -> None:
    from zenml.client import Client

    steps = Client().list_run_steps(pipeline_run_id=run.id, size=PAGE_SIZE).items
    for step in steps:
        if not step.status.is_finished:
            publish_failed_step(step.id)
    publish_failed_run(run.id, "its process was killed")


def _is_gone(uri: str) -> bool:
    """Return whether a local folder is missing or empty; a remote one is not checked."""
    return "://" not in uri and not (os.path.isdir(uri) and os.listdir(uri))


def _missing_artifact(artifact_version_id: UUID) -> MissingArtifact | None:
    """Return the artifact as a missing one; None if no completed step made it."""
    from zenml.client import Client
    from zenml.enums import ExecutionStatus

    version = Client().get_artifact_version(artifact_version_id)
    if version.producer_step_run_id is None:
        return None
    step = Client().get_run_step(version.producer_step_run_id)
    if step.status != ExecutionStatus.COMPLETED:
        return None
    expires = step.cache_expires_at
    reusable = expires is None or expires.replace(tzinfo=UTC) > datetime.now(UTC)
    return MissingArtifact(version.name, version.uri, step.id, reusable)
