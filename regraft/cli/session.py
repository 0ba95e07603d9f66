"""What a command needs before its workflow: the state folder, and the log on the screen."""

import logging
import sys
from pathlib import Path

from regraft import session
from regraft.cli.options import is_debug
from regraft.core.state import State
from regraft.session import find_dag, runner_for

__all__ = [
    "configure_logging",
    "find_dag",
    "known_state",
    "new_state",
    "readable_state",
    "runner_for",
]


def new_state(root: Path) -> State:
    """Return the state folder, created if it is new, with ZenML and MLflow pointed at it."""
    return session.new_state(root, is_debug())


def known_state(root: Path) -> State:
    """Return the state folder of earlier runs, with ZenML and MLflow pointed at it.

    Raises:
        StateError: there is none, or it is not writable.
    """
    return session.known_state(root, is_debug())


def readable_state(root: Path) -> State:
    """Return the state folder as known_state() does, for commands that only read.

    Raises:
        StateError: there is none.
    """
    return session.readable_state(root, is_debug())


def configure_logging(format_: str = "%(message)s") -> None:
    """Show the log on the screen, a line a stage.

    Args:
        format_: of a line, as for logging.Formatter.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter(format_))
    logger = logging.getLogger("regraft")
    logger.handlers = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False
