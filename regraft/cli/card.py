"""regraft card: what is recorded of a model, as Markdown or as one HTML page."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from regraft.cli.options import DEFAULT_STATE, StateOption, is_debug
from regraft.core.config import TrackingConfig


class Format(StrEnum):
    """How the card is written."""

    markdown = "markdown"
    html = "html"


def card(
    model: Annotated[
        str, typer.Argument(help="NAME@ALIAS or NAME/V; left out: the only champion.")
    ] = "",
    format_: Annotated[Format, typer.Option("--format", help="How it is written.")] = (
        Format.markdown
    ),
    out: Annotated[Path | None, typer.Option(help="Where to; left out: the screen.")] = None,
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Writes the model card of a version: facts only, from what is recorded of it."""
    from regraft.core.state import activate, existing_state

    opened = existing_state(state, is_debug())
    activate(opened)
    from regraft import registry
    from regraft.core.files import absolute, write_whole
    from regraft.registry.model_card import card_of, html, markdown

    tracking = TrackingConfig(uri=opened.tracking_uri)
    found = card_of(registry.resolve(tracking, model), tracking)
    text = html(found) if format_ is Format.html else markdown(found)
    if out is None:
        typer.echo(text, nl=False)
        return
    write_whole(absolute(str(out)), text.encode())
    typer.echo(f"The card of {found.reference}: {out}")
