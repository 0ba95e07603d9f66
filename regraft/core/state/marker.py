"""Who does what now: a lock, and beside it a marker that says whose it is.

A lock is given back by the system when its holder ends, however that comes. So neither a clock that
is set, nor a process id that was given away again, nor a container with another host name each
time can make a dead process look alive, or a living one dead.
"""

import getpass
import hashlib
import json
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

import psutil
from filelock import FileLock, Timeout

from regraft.core.errors import AlreadyRuns, StateError
from regraft.core.files import write_whole
from regraft.core.state.folder import State

_PATIENCE_S = 0.5  # whoever asks whether a lock is held holds it for a moment
_MAX_STEM = 150  # of a file's name, which has at most 255 bytes, its suffix while it is written too


@dataclass(frozen=True)
class RunMarker:
    """Who does something, or did when it was killed.

    name: of what is done; of a pipeline run, its name.
    pid, created: process id and the process's start time in seconds since 1970; a pid alone is
        given to another process sooner or later.
    host: the machine, by the name that it had then.
    started: when it was begun, ISO 8601, UTC.
    """

    name: str
    pid: int
    host: str
    created: float
    started: str

    @property
    def process(self) -> str:
        """Which process it is, as this_process() says it of itself."""
        return f"{self.pid}@{self.host}"


def who_am_i() -> str:
    """Who runs this process, as a ledger says it: user@host."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # in a container, a number that nobody gave a name
        user = f"uid-{os.getuid()}"
    return f"{user}@{socket.gethostname()}"


def marker_of(name: str, pid: int, now: datetime) -> RunMarker:
    """What is to be said of a process that lives.

    Args:
        now: UTC.
    """
    created = psutil.Process(pid).create_time()
    return RunMarker(name, pid, socket.gethostname(), created, now.isoformat())


def this_process() -> str:
    """Which process this is, as RunMarker.process says it of another."""
    return f"{os.getpid()}@{socket.gethostname()}"


@contextmanager
def alone(state: State, what: str, now: datetime) -> Iterator[tuple[RunMarker, ...]]:
    """Nobody else does `what` with this state folder as long as the block lives.

    Yields the markers of processes that did it and were killed, oldest first. They are yielded
    again to the next one unless the block ends well, so that none is lost where it is killed too.

    Args:
        what: such as "retrain clothes".
        now: UTC.

    Raises:
        AlreadyRuns: a process does it.
    """
    path = _path(state.locks, what, ".killed")
    with _held(state.locks, what, now, path):
        killed = _listed(path)
        yield killed
        path.unlink(missing_ok=True)


@contextmanager
def run_marker(state: State, name: str) -> Iterator[None]:
    """Says, as long as the block lives, that this process runs the pipeline run `name`.

    ZenML itself keeps no process id. A process that is killed leaves its marker: see marked_runs().

    Raises:
        AlreadyRuns: a process runs it.
    """
    with _held(state.runs, name, datetime.now(UTC)):
        try:
            yield
        finally:
            _remove(state.runs, name)  # with its lock, which nobody else will want


def marked_runs(state: State) -> dict[str, bool]:
    """{name: whether its process lives} of every pipeline run that left a marker, oldest first."""
    paths = state.runs.glob("*.json")
    markers = sorted(filter(None, map(_read, paths)), key=lambda marker: marker.started)
    return {marker.name: _is_held(_path(state.runs, marker.name, ".lock")) for marker in markers}


def forget_run(state: State, name: str) -> None:
    """Removes the marker of a run whose process is dead; one that lives keeps it."""
    with suppress(Timeout), FileLock(_path(state.runs, name, ".lock"), timeout=0):
        _remove(state.runs, name)


@contextmanager
def _held(folder: Path, name: str, now: datetime, killed: Path | None = None) -> Iterator[None]:
    """The lock and the marker; killed: the list that gets the marker of an earlier holder."""
    path = _path(folder, name, ".json")
    with ExitStack() as held:
        try:
            held.enter_context(FileLock(_path(folder, name, ".lock"), timeout=_PATIENCE_S))
        except Timeout:
            raise AlreadyRuns(_told(name, _read(path))) from None
        earlier = _read(path)
        if killed and earlier:
            markers = [asdict(marker) for marker in (*_listed(killed), earlier)]
            write_whole(str(killed), json.dumps(markers).encode())
        marker = marker_of(name, os.getpid(), now)
        write_whole(str(path), json.dumps(asdict(marker)).encode())
        held.callback(path.unlink, missing_ok=True)
        yield


def _remove(folder: Path, name: str) -> None:
    for suffix in (".json", ".lock"):  # in this order: where there is no marker, nobody asks
        _path(folder, name, suffix).unlink(missing_ok=True)


def _is_held(path: Path) -> bool:
    if not path.exists():
        return False
    with suppress(Timeout), FileLock(path, timeout=0):
        return False
    return True


def _read(path: Path) -> RunMarker | None:
    return next(iter(_listed(path)), None)


def _listed(path: Path) -> tuple[RunMarker, ...]:
    """The markers in a file that holds one, or a list of them; none if there is no file."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return tuple(RunMarker(**one) for one in (found if isinstance(found, list) else [found]))
    except FileNotFoundError:
        return ()
    except (ValueError, TypeError):
        raise StateError(
            f"Expected a run marker in {path}, got something else. Delete that file."
        ) from None


def _told(what: str, holder: RunMarker | None) -> str:
    who = f"process {holder.pid} on {holder.host}" if holder else "another process"
    since = f" since {holder.started}" if holder else ""  # none in the moment before it is written
    return f"Expected to {what} alone, but {who} does it{since}. Wait for it, or end it."


def _path(folder: Path, name: str, suffix: str) -> Path:
    stem = quote(name, safe=" ")  # a letter may become nine
    if len(stem) > _MAX_STEM:
        stem = f"{stem[:_MAX_STEM]}-{hashlib.sha256(name.encode()).hexdigest()[:16]}"
    return folder / f"{stem}{suffix}"
