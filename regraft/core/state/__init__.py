"""The state folder: all persistent data of Regraft, and the locks of its running processes."""

from regraft.core.state.databases import (
    require_mlflow_database,
    require_zenml_database,
    version_stamp,
)
from regraft.core.state.faults import find_fault, reported_faults
from regraft.core.state.folder import (
    State,
    existing_state,
    open_state,
    readable_state,
    state_lock,
)
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
from regraft.core.state.places import Places, fix_places, places
from regraft.core.state.record import FORMAT
from regraft.core.state.variables import activate, environment

__all__ = [
    "FORMAT",
    "Places",
    "RunMarker",
    "State",
    "activate",
    "current_process",
    "current_user",
    "environment",
    "exclusive_lock",
    "existing_state",
    "find_fault",
    "fix_places",
    "make_marker",
    "marked_runs",
    "open_state",
    "places",
    "readable_state",
    "remove_run_marker",
    "reported_faults",
    "require_mlflow_database",
    "require_zenml_database",
    "run_marker",
    "state_lock",
    "version_stamp",
]
