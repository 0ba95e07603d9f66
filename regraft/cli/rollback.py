"""regraft rollback: the previous champion becomes the champion again."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from regraft.cli.options import DEFAULT_STATE, ModelArgument, StateOption
from regraft.cli.session import known_state, runner_for
from regraft.core.pages.facts import format_version
from regraft.core.state import places

ToOption = Annotated[
    int | None,
    typer.Option(
        "--to", min=1, metavar="N", help="A version that was champion; default: the previous one."
    ),
]
ReasonOption = Annotated[
    str, typer.Option("--reason", metavar="TEXT", help="Why; it is stored in the ledger.")
]

NO_REASON = "by hand, no reason was given"


def rollback(
    name: ModelArgument = "",
    to: ToOption = None,
    reason: ReasonOption = "",
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Make the previous champion the champion again; repeated, it goes further back."""
    opened = known_state(state)
    tracking = places(opened).tracking
    from regraft.core.state import current_user
    from regraft.registry.champion import roll_back
    from regraft.registry.ledger import resolve_model_name

    name = resolve_model_name(tracking, name)
    entry = roll_back(tracking, name, current_user(), reason or NO_REASON, datetime.now(UTC), to)
    before, after = format_version(entry.before), format_version(entry.after)
    typer.echo(f"{name} {after} is the champion; before: {before} (ledger entry {entry.number})")
    from regraft.operations.workflows.views import update_views

    update_views(opened, runner_for(opened))
