"""regraft ledger: whether the record of what served is still what was written."""

from typing import TYPE_CHECKING, Annotated

import typer

from regraft.cli.options import DEFAULT_STATE, StateOption, is_debug

if TYPE_CHECKING:
    from pathlib import Path

    from regraft.core.config import TrackingConfig

ModelArgument = Annotated[
    str, typer.Argument(metavar="[NAME]", help="The model; left out where there is only one.")
]

ledger_app = typer.Typer(help="Check the record of what served.", no_args_is_help=True)


@ledger_app.callback()
def ledger() -> None:
    """Check the record of what served."""  # with it, the one command below keeps its name


@ledger_app.command("verify")
def verify(name: ModelArgument = "", state: StateOption = DEFAULT_STATE) -> None:
    """Checks every entry against its hash and the entry before it; exit code 6 if one is wrong."""
    tracking = tracking_of(state)
    from regraft.registry.ledger import meant, verified

    name = meant(tracking, name)
    found = verified(tracking, name)
    n_entries = len(found.entries)
    counted = "1 entry" if n_entries == 1 else f"{n_entries} entries"
    head = f", head {found.head}" if found.head else ""
    typer.echo(f"{name}: {counted}, as they were written{head}")


def tracking_of(state: "Path") -> "TrackingConfig":
    """The MLflow store of a state folder that a run has made before."""
    from regraft.core.state import activate, existing_state

    opened = existing_state(state, is_debug())
    activate(opened)
    from regraft.core.config import TrackingConfig

    return TrackingConfig(uri=opened.tracking_uri)
