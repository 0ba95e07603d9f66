"""Who runs what now: a file a run, with the process that would be found there."""

import getpass
import hashlib
import json
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

import psutil
from filelock import FileLock, Timeout

from regraft.errors import AlreadyRuns, StateError
from regraft.files import write_whole
from regraft.state.folder import State

_CLOCK_SLACK_S = 5.0  # a process's start time moves when the machine's clock is set
_MAX_STEM = 150  # of a file's name, which has at most 255 bytes, its suffix while it is written too


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
    write_whole(str(_path(state, name)), json.dumps(asdict(marker)).encode())
    return marker


def forget_run(state: State, name: str) -> None:
    """Removes a run's marker; none there is as good."""
    _path(state, name).unlink(missing_ok=True)


@contextmanager
def alone(state: State, what: str, now: datetime) -> Iterator[RunMarker | None]:
    """Nobody else does `what` with this state folder as long as the block lives.

    A lock that the system gives back when its holder ends, however that came, decides it; the
    marker only says whose it was. Neither a clock that is set nor a container that gets another
    host name each time can then let two in, or nobody. Yields the marker of a process that did it
    and was killed, None if there is none.

    Args:
        what: such as "retrain clothes".
        now: UTC.

    Raises:
        AlreadyRuns: a process does it.
    """
    with ExitStack() as held:
        try:
            held.enter_context(FileLock(_path(state, what, ".lock"), timeout=0))
        except Timeout:
            raise AlreadyRuns(_told(state, what)) from None
        earlier = _marker_of(state, what)
        mark_run(state, what, os.getpid(), now)
        held.callback(forget_run, state, what)
        yield earlier


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


def _told(state: State, what: str) -> str:
    holder = _marker_of(state, what)  # None in the moment before it is written
    who = f"process {holder.pid} on {holder.host}" if holder else "another process"
    since = f" since {holder.started}" if holder else ""
    return f"Expected to {what} alone, but {who} does it{since}. Wait for it, or end it."


def _marker_of(state: State, name: str) -> RunMarker | None:
    return next((marker for marker in running(state) if marker.name == name), None)


def _path(state: State, name: str, suffix: str = ".json") -> Path:
    stem = quote(name, safe=" ")  # a letter may become nine
    if len(stem) > _MAX_STEM:
        stem = f"{stem[:_MAX_STEM]}-{hashlib.sha256(name.encode()).hexdigest()[:16]}"
    return state.runs / f"{stem}{suffix}"
