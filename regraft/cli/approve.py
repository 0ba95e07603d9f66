"""regraft approve, regraft reject: what a person says about a verdict that waits."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from regraft.cli.mirror import show_on_page
from regraft.cli.options import DEFAULT_STATE, StateOption, is_debug

if TYPE_CHECKING:
    from pathlib import Path

    from regraft.core.config import TrackingConfig
    from regraft.registry import Entry, RegisteredVersion

WaitingArgument = Annotated[
    str,
    typer.Argument(metavar="[NAME/VERSION]", help="Left out: the only one that waits."),
]
ReasonOption = Annotated[str, typer.Option("--reason", help="Why; it is kept in the ledger.")]


def approve(
    reference: WaitingArgument = "",
    reason: ReasonOption = "",
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Lets a version serve whose verdict waits for somebody to approve it."""
    _decide(True, reference, reason, state)


def reject(
    reference: WaitingArgument = "",
    reason: ReasonOption = "",
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Writes down that a version shall not serve whose verdict waits; the champion serves on."""
    _decide(False, reference, reason, state)


def _decide(approved: bool, reference: str, reason: str, root: "Path") -> None:
    from regraft.core.config import TrackingConfig
    from regraft.core.state import activate, existing_state, who_am_i

    state = existing_state(root, is_debug())
    activate(state)
    from pipelines.stack import bootstrap, hush

    bootstrap(state)
    if not state.debug:
        hush()
    from pipelines.approval import answer, start_approval, sweep_approvals
    from pipelines.doctor import sweep_stuck
    from regraft.promotion import load_verdict
    from steps.carry_out import Decision

    now, tracking = datetime.now(UTC), TrackingConfig(uri=state.tracking_uri)
    sweep_stuck(state, now)
    sweep_approvals(tracking, state)
    version = _meant(tracking, reference)
    waiting = start_approval(load_verdict(tracking, version), tracking, state, now)
    run = answer(waiting, Decision(approved=approved, who=who_am_i(), why=reason), state)
    typer.echo(_told(run.steps["carry_out"].output.load()))
    show_on_page(state)


def _meant(tracking: "TrackingConfig", reference: str) -> "RegisteredVersion":
    """The version that waits and that the reference means.

    Raises:
        NothingWaits: none does, or more than one.
    """
    from regraft.core.errors import NothingWaits
    from regraft.promotion import waiting_versions

    waiting = {f"{one.name}/{one.version}": one for one in waiting_versions(tracking)}
    found = [name for name, one in waiting.items() if reference in ("", name, one.name)]
    if len(found) == 1:
        return waiting[found[0]]
    wanted = f"a verdict about {reference}" if reference else "one verdict"
    remedy = "Name one of these." if waiting else "See `regraft models`."
    raise NothingWaits(
        f"Expected {wanted} to wait for approval, found {', '.join(waiting) or 'none'}. {remedy}"
    )


def _told(entry: "Entry") -> str:
    serves = "none" if entry.after is None else f"v{entry.after}"
    still = "serves now" if entry.after != entry.before else "serves on"
    return f"{entry.model} {serves} {still}; {entry.reason} (entry {entry.number} of the ledger)"
