"""A run as a process of its own, which can be stopped and leaves its words in a file."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TypeAlias

import psutil

from regraft.core.state import RunMarker

N_LOGS = 20  # of each declaration; guess: five months of weekly runs
_POLL_S = 0.05
_CLOCK_SLACK_S = 5.0  # a process's start time moves when the machine's clock is set
Process: TypeAlias = "subprocess.Popen[bytes] | RunMarker"  # a child of ours, or of another


def log_path(folder: Path, name: str, began: datetime) -> Path:
    """Where the run that begins then writes; of earlier ones, the last N_LOGS - 1 stay."""
    folder.mkdir(parents=True, exist_ok=True)
    stamped = f"{name}-{'[0-9]' * 8}T{'[0-9]' * 6}.{'[0-9]' * 6}Z.log"  # of no longer name
    old = sorted(folder.glob(stamped))
    for path in old[: max(0, len(old) - N_LOGS + 1)]:
        path.unlink(missing_ok=True)
    return folder / f"{name}-{began:%Y%m%dT%H%M%S.%f}Z.log"


def begin(command: Sequence[str], folder: str, log: Path) -> "subprocess.Popen[bytes]":
    """The process that was started.

    It has a session of its own: Ctrl-C in the service's terminal does not reach it, only what
    interrupt() sends. It writes into the file itself, and so goes on if the service is killed.

    Raises:
        OSError: no such folder, no such program, no room for the log.
    """
    with log.open("wb") as file:
        return subprocess.Popen(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def lives(marker: RunMarker | None) -> bool:
    """Whether the process is seen here; one of another machine counts as gone.

    A service in a container finds itself on another machine each time that it begins, and there is
    one service a state folder.
    """
    if marker is None or marker.host != socket.gethostname():
        return False
    try:
        process = psutil.Process(marker.pid)
        zombie = process.status() == psutil.STATUS_ZOMBIE
        return not zombie and abs(process.create_time() - marker.created) < _CLOCK_SLACK_S
    except psutil.NoSuchProcess:
        return False


def interrupt(pid: int) -> None:
    """Asks a process to end as Ctrl-C does: a training keeps what it has."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGINT)


def kill(pid: int) -> None:
    """Ends a process of its own session, and those that it started."""
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def ended(process: Process) -> bool:
    """Whether it has, seen from any thread."""
    return not lives(process) if isinstance(process, RunMarker) else process.poll() is not None


def put_an_end_to(processes: Sequence[Process], timeout_s: float) -> None:
    """Interrupts them, and kills those that have not ended after timeout_s seconds."""
    left = [each for each in processes if not ended(each)]
    for process in left:
        interrupt(process.pid)
    deadline = time.monotonic() + timeout_s
    while (left := [each for each in left if not ended(each)]) and time.monotonic() < deadline:
        time.sleep(_POLL_S)
    for process in left:
        kill(process.pid)
