"""Locks of running work, each with a marker file that names its process.

The operating system releases a lock when its process ends, whatever the reason. So a dead process
is never taken for a running process, and a running process never for a dead process: clock changes,
reused process ids and new container host names have no effect.
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

from regraft.core.errors import AlreadyRunning, StateError
from regraft.core.files import write_atomic
from regraft.core.state.folder import State

_LOCK_TIMEOUT_S = 0.5  # checking whether a lock is held acquires the lock for a moment
_MAX_STEM = 150  # bytes; a file name has at most 255, including the suffix of its temporary file


@dataclass(frozen=True)
class RunMarker:
    """The process that does some work, or did the work until it was killed.

    name: of the work; for a pipeline run, the name of the run.
    pid: process id.
    host: host name at the start of the work.
    created: start time of the process in seconds since 1970, because process ids are reused.
    started: start time of the work, ISO 8601, UTC.
    """

    name: str
    pid: int
    host: str
    created: float
    started: str

    @property
    def process(self) -> str:
        """Return the process as "pid@host", in the format of current_process()."""
        return f"{self.pid}@{self.host}"


def current_user() -> str:
    """Return the user of this process as "user@host", for records such as the ledger."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container may run under a user id without a name
        user = f"uid-{os.getuid()}"
    return f"{user}@{socket.gethostname()}"


def make_marker(name: str, pid: int, now: datetime) -> RunMarker:
    """Return the marker of a running process.

    Args:
        name: of the work.
        pid: process id of a running process.
        now: UTC.
    """
    created = psutil.Process(pid).create_time()
    return RunMarker(name, pid, socket.gethostname(), created, now.isoformat())


def current_process() -> str:
    """Return this process as "pid@host", in the format of RunMarker.process."""
    return f"{os.getpid()}@{socket.gethostname()}"


@contextmanager
def exclusive_lock(state: State, work: str, now: datetime) -> Iterator[tuple[RunMarker, ...]]:
    """Lock a piece of work of this state folder for the duration of the block.

    Yields the markers of processes that did the same work and were killed, oldest first. If the
    block raises or is killed, the next caller receives the same markers again, so that none is
    lost.

    Args:
        state: an opened state folder.
        work: such as "retrain clothes".
        now: UTC.

    Raises:
        AlreadyRunning: another process does the work now.
    """
    path = _path(state.locks, work, ".killed")
    with _locked_with_marker(state.locks, work, now, path):
        killed = _read_markers(path)
        yield killed
        path.unlink(missing_ok=True)


@contextmanager
def run_marker(state: State, name: str) -> Iterator[None]:
    """Mark this process as the process of the pipeline run `name` for the duration of the block.

    ZenML does not store process ids. The marker of a killed process remains: see marked_runs().

    Raises:
        AlreadyRunning: another process executes the run now.
    """
    with _locked_with_marker(state.runs, name, datetime.now(UTC)):
        try:
            yield
        finally:
            _remove(state.runs, name)  # includes the lock file, which is not used again


def marked_runs(state: State) -> dict[str, bool]:
    """Return {name: whether its process is running} of every marked pipeline run, oldest first."""
    paths = state.runs.glob("*.json")
    markers = sorted(filter(None, map(_read, paths)), key=lambda marker: marker.started)
    return {marker.name: _is_locked(_path(state.runs, marker.name, ".lock")) for marker in markers}


def remove_run_marker(state: State, name: str) -> None:
    """Remove the marker of a run, unless its process is running."""
    with suppress(Timeout), FileLock(_path(state.runs, name, ".lock"), timeout=0):
        _remove(state.runs, name)


@contextmanager
def _locked_with_marker(
    folder: Path, name: str, now: datetime, killed: Path | None = None
) -> Iterator[None]:
    """Hold the lock and write the marker for the duration of the block.

    Args:
        killed: file with the list of markers of killed processes; the marker of a previous holder
            is appended to it.
    """
    path = _path(folder, name, ".json")
    with ExitStack() as stack:
        try:
            stack.enter_context(FileLock(_path(folder, name, ".lock"), timeout=_LOCK_TIMEOUT_S))
        except Timeout:
            raise AlreadyRunning(_describe_holder(name, _read(path))) from None
        earlier = _read(path)
        if killed and earlier:
            markers = [asdict(marker) for marker in (*_read_markers(killed), earlier)]
            write_atomic(str(killed), json.dumps(markers).encode())
        marker = make_marker(name, os.getpid(), now)
        write_atomic(str(path), json.dumps(asdict(marker)).encode())
        stack.callback(path.unlink, missing_ok=True)
        yield


def _remove(folder: Path, name: str) -> None:
    for suffix in (".json", ".lock"):  # the marker first: without a marker, no lock is checked
        _path(folder, name, suffix).unlink(missing_ok=True)


def _is_locked(path: Path) -> bool:
    if not path.exists():
        return False
    with suppress(Timeout), FileLock(path, timeout=0):
        return False
    return True


def _read(path: Path) -> RunMarker | None:
    return next(iter(_read_markers(path)), None)


def _read_markers(path: Path) -> tuple[RunMarker, ...]:
    """Return the markers in a file with a marker or a list of markers; () if it does not exist."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        entries = content if isinstance(content, list) else [content]
        return tuple(RunMarker(**entry) for entry in entries)
    except FileNotFoundError:
        return ()
    except (ValueError, TypeError):
        raise StateError(
            f"Expected a run marker in {path}, got other content. Delete that file."
        ) from None


def _describe_holder(work: str, holder: RunMarker | None) -> str:
    process = f"process {holder.pid} on {holder.host}" if holder else "an unknown process"
    since = f", running since {holder.started}" if holder else ""  # the marker may be missing yet
    return (
        f"Expected no other process to {work} now, got {process}{since}. Wait until that process "
        "ends, or stop it."
    )


def _path(folder: Path, name: str, suffix: str) -> Path:
    stem = quote(name, safe=" ")  # a character may become nine bytes
    if len(stem) > _MAX_STEM:
        stem = f"{stem[:_MAX_STEM]}-{hashlib.sha256(name.encode()).hexdigest()[:16]}"
    return folder / f"{stem}{suffix}"
