"""How the schedule stands, and what of it needs a person."""

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from regraft.core.errors import ScheduleError
from regraft.core.state import State
from regraft.operations.schedule import Record, declared, last_beat, names, next_due, record_of
from regraft.operations.status.needs import Need

_LATE = timedelta(minutes=10)  # guess: a busy machine begins by then
_SAID = {
    "failed": "failed",
    "timeout": "took too long and was ended",
    "lost": "ended, and nobody saw how",
}


@dataclass(frozen=True)
class Service:
    """The schedule and its service.

    next: the name of what runs next, and when, UTC; None if nothing is declared.
    lives: whether the service did when this was asked. beat: when it last said so, "" if never.
    needs: what waits for a person.
    """

    next: tuple[str, datetime] | None = None
    lives: bool = False
    beat: str = ""
    needs: tuple[Need, ...] = ()


def service_of(state: State, now: datetime) -> Service:
    """How the schedule of the state folder stands; a file that is broken is a need, and no error.

    Args:
        now: UTC.
    """
    due: list[tuple[datetime, str]] = []
    needs: list[Need] = []
    for name in names(state):
        try:
            declaration, record = declared(state, name), record_of(state, name)
            if declaration is None or declaration.keeper != "here":
                continue
            when = next_due(declaration, record, now)
        except ScheduleError as error:
            needs.append(Need("bad", str(error)))
            continue
        due += [(when, name)] if when else []
        needs += _about_last(name, record)
    beat = last_beat(state)
    lives = beat is not None and beat.lives(now)
    soonest = (min(due)[1], min(due)[0]) if due else None
    needs += _about_next(soonest, lives, now)
    return Service(soonest, lives, beat.time if beat else "", tuple(needs))


def _about_last(name: str, record: Record) -> Iterator[Need]:
    """What came of the last run, where it was not what should have."""
    if record.outcome not in _SAID:
        return
    code = f", exit code {record.exit_code}" if record.exit_code is not None else ""
    why = f": {record.reason}" if record.reason and record.outcome == "failed" else ""
    due = f"{datetime.fromisoformat(record.due):%Y-%m-%d %H:%M} UTC"
    said = f"The run of {name} that was due {due} {_SAID[record.outcome]}{code}{why}"
    yield Need("bad", said, (f"tail {shlex.quote(record.log)}",) if record.log else ())


def _about_next(due: tuple[str, datetime] | None, lives: bool, now: datetime) -> Iterator[Need]:
    if due is None:
        return
    name, when = due
    if not lives:
        said = f"Nobody runs the schedule, so {name} will not start."
        yield Need("bad", said, ("regraft schedule run",))
    elif when < now - _LATE:
        said = f"{name} was due {when:%Y-%m-%d %H:%M} UTC and has not begun."
        yield Need("look", said)
