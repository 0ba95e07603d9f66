"""The state folder: all persistent data of Regraft, and the locks of its running processes."""

from regraft.core.state.folder import FORMAT, State, existing_state, open_state, state_lock
from regraft.core.state.marker import (
    RunMarker,
    current_process,
    current_user,
    exclusive_lock,
    make_marker,
    marked_runs,
    remove_run_marker,
    run_marker,
)
from regraft.core.state.variables import activate, environment

__all__ = [
    "FORMAT",
    "RunMarker",
    "State",
    "activate",
    "current_process",
    "current_user",
    "environment",
    "exclusive_lock",
    "existing_state",
    "make_marker",
    "marked_runs",
    "open_state",
    "remove_run_marker",
    "run_marker",
    "state_lock",
]
