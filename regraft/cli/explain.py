"""`regraft explain` and `regraft what-if`: why a model serves or not, and under another rule."""

import json
from typing import Annotated

import typer

from regraft.cli.options import (
    DEFAULT_STATE,
    ConfigOption,
    JsonOption,
    SetOption,
    StateOption,
    is_debug,
)
from regraft.core.config import load_config, with_settings
from regraft.core.errors import ConfigError


def explain(
    model: Annotated[
        str, typer.Argument(help="NAME, NAME@ALIAS or NAME/VERSION; left out: the challenger.")
    ] = "",
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Says why a version was promoted or not, every guard with its number, and what came of it."""
    from regraft.core.state import activate, existing_state

    opened = existing_state(state, is_debug())
    activate(opened)
    from regraft.core.config import TrackingConfig
    from regraft.promotion import explain as core_explain
    from regraft.registry import CHALLENGER, resolve

    tracking = TrackingConfig(uri=opened.tracking_uri)
    typer.echo(core_explain(tracking, resolve(tracking, model, CHALLENGER)))


def what_if(
    name: Annotated[str, typer.Argument(help="Of the model; left out: the only one.")] = "",
    config: ConfigOption = None,
    set_: SetOption = [],  # noqa: B006 - typer copies it
    as_json: JsonOption = False,
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Judges every past version by another rule, from what it answered then; nothing changes."""
    if not (config or set_):
        raise ConfigError("Expected another rule, got none. Try --set promote.min_gain=0.01.")
    settings = tuple(set_)
    file = load_config(config, settings) if config else None
    load_config(None, settings)  # a bad setting is said before anything is read
    from regraft.core.state import activate, existing_state

    opened = existing_state(state, is_debug())
    activate(opened)
    from regraft.core.config import TrackingConfig
    from regraft.promotion import what_if as core_what_if
    from regraft.registry import CHALLENGER, resolve

    tracking = TrackingConfig(uri=opened.tracking_uri)
    name = name or resolve(tracking, "", CHALLENGER).name
    rows = core_what_if(tracking, name, lambda then: file or with_settings(then, settings))
    if as_json:
        typer.echo(json.dumps(rows.to_dict("records"), default=str, indent=1))
    elif rows.empty:
        typer.echo(f"No version of {name} was judged yet.")
    else:
        typer.echo(rows.to_string(index=False))
