"""regraft status: the state of all models in a few lines, and the status page."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from regraft.cli.options import DEFAULT_STATE, StateOption
from regraft.cli.session import readable_state

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from regraft.operations.status.needs import Need
    from regraft.operations.status.page import Built


def status(
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Path of the page; default: in the state folder."),
    ] = None,
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Print what serves, what is due and what is pending, and write the status page."""
    opened = readable_state(state)
    from regraft.operations.status import rebuild

    for line in _lines(rebuild(opened, datetime.now(UTC), out=out)):
        typer.echo(line)


def _lines(built: "Built") -> "Iterator[str]":
    for view in built.views:
        champion = f"v{view.champion} is the champion" if view.champion else "no champion"
        since = f" since {view.since:%Y-%m-%d}" if view.since else ""
        accuracy = f", {view.score.accuracy:.1%}" if view.score else ""
        yield f"{view.name}: {champion}{since}{accuracy}"
        yield from _format_needs(view.needs)
    if built.service.next:
        name, when = built.service.next
        yield f"Next: {name}, {when:%Y-%m-%d %H:%M} UTC"
    yield from _format_needs(built.service.needs)
    if built.path:
        yield f"Details: {built.path}"
    else:
        yield "The state folder is write-protected; --out writes the page to another place."


def _format_needs(needs: "Iterable[Need]") -> "Iterator[str]":
    for need in needs:
        yield f"  {'!' if need.tone == 'bad' else '>'} {need.message}"
        yield from (f"      {command}" for command in need.commands)
