"""What shows the registry follows it after a command: ZenML's mirror and the status page."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from regraft.cli.options import is_debug

if TYPE_CHECKING:
    from pathlib import Path

    from regraft.core.state import State


def show(root: "Path") -> None:
    """Makes the page and ZenML's mirror follow the registry of the state folder.

    The mirror only if there is a ZenML store. To be called last: ZenML takes seconds to start, and
    only shows what has been done.
    """
    from regraft.core.state import existing_state

    state = existing_state(root, is_debug())
    show_on_page(state)
    if state.zenml_database.exists():
        from pipelines.stack import bootstrap

        bootstrap(state)
        from regraft.core.config import TrackingConfig
        from steps.mirror import repair

        repair(TrackingConfig(uri=state.tracking_uri))


def show_on_page(state: "State") -> None:
    """Makes the status page follow the registry and the journal."""
    from regraft.operations.status import rebuild

    rebuild(state, datetime.now(UTC))
