"""regraft models: what is registered, what serves, and why; and which old versions may go."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from regraft.cli.mirror import show
from regraft.cli.options import DEFAULT_STATE, JsonOption, StateOption, is_debug

if TYPE_CHECKING:
    from regraft.core.config import TrackingConfig

VersionArgument = Annotated[str, typer.Argument(metavar="NAME/V", help="Or NAME@ALIAS.")]
# Given to `regraft models` itself, the option counts for the command after it too.
OwnStateOption = Annotated[
    Path | None, typer.Option("--state", help="Folder of everything that Regraft remembers.")
]

models_app = typer.Typer(help="List the registered models, or let old versions go.")


@models_app.callback(invoke_without_command=True)
def models(
    context: typer.Context, state: StateOption = DEFAULT_STATE, as_json: JsonOption = False
) -> None:
    """Lists the registered models: name, version, aliases, test accuracy, when, why."""
    if context.invoked_subcommand:
        return
    tracking = _tracking(context, state)
    from regraft import registry

    rows = registry.list_versions(tracking)
    if as_json:
        typer.echo(json.dumps(rows.to_dict("records"), default=str, indent=1))
    elif rows.empty:
        typer.echo("No model yet. Train one: regraft train PHOTOS")
    else:
        typer.echo(rows.to_string(index=False))


@models_app.command()
def prune(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Of the model; left out: all models.")] = "",
    keep: Annotated[int, typer.Option(min=0, help="How many of the newest stay.")] = 5,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    state: OwnStateOption = None,
) -> None:
    """Removes old versions and their files; what serves, ever served, waits or is pinned stays."""
    tracking = _tracking(context, state)
    from regraft import registry
    from regraft.registry.prune import prunable
    from regraft.registry.prune import prune as core_prune

    names = [name] if name else sorted(set(registry.list_versions(tracking).name))
    now = datetime.now(UTC)
    planned = [one for each in names for one in prunable(tracking, each, keep, now)]
    for one in planned:
        typer.echo(str(one))
    going = [one for one in planned if one.goes]
    if not dry_run:
        going = [one for each in names for one in core_prune(tracking, each, keep, now)]
    freed = sum(one.n_bytes for one in going) / 1e6
    said = "would be freed" if dry_run else "freed"
    typer.echo(f"{len(going)} of {len(planned)}, {freed:.1f} MB {said}.")
    if going and not dry_run:
        show(_root(context, state))


@models_app.command()
def pin(context: typer.Context, version: VersionArgument, state: OwnStateOption = None) -> None:
    """Keeps a version, whatever is pruned."""
    tracking = _tracking(context, state)
    from regraft import registry
    from regraft.registry import prune as room

    found = registry.resolve(tracking, version)
    room.pin(tracking, found)
    typer.echo(f"{found.name}/{found.version} is pinned.")


@models_app.command()
def unpin(context: typer.Context, version: VersionArgument, state: OwnStateOption = None) -> None:
    """Lets a pinned version go when its time comes."""
    tracking = _tracking(context, state)
    from regraft import registry
    from regraft.registry import prune as room

    found = registry.resolve(tracking, version)
    room.unpin(tracking, found)
    typer.echo(f"{found.name}/{found.version} is not pinned.")


def _tracking(context: typer.Context, state: Path | None) -> "TrackingConfig":
    """The MLflow store of the state folder that was named last, nearest to the command."""
    from regraft.core.config import TrackingConfig
    from regraft.core.state import activate, existing_state

    opened = existing_state(_root(context, state), is_debug())
    activate(opened)
    return TrackingConfig(uri=opened.tracking_uri)


def _root(context: typer.Context, state: Path | None) -> Path:
    above: Path | None = context.parent.params.get("state") if context.parent else None
    return state or above or DEFAULT_STATE
