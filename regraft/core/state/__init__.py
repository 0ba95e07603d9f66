"""The state folder: everything that Regraft remembers, and who works on it now."""

from regraft.core.state.folder import FORMAT, State, existing_state, locked, open_state
from regraft.core.state.marker import (
    RunMarker,
    alone,
    forget_run,
    marked_runs,
    marker_of,
    run_marker,
    this_process,
    who_am_i,
)
from regraft.core.state.variables import activate, environment

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
    "marked_runs",
    "marker_of",
    "open_state",
    "run_marker",
    "this_process",
    "who_am_i",
]
