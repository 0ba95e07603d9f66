"""A target that is a local command, with the message on its standard input."""

import os
import shlex
import signal
import subprocess
from contextlib import suppress

from regraft.core.config import Target
from regraft.operations.notify.message import Message


def run(target: Target, message: Message) -> str:
    """Run the command and return why it failed, "" if it succeeded.

    The command gets its own process group, which is killed as a whole after timeout_s. Its output
    is discarded, because it may contain secrets.
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
        return f"the command could not be started ({error.strerror or type(error).__name__})"
    try:
        process.communicate(message.payload(), timeout=target.timeout_s)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):  # it ended just now
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return f"the command did not end within {target.timeout_s:g} s and was killed"
    code = process.returncode
    return f"the command ended with exit code {code}" if code else ""
