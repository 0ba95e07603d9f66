"""Child processes: start, check, interrupt and kill the process of a run."""

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

N_LOGS = 20  # log files per entry; guess: five months of weekly runs
_POLL_S = 0.05
_CLOCK_SLACK_S = 5.0  # a process's start time shifts when the machine's clock is set
Process: TypeAlias = "subprocess.Popen[bytes] | RunMarker"  # own child, or of an earlier service


def log_path(folder: Path, name: str, started: datetime) -> Path:
    """Return the path of a new log file; delete old ones so that at most N_LOGS - 1 remain."""
    folder.mkdir(parents=True, exist_ok=True)
    digits = "[0-9]"  # exact timestamp: "job" must not match the logs of an entry "job-2"
    pattern = f"{name}-{digits * 8}T{digits * 6}.{digits * 6}Z.log"
    old = sorted(folder.glob(pattern))
    for path in old[: max(0, len(old) - N_LOGS + 1)]:
        path.unlink(missing_ok=True)
    return folder / f"{name}-{started:%Y%m%dT%H%M%S.%f}Z.log"


def start_process(command: Sequence[str], folder: str, log: Path) -> "subprocess.Popen[bytes]":
    """Start a command and return its process.

    The process has its own session: Ctrl-C in the service's terminal does not reach it. It writes
    to the log file directly, and therefore survives when the service is killed.

    Raises:
        OSError: the folder or the program does not exist, or the log cannot be written.
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


def is_alive(marker: RunMarker | None) -> bool:
    """Return whether the process runs on this machine.

    A process of another machine counts as dead: a service in a container has a new host name at
    each start, and only one service runs per state folder.
    """
    if marker is None or marker.host != socket.gethostname():
        return False
    try:
        process = psutil.Process(marker.pid)
        is_zombie = process.status() == psutil.STATUS_ZOMBIE
        return not is_zombie and abs(process.create_time() - marker.created) < _CLOCK_SLACK_S
    except psutil.NoSuchProcess:
        return False


def interrupt(pid: int) -> None:
    """Send SIGINT, as Ctrl-C does; a training saves its state and ends."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGINT)


def kill(pid: int) -> None:
    """Kill a process and its children; the process leads its own session."""
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def has_ended(process: Process) -> bool:
    """Return whether the process has ended; may be called from any thread."""
    return not is_alive(process) if isinstance(process, RunMarker) else process.poll() is not None


def terminate_all(processes: Sequence[Process], timeout_s: float) -> None:
    """Interrupt all processes, and kill those that are still alive after timeout_s seconds."""
    alive = [process for process in processes if not has_ended(process)]
    for process in alive:
        interrupt(process.pid)
    deadline = time.monotonic() + timeout_s
    while alive and time.monotonic() < deadline:
        time.sleep(_POLL_S)
        alive = [process for process in alive if not has_ended(process)]
    for process in alive:
        kill(process.pid)
