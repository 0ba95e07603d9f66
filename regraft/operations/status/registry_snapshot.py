"""A snapshot of the registry, stored beside the page as JSON.

Reading the registry imports MLflow and torch, which takes seconds. After a run in which nothing
changed, the page is built from the snapshot and the journal.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from regraft.core.config import TrackingConfig
from regraft.core.files import write_atomic
from regraft.core.outcomes import LedgerAction
from regraft.operations.journal import Attempt
from regraft.operations.status.timeline import DecisionEntry


@dataclass(frozen=True)
class LedgerLine:
    """An entry of the ledger without its checksums; see regraft.registry.Entry."""

    number: int
    when: str
    who: str
    action: LedgerAction
    before: int | None
    after: int | None
    verdict: str
    reason: str


@dataclass(frozen=True)
class MeasuredVersion:
    """The accuracy of a version that no attempt describes. when: of its registration, ISO 8601."""

    version: int
    when: str
    accuracy: float
    n_test: int


@dataclass(frozen=True)
class ModelSnapshot:
    """A model in the registry.

    champion: the version with the champion alias, None if there is none.
    lines: the ledger, oldest entry first.
    faults: of the ledger, one sentence each.
    pending: versions that are pending approval.
    measured: accuracies of versions that no attempt describes.
    """

    name: str
    champion: int | None
    lines: tuple[LedgerLine, ...]
    faults: tuple[str, ...]
    pending: tuple[int, ...]
    measured: tuple[MeasuredVersion, ...]


@dataclass(frozen=True)
class RegistrySnapshot:
    """All models of the registry. read: time of reading, ISO 8601, UTC; "" if never."""

    read: str = ""
    models: tuple[ModelSnapshot, ...] = ()


def load_snapshot(path: Path) -> RegistrySnapshot:
    """Return the stored snapshot; an empty one if the file is missing or has another format."""
    try:
        return TypeAdapter(RegistrySnapshot).validate_json(path.read_bytes())
    except (FileNotFoundError, ValidationError):  # the next rebuild() writes the file
        return RegistrySnapshot()


def save_snapshot(path: Path, snapshot: RegistrySnapshot) -> None:
    """Write the snapshot in place of the stored one."""
    write_atomic(str(path), json.dumps(asdict(snapshot), ensure_ascii=False).encode())


def read_registry(
    tracking: TrackingConfig, attempts: Sequence[Attempt], now: datetime
) -> RegistrySnapshot:
    """Return a snapshot of the registry as it is now.

    Args:
        attempts: the accuracies of their versions are known and not read from the registry.
        now: UTC.
    """
    from regraft import registry

    known = {(each.name, each.version) for each in attempts if each.accuracy is not None}
    pending = registry.find_by_tag(tracking, registry.APPROVAL, registry.PENDING)
    models = []
    for name in registry.list_models(tracking):
        versions = {version for model, version in known if model == name and version}
        ledger = registry.read_ledger(tracking, name)
        models.append(
            ModelSnapshot(
                name=name,
                champion=registry.serving_version(tracking, name),
                lines=tuple(map(_line, ledger.entries)),
                faults=ledger.faults,
                pending=tuple(each.version for each in pending if each.name == name),
                measured=_measured(tracking, name, versions),
            )
        )
    return RegistrySnapshot(now.isoformat(), tuple(models))


def _measured(tracking: TrackingConfig, name: str, known: set[int]) -> tuple[MeasuredVersion, ...]:
    from regraft import registry

    table = registry.list_versions(tracking)
    measured = []
    for row in table[(table.name == name) & table.test_accuracy.notna()].to_dict("records"):
        if row["version"] in known:
            continue
        version = registry.find(tracking, name, str(row["version"]))
        n_test = int(registry.get_tags(tracking, version).get("n_test", "0"))
        accuracy = float(row["test_accuracy"])
        measured.append(MeasuredVersion(version.version, str(row["when"]), accuracy, n_test))
    return tuple(sorted(measured, key=lambda version: version.version))


def _line(entry: DecisionEntry) -> LedgerLine:
    return LedgerLine(
        number=entry.number,
        when=entry.when,
        who=entry.who,
        action=entry.action,
        before=entry.before,
        after=entry.after,
        verdict=entry.verdict,
        reason=entry.reason,
    )
