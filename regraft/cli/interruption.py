"""Signals that ask a command to end: SIGINT (Ctrl-C), SIGTERM (systemd, docker, Slurm), SIGHUP.

The first one interrupts the command as Ctrl-C does: the run is recorded as interrupted, and the
same command resumes it. The second one ends the process at once; the next command repairs its run,
as after a SIGKILL.
"""

import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_JOIN_TIMEOUT_S = 1.0
_MESSAGE = (
    "Interrupted by {name}: the command ends after what cannot be cut short. Run the same command "
    "again to resume. A second Ctrl-C ends it at once.\n"
)


@contextmanager
def interruptible() -> Iterator[None]:
    """Interrupt the block at the first signal, and end the process at the second one.

    An inherited "ignore" of SIGINT or SIGTERM does not count: a shell makes background jobs ignore
    SIGINT, and a run that cannot be interrupted could only be killed. `nohup` has its way.

    Raises:
        SystemExit: a signal interrupted the block; code 128 + number of the signal.
    """
    received: list[int] = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        received.append(number)
        signal.signal(number, lambda number, frame: os._exit(128 + number))
        raise KeyboardInterrupt(signal.Signals(number).name)

    is_ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    numbers = _SIGNALS[:2] if is_ignored else _SIGNALS
    previous = {number: signal.signal(number, interrupt) for number in numbers}
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    wakeup = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    watcher = threading.Thread(target=_watch, args=(reader,), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(wakeup)
        writer.close()  # which ends the watcher, after its last message
        watcher.join(_JOIN_TIMEOUT_S)
        for number, handler in previous.items():
            signal.signal(number, handler)
        error = sys.exception() if received else None
        if error and not (isinstance(error, SystemExit) and not error.code):
            sys.exit(128 + received[0])


def release_signals() -> None:
    """Leave signals to handlers that the caller installs next."""
    signal.set_wakeup_fd(-1)


def _watch(reader: socket.socket) -> None:
    """Answer each signal at once, from a thread: the main thread may compute for seconds.

    ZenML replaces the signal handlers while a step runs, and reads its database in them.
    """
    is_second = False
    with reader:
        while data := reader.recv(1):
            if data[0] not in _SIGNALS:
                continue
            if is_second:
                os._exit(128 + data[0])
            is_second = True
            message = _MESSAGE.format(name=signal.Signals(data[0]).name)
            with suppress(OSError):  # the terminal is gone
                os.write(2, message.encode())
