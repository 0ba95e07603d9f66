"""Options and arguments that several commands share."""

import sys
from pathlib import Path
from typing import Annotated

import typer

StateOption = Annotated[
    Path,
    typer.Option(
        "--state", metavar="FOLDER", help="State folder: models, caches, journal, reports."
    ),
]
ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="YAML file: settings other than the defaults."),
]
SetOption = Annotated[
    list[str],
    typer.Option(
        "--set",
        metavar="SECTION.FIELD=VALUE",
        help="A setting, over those of --config; repeatable. No value clears a text or a list.",
    ),
]
# The option is --model in every command; where a model is what a command is about, it is the
# argument instead.
NameOption = Annotated[
    str,
    typer.Option("--model", metavar="NAME", help="Name of the model; default: that of the folder."),
]
ModelOption = Annotated[
    str,
    typer.Option(
        "--model",
        metavar="MODEL",
        help="NAME, NAME@ALIAS or NAME/VERSION; default: the only champion.",
    ),
]
ModelArgument = Annotated[
    str, typer.Argument(metavar="NAME", help="The model; default: the only one.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
DEBUG = "--debug"
DEFAULT_STATE = Path(".regraft")


def is_debug() -> bool:
    """Return whether the user asked for tracebacks and all logs."""
    return DEBUG in sys.argv
