"""regraft card: the model card of a version, as Markdown or as one HTML page."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from regraft.cli.options import DEFAULT_STATE, StateOption
from regraft.cli.session import readable_state
from regraft.core.state import places


class Format(StrEnum):
    """The format of the card."""

    markdown = "markdown"
    html = "html"


def card(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="NAME, NAME@ALIAS or NAME/VERSION; default: the only champion."
        ),
    ] = "",
    format_: Annotated[Format, typer.Option("--format", help="Format of the card.")] = (
        Format.markdown
    ),
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Default: the screen.")] = None,
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Write the model card of a version, from its records."""
    tracking = places(readable_state(state)).tracking
    from regraft import registry
    from regraft.core.files import absolute, write_atomic
    from regraft.registry.model_card import html, load_model_card, markdown

    model_card = load_model_card(registry.resolve(tracking, model), tracking)
    text = html(model_card) if format_ is Format.html else markdown(model_card)
    if out is None:
        typer.echo(text, nl=False)
        return
    write_atomic(absolute(str(out)), text.encode())
    typer.echo(f"The card of {model_card.reference}: {out}")
