"""ZenML shows what the registry says; after a command that changed it, ZenML is told."""

from typing import TYPE_CHECKING

from commands.options import is_debug

if TYPE_CHECKING:
    from pathlib import Path


def show_in_zenml(root: "Path") -> None:
    """Makes ZenML's mirror follow the registry of the state folder, if there is a ZenML store.

    To be called last: ZenML takes seconds to start, and only shows what has been done.
    """
    from regraft.state import existing_state

    state = existing_state(root, is_debug())
    if state.zenml_database.exists():
        from pipelines.stack import bootstrap

        bootstrap(state)
        from regraft.config import TrackingConfig
        from steps.mirror import repair

        repair(TrackingConfig(uri=state.tracking_uri))
