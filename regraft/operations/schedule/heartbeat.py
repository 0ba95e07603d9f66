"""The heartbeat: a file that shows whether the schedule service is running."""

import json
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from regraft.core.files import write_atomic
from regraft.core.state import State

ServiceStatus = Literal["running", "stopped"]
BEAT_S = 15.0  # seconds between two heartbeats; guess
_MAX_MISSED_BEATS = 4  # guess: a machine may be busy for a minute


@dataclass(frozen=True)
class Heartbeat:
    """The last report of the service.

    time: when the report was written, ISO 8601, UTC.
    since: when the service started, ISO 8601, UTC.
    pid, host: of the service's process.
    next_runs: (entry name, fire time in ISO 8601) of each entry, earliest first.
    running: names of the entries that run now.
    """

    time: str
    since: str
    pid: int
    host: str
    status: ServiceStatus
    next_runs: tuple[tuple[str, str], ...] = ()
    running: tuple[str, ...] = ()

    def age_s(self, now: datetime) -> float:
        """Return the age of the report in seconds."""
        return (now - datetime.fromisoformat(self.time)).total_seconds()

    def is_alive(self, now: datetime) -> bool:
        """Return whether the service is considered alive.

        A time far in the future comes from a wrong clock and does not count as alive.
        """
        return self.status == "running" and abs(self.age_s(now)) <= _MAX_MISSED_BEATS * BEAT_S


def write_heartbeat(state: State, heartbeat: Heartbeat) -> None:
    """Write the heartbeat file in place of the last one."""
    write_atomic(str(_path(state)), json.dumps(asdict(heartbeat), indent=1).encode())


def read_heartbeat(state: State) -> Heartbeat | None:
    """Return the last heartbeat; None if the file is missing or invalid."""
    try:
        return TypeAdapter(Heartbeat).validate_json(_path(state).read_bytes())
    except (FileNotFoundError, ValidationError):  # a running service replaces it within seconds
        return None


def _path(state: State) -> Path:
    return state.schedule / "heartbeat.json"
