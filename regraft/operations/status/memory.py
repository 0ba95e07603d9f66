"""What the registry said when it was read last, kept beside the page as JSON.

To read the ledger means to import MLflow, and with it torch: seconds. After a run in which nothing
has changed, the page is made of this and of the journal.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from regraft.core.config import TrackingConfig
from regraft.core.files import write_whole
from regraft.operations.journal import Attempt
from regraft.operations.status.timeline import Decided


@dataclass(frozen=True)
class Line:
    """An entry of the ledger, without its seals; see regraft.registry.Entry."""

    number: int
    when: str
    who: str
    action: str
    before: int | None
    after: int | None
    verdict: str
    reason: str


@dataclass(frozen=True)
class Measured:
    """What is known of a version that no attempt tells of. when: it was registered, ISO 8601."""

    version: int
    when: str
    accuracy: float
    n_test: int


@dataclass(frozen=True)
class Remembered:
    """A model in the registry.

    champion: what the alias says. faults: of the ledger, sentences. waiting: versions.
    """

    name: str
    champion: int | None
    lines: tuple[Line, ...]
    faults: tuple[str, ...]
    waiting: tuple[int, ...]
    measured: tuple[Measured, ...]


@dataclass(frozen=True)
class Memory:
    """All of them, and when they were read: ISO 8601, UTC, "" if never."""

    read: str = ""
    models: tuple[Remembered, ...] = ()


def recall(path: Path) -> Memory:
    """What was kept; nothing where there is no such file, or it is of another Regraft."""
    try:
        return TypeAdapter(Memory).validate_json(path.read_bytes())
    except (FileNotFoundError, ValidationError):  # the next whole build writes it anew
        return Memory()


def keep(path: Path, memory: Memory) -> None:
    """Writes it in place of what was kept."""
    write_whole(str(path), json.dumps(asdict(memory), ensure_ascii=False).encode())


def look(tracking: TrackingConfig, attempts: Sequence[Attempt], now: datetime) -> Memory:
    """What the registry says now.

    Args:
        attempts: versions that these tell of are not looked up.
        now: UTC.
    """
    from regraft import registry

    told = {(one.name, one.version) for one in attempts if one.accuracy is not None}
    waiting = registry.with_tag(tracking, registry.APPROVAL, registry.WAITING)
    models = []
    for name in registry.names(tracking):
        lines = tuple(map(_line, registry.entries(tracking, name)))
        models.append(
            Remembered(
                name=name,
                champion=registry.serving_version(tracking, name),
                lines=lines,
                faults=registry.faults(tracking, name),
                waiting=tuple(one.version for one in waiting if one.name == name),
                measured=_measured(tracking, name, {v for n, v in told if n == name and v}),
            )
        )
    return Memory(now.isoformat(), tuple(models))


def _measured(tracking: TrackingConfig, name: str, told: set[int]) -> tuple[Measured, ...]:
    from regraft import registry

    table = registry.list_versions(tracking)
    found = []
    for row in table[(table.name == name) & table.test_accuracy.notna()].to_dict("records"):
        if row["version"] in told:
            continue
        version = registry.find(tracking, name, str(row["version"]))
        n_test = int(registry.tags(tracking, version).get("n_test", "0"))
        accuracy = float(row["test_accuracy"])
        found.append(Measured(version.version, str(row["when"]), accuracy, n_test))
    return tuple(sorted(found, key=lambda one: one.version))


def _line(entry: Decided) -> Line:
    return Line(
        entry.number,
        entry.when,
        entry.who,
        entry.action,
        entry.before,
        entry.after,
        entry.verdict,
        entry.reason,
    )
