"""The heartbeat: a file by which everybody can see whether the schedule's service lives."""

import json
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from regraft.core.files import write_whole
from regraft.core.state import State

Doing = Literal["running", "stopped"]
BEAT_S = 15.0  # guess; a reader need not look more often
_MISSED_BEATS = 4  # guess: a machine may be busy for a minute


@dataclass(frozen=True)
class Heartbeat:
    """What the service said last.

    time, since: when it said so, and when it began; ISO 8601, UTC.
    pid, host: of its process.
    next_runs: (name, when due) of each declaration, soonest first.
    running: names of what it runs now.
    """

    time: str
    since: str
    pid: int
    host: str
    doing: Doing
    next_runs: tuple[tuple[str, str], ...] = ()
    running: tuple[str, ...] = ()

    def age_s(self, now: datetime) -> float:
        """Seconds since it was said."""
        return (now - datetime.fromisoformat(self.time)).total_seconds()

    def lives(self, now: datetime) -> bool:
        """Whether the service is taken to live; a beat far ahead is of a clock that was wrong."""
        return self.doing == "running" and abs(self.age_s(now)) <= _MISSED_BEATS * BEAT_S


def beat(state: State, heartbeat: Heartbeat) -> None:
    """Writes it in place of the last one."""
    write_whole(str(_path(state)), json.dumps(asdict(heartbeat), indent=1).encode())


def last_beat(state: State) -> Heartbeat | None:
    """What the service said last; None if there was none, or the file is none of ours."""
    try:
        return TypeAdapter(Heartbeat).validate_json(_path(state).read_bytes())
    except (FileNotFoundError, ValidationError):  # it is written anew within seconds
        return None


def _path(state: State) -> Path:
    return state.schedule / "heartbeat.json"
