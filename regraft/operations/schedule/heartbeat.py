"""The heartbeat: a file that shows whether the schedule service is running."""

import json
import socket
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

import psutil
from pydantic import TypeAdapter, ValidationError

from regraft.core.files import write_atomic
from regraft.core.state import State

ServiceStatus = Literal["running", "stopped"]
BEAT_S = 15.0  # seconds between two heartbeats; guess
_CLOCK_SLACK_S = 60.0  # guess: the times of processes shift when the clock is set
_MAX_MISSED_BEATS = 4  # guess: a machine may be busy for a minute


@dataclass(frozen=True)
class Heartbeat:
    """The last report of the service.

    time: when the report was written, ISO 8601, UTC.
    since: when the service started, ISO 8601, UTC.
    pid, host: of the service's process.
    next_runs: (entry name, fire time in ISO 8601) of each entry, earliest first.
    running: names of the entries that run now.
    created: start time of the process in seconds since 1970.
    """

    time: str
    since: str
    pid: int
    host: str
    status: ServiceStatus
    next_runs: tuple[tuple[str, str], ...] = ()
    running: tuple[str, ...] = ()
    created: float = 0.0

    def age_s(self, now: datetime) -> float:
        """Return the age of the report in seconds."""
        return (now - datetime.fromisoformat(self.time)).total_seconds()

    def is_alive(self, now: datetime) -> bool:
        """Return whether the service is considered alive.

        On this machine its process must exist. On another machine the age of the report counts; a
        time far in the future comes from a wrong clock.
        """
        is_recent = abs(self.age_s(now)) <= _MAX_MISSED_BEATS * BEAT_S
        return self.status == "running" and is_recent and not self._has_died()

    def _has_died(self) -> bool:
        """Return whether the process has ended; False for another machine, which is unknown."""
        if self.host != socket.gethostname():
            return False
        try:
            process = psutil.Process(self.pid)
            age_difference_s = abs(process.create_time() - self.created)
            is_zombie = process.status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True
        return is_zombie or age_difference_s > _CLOCK_SLACK_S  # an id is used again


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
