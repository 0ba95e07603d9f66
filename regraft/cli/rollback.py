"""regraft rollback: the champion before this one serves again."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from regraft.cli.ledger import ModelArgument, tracking_of
from regraft.cli.mirror import show
from regraft.cli.options import DEFAULT_STATE, StateOption

ToOption = Annotated[
    int | None,
    typer.Option("--to", min=1, help="A version that was champion; left out: the one before."),
]
ReasonOption = Annotated[str, typer.Option("--reason", help="Why; it is kept in the ledger.")]

NO_REASON = "by hand, no reason was given"


def rollback(
    name: ModelArgument = "",
    to: ToOption = None,
    reason: ReasonOption = "",
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Lets the version serve again that was champion before; done twice, it goes further back."""
    tracking = tracking_of(state)
    from regraft.core.state import who_am_i
    from regraft.registry.champion import roll_back
    from regraft.registry.ledger import meant, version_text

    name = meant(tracking, name)
    entry = roll_back(tracking, name, who_am_i(), reason or NO_REASON, datetime.now(UTC), to)
    before, after = version_text(entry.before), version_text(entry.after)
    typer.echo(f"{name} {after} serves now; before: {before} (entry {entry.number} of the ledger)")
    show(state)
