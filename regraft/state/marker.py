"""Who runs what now: a file a run, with the process that would be found there."""

import getpass
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

import psutil

from regraft.errors import AlreadyRuns, StateError
from regraft.files import write_whole
from regraft.state.folder import State, locked

_CLOCK_SLACK_S = 5.0  # a process's start time moves when the machine's clock is set


@dataclass(frozen=True)
class RunMarker:
    """Who runs a pipeline run; ZenML itself keeps no process id.

    name: the pipeline run's name.
    pid, created: process id and the process's start time in seconds since 1970; a pid alone is
        given to another process sooner or later.
    host: the machine; a process of another one cannot be seen from here.
    started: when the run started, ISO 8601, UTC.
    """

    name: str
    pid: int
    host: str
    created: float
    started: str

    @property
    def alive(self) -> bool:
        """Whether the process lives; on another machine it is taken to."""
        if self.host != socket.gethostname():
            return True
        try:
            process = psutil.Process(self.pid)
            zombie = process.status() == psutil.STATUS_ZOMBIE
            return not zombie and abs(process.create_time() - self.created) < _CLOCK_SLACK_S
        except psutil.NoSuchProcess:
            return False


def who_am_i() -> str:
    """Who runs this process, as a ledger says it: user@host."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # in a container, a number that nobody gave a name
        user = f"uid-{os.getuid()}"
    return f"{user}@{socket.gethostname()}"


@contextmanager
def run_marker(state: State, name: str) -> Iterator[RunMarker]:
    """Says, as long as the block lives, that this process runs the pipeline run `name`.

    A process that is killed leaves its marker; running() then shows it dead.
    """
    marker = mark_run(state, name, os.getpid(), datetime.now(UTC))
    try:
        yield marker
    finally:
        forget_run(state, name)


def mark_run(state: State, name: str, pid: int, now: datetime) -> RunMarker:
    """Writes <root>/runs/<name>.json for a process that lives; returns what it says."""
    created = psutil.Process(pid).create_time()
    marker = RunMarker(name, pid, socket.gethostname(), created, now.isoformat())
    write_whole(str(_marker_path(state, name)), json.dumps(asdict(marker)).encode())
    return marker


def forget_run(state: State, name: str) -> None:
    """Removes a run's marker; none there is as good."""
    _marker_path(state, name).unlink(missing_ok=True)


@contextmanager
def alone(state: State, what: str, now: datetime) -> Iterator[RunMarker | None]:
    """Nobody else does `what` with this state folder as long as the block lives.

    Yields the marker of a process that did it and was killed, None if there is none.

    Args:
        what: such as "retrain clothes".
        now: UTC.

    Raises:
        AlreadyRuns: a process that lives does it; one of another machine is taken to live.
    """
    with locked(state):
        known = {marker.name: marker for marker in running(state)}
        earlier = known.get(what)
        if earlier and earlier.alive:
            path = _marker_path(state, what)
            raise AlreadyRuns(
                f"Expected to {what} alone, but process {earlier.pid} on {earlier.host} does it "
                f"since {earlier.started}. Wait for it, or end it; if that machine is gone, "
                f"delete {path}."
            )
        mine = mark_run(state, what, os.getpid(), now)
    try:
        yield earlier
    finally:
        if mine in running(state):  # somebody may have deleted it, and another have begun
            forget_run(state, what)


def running(state: State) -> list[RunMarker]:
    """Every marker in the folder, oldest first; ask each whether it is alive."""
    markers = []
    for path in state.runs.glob("*.json"):
        try:
            markers.append(RunMarker(**json.loads(path.read_text(encoding="utf-8"))))
        except FileNotFoundError:  # the run ended between the two lines above
            continue
        except (ValueError, TypeError):
            raise StateError(
                f"Expected a run marker in {path}, got something else. Delete that file."
            ) from None
    return sorted(markers, key=lambda marker: marker.started)


def _marker_path(state: State, name: str) -> Path:
    return state.runs / f"{quote(name, safe=' ')}.json"
