"""The state of the schedule, and its open tasks for a person."""

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from regraft.core.errors import ScheduleError
from regraft.core.outcomes import ScheduledOutcome
from regraft.core.state import State
from regraft.operations.schedule import (
    Record,
    load_entry,
    load_record,
    names,
    next_due,
    read_heartbeat,
)
from regraft.operations.status.needs import Need

_LATE = timedelta(minutes=10)  # guess: a busy machine starts a run within this time
_PROBLEMS: dict[ScheduledOutcome, str] = {
    "failed": "failed",
    "timeout": "took too long and was ended",
    "killed": "ended, and its result is unknown",
}


@dataclass(frozen=True)
class Service:
    """The schedule and its service.

    next: (name of the next entry, its fire time in UTC); None if nothing is scheduled.
    is_alive: whether the service was running when this was read.
    last_heartbeat: ISO 8601, UTC, "" if never.
    needs: open tasks for a person.
    """

    next: tuple[str, datetime] | None = None
    is_alive: bool = False
    last_heartbeat: str = ""
    needs: tuple[Need, ...] = ()


def service_of(state: State, now: datetime) -> Service:
    """Return the state of the schedule; an invalid file becomes a task, not an error.

    Args:
        now: UTC.
    """
    due: list[tuple[datetime, str]] = []
    needs: list[Need] = []
    for name in names(state):
        try:
            entry, record = load_entry(state, name), load_record(state, name)
            if entry is None or entry.backend != "local":
                continue
            when = next_due(entry, record, now)
        except ScheduleError as error:
            needs.append(Need("bad", str(error)))
            continue
        if when:
            due.append((when, name))
        needs += _about_last_run(name, record)
    heartbeat = read_heartbeat(state)
    is_alive = heartbeat is not None and heartbeat.is_alive(now)
    first = (min(due)[1], min(due)[0]) if due else None
    needs += _about_next_run(first, is_alive, now)
    return Service(first, is_alive, heartbeat.time if heartbeat else "", tuple(needs))


def _about_last_run(name: str, record: Record) -> Iterator[Need]:
    if record.outcome not in _PROBLEMS:
        return
    code = f", exit code {record.exit_code}" if record.exit_code is not None else ""
    reason = f": {record.reason}" if record.reason and record.outcome == "failed" else ""
    due = f"{datetime.fromisoformat(record.due):%Y-%m-%d %H:%M} UTC"
    problem = _PROBLEMS[record.outcome]
    message = f"The run of {name} that was due {due} {problem}{code}{reason}"
    yield Need("bad", message, (f"tail {shlex.quote(record.log)}",) if record.log else ())


def _about_next_run(
    first: tuple[str, datetime] | None, is_alive: bool, now: datetime
) -> Iterator[Need]:
    if first is None:
        return
    name, when = first
    if not is_alive:
        message = f"The schedule service is not running, so {name} will not start."
        yield Need("bad", message, ("regraft schedule run",))
    elif when < now - _LATE:
        message = f"{name} was due {when:%Y-%m-%d %H:%M} UTC and has not started."
        yield Need("warn", message)
