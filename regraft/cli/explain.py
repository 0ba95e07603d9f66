"""regraft explain, regraft what-if: the reasons of a verdict, and verdicts under another rule."""

import json
from typing import Annotated

import typer

from regraft.cli.options import (
    DEFAULT_STATE,
    ConfigOption,
    JsonOption,
    ModelArgument,
    SetOption,
    StateOption,
)
from regraft.cli.session import readable_state
from regraft.core.config import apply_overrides, load_config
from regraft.core.errors import ConfigError
from regraft.core.state import places


def explain(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="NAME, NAME@ALIAS or NAME/VERSION; default: the challenger."
        ),
    ] = "",
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Print why a version was promoted or not: every guard with its number, and the outcome."""
    tracking = places(readable_state(state)).tracking
    from regraft.promotion import explain as explain_version
    from regraft.registry import CHALLENGER, resolve

    typer.echo(explain_version(tracking, resolve(tracking, model, CHALLENGER)))


def what_if(
    name: ModelArgument = "",
    config: ConfigOption = None,
    set_: SetOption = [],  # noqa: B006 - typer copies it
    as_json: JsonOption = False,
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Judge every past version by another rule, from its stored predictions; nothing changes."""
    if not (config or set_):
        raise ConfigError("Expected another rule, got none. Try --set promote.min_gain=0.01.")
    overrides = tuple(set_)
    file = load_config(config, overrides) if config else None
    load_config(None, overrides)  # a wrong setting is reported before anything is read
    tracking = places(readable_state(state)).tracking
    from regraft.promotion import what_if as judge_by_rule
    from regraft.registry import CHALLENGER, resolve

    name = name or resolve(tracking, "", CHALLENGER).name
    rows = judge_by_rule(tracking, name, lambda last: file or apply_overrides(last, overrides))
    if as_json:
        typer.echo(json.dumps(rows.to_dict("records"), default=str, indent=1))
    elif rows.empty:
        typer.echo(f"No version of {name} was judged yet.")
    else:
        typer.echo(rows.to_string(index=False))
