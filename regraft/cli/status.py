"""regraft status: how things stand, in a few lines, and the page that shows it all."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from regraft.cli.options import DEFAULT_STATE, StateOption, is_debug

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from regraft.operations.status.needs import Need
    from regraft.operations.status.page import Built


def status(
    out: Annotated[
        Path | None, typer.Option(help="Where the page goes; left out: the state folder.")
    ] = None,
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Says what serves, what is due and what waits for a person, and writes the status page."""
    from regraft.core.state import activate, existing_state

    opened = existing_state(state, is_debug())
    activate(opened)
    from regraft.operations.status import rebuild

    for line in _lines(rebuild(opened, datetime.now(UTC), out=out)):
        typer.echo(line)


def _lines(built: "Built") -> "Iterator[str]":
    for view in built.views:
        served = f"v{view.champion} serves" if view.champion else "nothing serves"
        since = f" since {view.since:%Y-%m-%d}" if view.since else ""
        measured = f", {view.score.accuracy:.1%}" if view.score else ""
        yield f"{view.name}: {served}{since}{measured}"
        yield from _needed(view.needs)
    if built.service.next:
        name, when = built.service.next
        yield f"Next: {name}, {when:%Y-%m-%d %H:%M} UTC"
    yield from _needed(built.service.needs)
    yield f"The whole: {built.path}"


def _needed(needs: "Iterable[Need]") -> "Iterator[str]":
    for need in needs:
        yield f"  {'!' if need.tone == 'bad' else '>'} {need.said}"
        yield from (f"      {command}" for command in need.commands)
