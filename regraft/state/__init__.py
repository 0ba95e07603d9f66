"""The state folder: everything that Regraft remembers, and who works on it now."""

from regraft.state.folder import FORMAT, State, existing_state, locked, open_state
from regraft.state.marker import (
    RunMarker,
    alone,
    forget_run,
    mark_run,
    run_marker,
    running,
    who_am_i,
)
from regraft.state.variables import activate, environment

__all__ = [
    "FORMAT",
    "RunMarker",
    "State",
    "activate",
    "alone",
    "environment",
    "existing_state",
    "forget_run",
    "locked",
    "mark_run",
    "open_state",
    "run_marker",
    "running",
    "who_am_i",
]
