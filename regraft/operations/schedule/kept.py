"""What is kept of a schedule: a JSON file a declaration, and one of what became of it.

<state>/schedule/
├── declared/NAME.json   a Declaration
├── records/NAME.json    a Record: what was run last, or runs now
├── heartbeat.json       a Heartbeat of the service
└── logs/                what the last runs said

Every file is written whole. Not APScheduler's own store of jobs: it keeps them by pickle.
"""

import json
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import TypeAdapter, ValidationError

from regraft.core.errors import ScheduleError
from regraft.core.files import write_whole
from regraft.core.state import RunMarker, State
from regraft.operations.schedule.declaration import Declaration, latest_due, upcoming

Outcome = Literal["", "running", "done", "skipped", "failed", "stopped", "timeout", "lost"]
MAX_TRIES = 2  # of one run that is cut off each time: it may be what takes the machine down
_CLOCK_SLACK = timedelta(hours=1)  # guess: a clock that was set back by more was wrong before


@dataclass(frozen=True)
class Record:
    """What became of a declaration. Times are ISO 8601, UTC; "" is never.

    seen: the latest time due that was dealt with, by a run or by leaving it out.
    due: when the last run was due. began, ended: that run. log: file of what it said.
    outcome: of that run: running; done = exit code 0, or 10 for drift that was looked for; skipped
        = 8 or 11, there was nothing to do or somebody else did it; failed = another; stopped = the
        service was stopped; timeout; lost = it is gone and nobody saw how it ended.
    process: of that run, None if none was started. exit_code: None if nobody saw it.
    n_tries: how often that run was begun.
    reason: a sentence where the outcome does not say it.
    n_left_out: runs that were due and not begun, since the declaration was added; when the last
        was due, and why.
    """

    seen: str = ""
    due: str = ""
    began: str = ""
    ended: str = ""
    outcome: Outcome = ""
    exit_code: int | None = None
    process: RunMarker | None = None
    n_tries: int = 0
    log: str = ""
    reason: str = ""
    n_left_out: int = 0
    left_out_at: str = ""
    left_out_why: str = ""

    @property
    def was_cut_off(self) -> bool:
        """Whether the last run was begun and did not come to its own end."""
        return self.outcome in ("stopped", "lost")


_Kept = TypeVar("_Kept", Declaration, Record)
_ADAPTERS: dict[type, TypeAdapter[Any]] = {
    Declaration: TypeAdapter(Declaration),
    Record: TypeAdapter(Record),
}


def add(state: State, declaration: Declaration) -> None:
    """Keeps a declaration that was checked.

    Raises:
        ScheduleError: there is one of that name.
    """
    path = _declared(state, declaration.name)
    if path.exists():
        raise ScheduleError(
            f"Expected a new name, got {declaration.name!r}, which is declared already. Give "
            f"another with --name, or remove that one: regraft schedule remove {declaration.name}"
        )
    write_whole(str(path), json.dumps(asdict(declaration), indent=1).encode())


def find(state: State, name: str) -> Declaration:
    """The declaration of that name.

    Raises:
        ScheduleError: there is none.
    """
    found = {each.name: each for each in declarations(state)}
    if name not in found:
        there = ", ".join(found) or "none yet"
        raise ScheduleError(f"Expected the name of a declaration ({there}), got {name!r}.")
    return found[name]


def remove(state: State, name: str) -> None:
    """Forgets a declaration and its record; a run that lives goes on to its end.

    Raises:
        ScheduleError: there is none of that name.
    """
    find(state, name)
    _declared(state, name).unlink(missing_ok=True)
    _record(state, name).unlink(missing_ok=True)


def is_declared(state: State, name: str) -> bool:
    """Whether there is a declaration of that name."""
    return _declared(state, name).exists()


def declarations(state: State) -> list[Declaration]:
    """Every declaration, sorted by name.

    Raises:
        ScheduleError: a file there is none.
    """
    found = (declared(state, name) for name in names(state))
    return [each for each in found if each]


def names(state: State) -> list[str]:
    """Of every declaration, sorted, whether or not it can be read."""
    return sorted(path.stem for path in (state.schedule / "declared").glob("*.json"))


def declared(state: State, name: str) -> Declaration | None:
    """The declaration of that name, None if there is none.

    Raises:
        ScheduleError: its file is none.
    """
    return _parsed(_declared(state, name), Declaration)


def signature(state: State) -> tuple[tuple[str, int, int], ...]:
    """Changes whenever a declaration is added, removed or changed."""
    files = []
    for path in sorted((state.schedule / "declared").glob("*.json")):
        try:
            stat = path.stat()
        except FileNotFoundError:  # removed between the two lines above
            continue
        files.append((path.name, stat.st_mtime_ns, stat.st_ino))
    return tuple(files)


def record_of(state: State, name: str) -> Record:
    """What became of a declaration so far; an empty record if nothing did.

    Raises:
        ScheduleError: the file is no record.
    """
    return _parsed(_record(state, name), Record) or Record()


def write_record(state: State, name: str, record: Record) -> None:
    """Keeps a record in place of the last one."""
    write_whole(str(_record(state, name)), json.dumps(asdict(record), indent=1).encode())


def due(declaration: Declaration, record: Record, now: datetime) -> datetime | None:
    """When it is to be run next, UTC; before `now` if that was missed or cut off.

    None where the calendar ends.
    """
    again = record.was_cut_off and record.due and record.n_tries < MAX_TRIES
    if declaration.missed == "run-once" and again:
        return datetime.fromisoformat(record.due)
    since = seen(declaration, record, now)
    return next(iter(upcoming(declaration, since, 1)), None)


def seen(declaration: Declaration, record: Record, now: datetime) -> datetime:
    """The moment up to which everything that was due has been dealt with, UTC.

    What was written by a clock that was far ahead does not count: nothing would be due for years.
    """
    # Both: a declaration of this name may have been removed while it ran, and left its record.
    written = (datetime.fromisoformat(each) for each in (record.seen, declaration.added) if each)
    return max((each for each in written if each <= now + _CLOCK_SLACK), default=now)


def next_due(declaration: Declaration, record: Record, now: datetime) -> datetime | None:
    """As due(), but what will be left out because it was missed is not told; for readers."""
    when = due(declaration, record, now)
    late = when is not None and (now - when).total_seconds() > declaration.grace_s
    if when is None or not late or declaration.missed == "run-once":
        return when
    return next(iter(upcoming(declaration, now, 1)), None)


def was_due(declaration: Declaration, record: Record, now: datetime) -> str:
    """The time that a run which begins now was due, ISO 8601, UTC."""
    latest = latest_due(declaration, seen(declaration, record, now), now)
    return latest.isoformat() if latest else record.due or now.isoformat()


def _declared(state: State, name: str) -> Path:
    return state.schedule / "declared" / f"{name}.json"


def _record(state: State, name: str) -> Path:
    return state.schedule / "records" / f"{name}.json"


def _parsed(path: Path, kind: type[_Kept]) -> _Kept | None:
    """What the file holds, None if there is no such file."""
    try:
        found: _Kept = _ADAPTERS[kind].validate_json(path.read_bytes())
        wrong = _wrong(found, path.stem) if isinstance(found, Declaration) else ""
    except FileNotFoundError:
        return None
    except ValidationError as error:
        first = error.errors()[0]
        wrong = f"{'.'.join(map(str, first['loc'])) or 'the whole'}: {first['msg']}"
    if wrong:
        raise ScheduleError(
            f"Expected a {kind.__name__.lower()} in {path}, got something else ({wrong}). "
            "Delete that file and declare it anew."
        )
    return found


def _wrong(declaration: Declaration, stem: str) -> str:
    """What a hand that edited the file may have broken, "" if nothing."""
    if declaration.name != stem:
        return f"name: {declaration.name!r}, but the file is that of {stem!r}"
    try:
        zone = datetime.fromisoformat(declaration.added).tzinfo
    except ValueError:
        zone = None
    return "" if zone else f"added: {declaration.added!r} is no ISO 8601 time with a zone"
