"""Options and arguments that several commands share."""

import sys
from pathlib import Path
from typing import Annotated

import typer

StateOption = Annotated[
    Path, typer.Option("--state", help="State folder: models, caches, journal, reports.")
]
ConfigOption = Annotated[
    Path | None, typer.Option("--config", help="YAML file with what differs from the defaults.")
]
SetOption = Annotated[
    list[str],
    typer.Option(
        "--set",
        help="section.field=value, over the file; repeatable. No value clears a text or a list.",
    ),
]
NameOption = Annotated[
    str, typer.Option("--name", help="Name of the model; default: that of the folder.")
]
ModelOption = Annotated[
    str, typer.Option("--model", help="name@alias or name/version; default: the only champion.")
]
ModelArgument = Annotated[
    str, typer.Argument(metavar="[NAME]", help="The model; default: the only one.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
DEBUG = "--debug"
DEFAULT_STATE = Path(".regraft")


def is_debug() -> bool:
    """Return whether the user asked for tracebacks and all logs."""
    return DEBUG in sys.argv
