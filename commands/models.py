"""regraft models: what is registered, what serves, and why."""

import json

import typer

from commands.options import DEFAULT_STATE, JsonOption, StateOption, is_debug


def models(state: StateOption = DEFAULT_STATE, as_json: JsonOption = False) -> None:
    """Lists the registered models: name, version, aliases, test accuracy, when, why."""
    from regraft.state import activate, existing_state

    opened = existing_state(state, is_debug())
    activate(opened)
    from regraft import registry
    from regraft.config import TrackingConfig

    rows = registry.list_versions(TrackingConfig(uri=opened.tracking_uri))
    if as_json:
        typer.echo(json.dumps(rows.to_dict("records"), default=str, indent=1))
    elif rows.empty:
        typer.echo("No model yet. Train one: regraft train PHOTOS")
    else:
        typer.echo(rows.to_string(index=False))
