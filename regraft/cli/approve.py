"""regraft approve, regraft reject: a person's answer to a pending verdict."""

from pathlib import Path
from typing import Annotated

import typer

from regraft.cli.options import DEFAULT_STATE, StateOption
from regraft.cli.session import known_state, runner_for
from regraft.core.pages.facts import format_version
from regraft.core.state import places

PendingArgument = Annotated[
    str, typer.Argument(metavar="MODEL", help="NAME/VERSION; default: the only pending one.")
]
ReasonOption = Annotated[
    str, typer.Option("--reason", metavar="TEXT", help="Why; it is stored in the ledger.")
]


def approve(
    reference: PendingArgument = "",
    reason: ReasonOption = "",
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Approve a pending verdict: its version becomes the champion."""
    _answer(True, reference, reason, state)


def reject(
    reference: PendingArgument = "",
    reason: ReasonOption = "",
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Reject a pending verdict: the champion stays."""
    _answer(False, reference, reason, state)


def _answer(approved: bool, reference: str, reason: str, root: Path) -> None:
    state = known_state(root)
    from regraft.operations.workflows.promote import answer_pending, find_pending

    version = find_pending(places(state).tracking, reference)
    entry = answer_pending(version, approved, reason, state, runner_for(state))
    change = "is the champion now" if entry.after != entry.before else "stays the champion"
    champion = format_version(entry.after)
    typer.echo(
        f"{entry.model} {champion} {change}; {entry.reason} (entry {entry.number} of the ledger)"
    )
