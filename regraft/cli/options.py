"""The options that several commands share."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from regraft.core.config import EmbedConfig
    from regraft.core.state import State

StateOption = Annotated[
    Path, typer.Option("--state", help="Folder of everything that Regraft remembers.")
]
ConfigOption = Annotated[
    Path | None, typer.Option("--config", help="YAML file; says what differs from the defaults.")
]
SetOption = Annotated[
    list[str], typer.Option("--set", help="section.field=value, over the file; repeatable.")
]
ModelOption = Annotated[
    str,
    typer.Option("--model", help="name@alias or name/version; left out: the only champion."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
DEBUG = "--debug"
DEFAULT_STATE = Path(".regraft")


def store_of(config: "EmbedConfig", state: "State") -> "EmbedConfig":
    """Where embeddings are kept: as configured, else in the state folder."""
    url = config.store_url or str(state.embeddings)
    return config.model_copy(update={"store_url": url})


def place_of(text: str) -> str:
    """The place as the user named it, which is written down in many places.

    Raises:
        ConfigError: its name is not UTF-8, or it holds a password.
    """
    from regraft.core.config import refuse_password
    from regraft.core.errors import ConfigError
    from regraft.data.ingest.sources import printable

    shown = printable(text)
    try:
        refuse_password(text)
    except ValueError as error:
        place = f"{shown.partition('://')[0]}://...@{shown.rpartition('@')[2]}"
        raise ConfigError(f"Expected a place without a password: {place} {error}.") from None
    if shown != text:
        raise ConfigError(
            f"Expected a place whose name is UTF-8, got {shown}. Rename it; the names of the "
            "photos in it may be what they are."
        )
    return text


def is_debug() -> bool:
    """Whether the user asked for everything that can be said."""
    return DEBUG in sys.argv
