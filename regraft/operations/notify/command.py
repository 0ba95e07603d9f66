"""A command that reads what happened from its standard input."""

import os
import shlex
import signal
import subprocess
from contextlib import suppress

from regraft.core.config import Target
from regraft.operations.notify.message import Message


def run(target: Target, message: Message) -> str:
    """Runs the command; why that failed, "" if it did not.

    Its own process group, killed as a whole when its time is over. What it prints is dropped: it
    may be anything.
    """
    try:
        process = subprocess.Popen(
            shlex.split(target.to),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError as error:
        return f"it cannot be started ({error.strerror or type(error).__name__})"
    try:
        process.communicate(message.payload(), timeout=target.timeout_s)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):  # it ended just now
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return f"it did not end in {target.timeout_s:g} s and was killed"
    code = process.returncode
    return f"it ended with {code}" if code else ""
