"""The stored schedule: one JSON file per entry, and one per record of its runs.

<state>/schedule/
├── entries/NAME.json    a ScheduleEntry
├── records/NAME.json    a Record: the last run, or the current one
├── heartbeat.json       a Heartbeat of the service
└── logs/                output of the last runs

Every file is written atomically.
"""

import json
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from regraft.core.errors import ScheduleError
from regraft.core.files import write_atomic
from regraft.core.outcomes import ScheduledOutcome
from regraft.core.state import RunMarker, State
from regraft.operations.schedule.entry import ScheduleEntry, latest_due, next_fire_times

MAX_TRIES = 2  # starts of a run that is interrupted each time; the run may crash the machine
_CLOCK_SLACK = timedelta(hours=1)  # guess: a clock that was set back by more was wrong before


@dataclass(frozen=True)
class Record:
    """What happened to the runs of an entry. Times are ISO 8601, UTC; "" is never.

    handled_until: the latest fire time that was handled, by a run or by not starting one.
    due: fire time of the last run.
    started, ended: of that run.
    outcome: of that run. running; done = exit code 0, or 10 (drift was found); skip = exit code 8
        or 11 (nothing to do, or another process does it); failed = another exit code; stopped =
        the service was stopped; timeout; killed = the process is gone, its exit code is unknown.
    exit_code: of that run, None if unknown.
    process: of that run, None if none was started.
    n_tries: how often that run was started.
    log: path of the output of that run.
    reason: a sentence where the outcome needs an explanation.
    n_not_started: runs that were due and not started, since the entry was added.
    not_started_at, not_started_reason: of the last of these.
    """

    handled_until: str = ""
    due: str = ""
    started: str = ""
    ended: str = ""
    outcome: ScheduledOutcome = ""
    exit_code: int | None = None
    process: RunMarker | None = None
    n_tries: int = 0
    log: str = ""
    reason: str = ""
    n_not_started: int = 0
    not_started_at: str = ""
    not_started_reason: str = ""

    @property
    def was_interrupted(self) -> bool:
        """Return whether the last run was started and did not end by itself."""
        return self.outcome in ("stopped", "killed")


_Stored = TypeVar("_Stored", ScheduleEntry, Record)
_ADAPTERS: dict[type, TypeAdapter[Any]] = {
    ScheduleEntry: TypeAdapter(ScheduleEntry),
    Record: TypeAdapter(Record),
}
_KINDS: dict[type, str] = {ScheduleEntry: "schedule entry", Record: "record of a scheduled run"}


def add(state: State, entry: ScheduleEntry) -> None:
    """Store an entry that was checked.

    Raises:
        ScheduleError: an entry with this name exists.
    """
    path = _entry_path(state, entry.name)
    if path.exists():
        raise ScheduleError(
            f"Expected a new name, got {entry.name!r}, which is scheduled already. Set another "
            f"name with --name, or remove the entry: regraft schedule remove {entry.name}"
        )
    write_atomic(str(path), json.dumps(asdict(entry), indent=1).encode())


def find(state: State, name: str) -> ScheduleEntry:
    """Return the entry with this name.

    Raises:
        ScheduleError: the name is unknown, or its file is invalid.
    """
    entry = load_entry(state, name) if name in names(state) else None
    if entry is None:
        available = ", ".join(names(state)) or "none yet"
        raise ScheduleError(f"Expected the name of a schedule entry ({available}), got {name!r}.")
    return entry


def remove(state: State, name: str) -> None:
    """Delete an entry and its record; a run that is active continues to its end.

    Raises:
        ScheduleError: the name is unknown.
    """
    find(state, name)
    _entry_path(state, name).unlink(missing_ok=True)
    _record_path(state, name).unlink(missing_ok=True)


def has_entry(state: State, name: str) -> bool:
    """Return whether an entry with this name exists."""
    return _entry_path(state, name).exists()


def list_entries(state: State) -> list[ScheduleEntry]:
    """Return all entries, sorted by name.

    Raises:
        ScheduleError: a file is invalid.
    """
    entries = (load_entry(state, name) for name in names(state))
    return [entry for entry in entries if entry]


@dataclass(frozen=True)
class Schedule:
    """The schedule with the last run of each entry, sorted by name.

    broken: a sentence for each invalid file: path, problem, remedy.
    """

    entries: tuple[tuple[ScheduleEntry, Record], ...]
    broken: tuple[str, ...]


def read_schedule(state: State) -> Schedule:
    """Return all valid entries, for readers; an invalid file hides no other entry."""
    entries, broken = [], []
    for name in names(state):
        try:
            entry = load_entry(state, name)
        except ScheduleError as error:
            broken.append(str(error))
            continue
        try:
            record = load_record(state, name)
        except ScheduleError as error:
            broken.append(str(error))
            record = Record()
        if entry:
            entries.append((entry, record))
    return Schedule(tuple(entries), tuple(broken))


def names(state: State) -> list[str]:
    """Return the names of all entries, sorted, including those with an invalid file."""
    return sorted(path.stem for path in _entries_folder(state).glob("*.json"))


def load_entry(state: State, name: str) -> ScheduleEntry | None:
    """Return the entry with this name, None if it does not exist.

    Raises:
        ScheduleError: the file is invalid.
    """
    return _load(_entry_path(state, name), ScheduleEntry)


def signature(state: State) -> tuple[tuple[str, int, int], ...]:
    """Return a value that changes when an entry is added, removed or changed."""
    files = []
    for path in sorted(_entries_folder(state).glob("*.json")):
        try:
            stat = path.stat()
        except FileNotFoundError:  # removed between the two lines above
            continue
        files.append((path.name, stat.st_mtime_ns, stat.st_ino))
    return tuple(files)


def load_record(state: State, name: str) -> Record:
    """Return the record of an entry; an empty record if nothing has run yet.

    Raises:
        ScheduleError: the file is invalid.
    """
    return _load(_record_path(state, name), Record) or Record()


def write_record(state: State, name: str, record: Record) -> None:
    """Write a record in place of the last one."""
    write_atomic(str(_record_path(state, name)), json.dumps(asdict(record), indent=1).encode())


def due(entry: ScheduleEntry, record: Record, now: datetime) -> datetime | None:
    """Return the next due time, in UTC; it lies before `now` for a missed or interrupted run.

    None where no further date matches.
    """
    must_repeat = record.was_interrupted and record.due and record.n_tries < MAX_TRIES
    if entry.missed == "run-once" and must_repeat:
        return datetime.fromisoformat(record.due)
    since = handled_until(entry, record, now)
    return next(iter(next_fire_times(entry, since, 1)), None)


def handled_until(entry: ScheduleEntry, record: Record, now: datetime) -> datetime:
    """Return the time until which all fire times have been handled, in UTC.

    Times far in the future were written with a wrong clock and are ignored; otherwise nothing
    would be due for years.
    """
    # The record may be older than the entry: an entry of the same name was removed while it ran.
    written = [datetime.fromisoformat(time) for time in (record.handled_until, entry.added) if time]
    return max((time for time in written if time <= now + _CLOCK_SLACK), default=now)


def next_due(entry: ScheduleEntry, record: Record, now: datetime) -> datetime | None:
    """Return the time of the next run that will really start, for display; see due()."""
    when = due(entry, record, now)
    is_late = when is not None and (now - when).total_seconds() > entry.grace_s
    if when is None or not is_late or entry.missed == "run-once":
        return when
    return next(iter(next_fire_times(entry, now, 1)), None)


def was_due(entry: ScheduleEntry, record: Record, now: datetime) -> str:
    """Return the due time of a run that starts now, ISO 8601, UTC."""
    latest = latest_due(entry, handled_until(entry, record, now), now)
    return latest.isoformat() if latest else record.due or now.isoformat()


def _entries_folder(state: State) -> Path:
    return state.schedule / "entries"


def _entry_path(state: State, name: str) -> Path:
    return _entries_folder(state) / f"{name}.json"


def _record_path(state: State, name: str) -> Path:
    return state.schedule / "records" / f"{name}.json"


def _load(path: Path, kind: type[_Stored]) -> _Stored | None:
    """Return the content of a file, None if there is no such file."""
    try:
        content: _Stored = _ADAPTERS[kind].validate_json(path.read_bytes())
        problem = _find_problem(content, path.stem) if isinstance(content, ScheduleEntry) else ""
    except FileNotFoundError:
        return None
    except ValidationError as error:
        first = error.errors()[0]
        problem = f"{'.'.join(map(str, first['loc'])) or 'the whole file'}: {first['msg']}"
    if problem:
        raise ScheduleError(
            f"Expected a {_KINDS[kind]} in {path}, got invalid content ({problem}). "
            "Delete the file and add the entry again."
        )
    return content


def _find_problem(entry: ScheduleEntry, stem: str) -> str:
    """Return what a manual edit of the file has broken, "" if nothing."""
    if entry.name != stem:
        return f"name: {entry.name!r}, but the name of the file is {stem!r}"
    try:
        zone = datetime.fromisoformat(entry.added).tzinfo
    except ValueError:
        zone = None
    return "" if zone else f"added: {entry.added!r} is no ISO 8601 time with a time zone"
