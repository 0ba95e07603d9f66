"""regraft models: the registered versions; prune deletes old ones."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from regraft.cli.options import DEFAULT_STATE, JsonOption, StateOption
from regraft.cli.session import known_state, readable_state, runner_for
from regraft.core.config import TrackingConfig
from regraft.core.state import places

VersionArgument = Annotated[
    str, typer.Argument(metavar="MODEL", help="NAME/VERSION or NAME@ALIAS.")
]
# An option of `regraft models` itself applies to the command after it too.
OwnStateOption = Annotated[
    Path | None,
    typer.Option("--state", metavar="FOLDER", help="Default: that of `models`, else .regraft."),
]

models_app = typer.Typer(help="List the registered models, or delete old versions.")


@models_app.callback(invoke_without_command=True)
def models(
    context: typer.Context, state: StateOption = DEFAULT_STATE, as_json: JsonOption = False
) -> None:
    """List the registered models: name, version, aliases, test accuracy, when, why."""
    if context.invoked_subcommand:
        return
    located = places(readable_state(_root(context, state)))
    from regraft import registry

    rows = registry.list_versions(located.tracking)
    if as_json:
        typer.echo(json.dumps(rows.to_dict("records"), default=str, indent=1))
    elif rows.empty:
        typer.echo("No model yet. Train one: regraft train PHOTOS")
    else:
        typer.echo(rows.to_string(index=False))


@models_app.command()
def prune(
    context: typer.Context,
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="The model; default: all models.")
    ] = "",
    n_retained: Annotated[
        int, typer.Option("--keep", min=0, metavar="N", help="Number of the newest that stay.")
    ] = 5,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only list what would be deleted.")
    ] = False,
    state: OwnStateOption = None,
) -> None:
    """Delete old versions and files, but no champion, past champion, pending or pinned one."""
    opened = known_state(_root(context, state))
    tracking = places(opened).tracking
    from regraft import registry
    from regraft.operations.workflows.views import update_views
    from regraft.registry.prune import plan_prune
    from regraft.registry.prune import prune as prune_model

    names = [name] if name else sorted(set(registry.list_versions(tracking).name))
    now = datetime.now(UTC)
    planned = [
        version for model in names for version in plan_prune(tracking, model, n_retained, now)
    ]
    for version in planned:
        typer.echo(str(version))
    if dry_run:
        deleted = [version for version in planned if version.should_delete]
    else:
        deleted = [
            version for model in names for version in prune_model(tracking, model, n_retained, now)
        ]
    freed_mb = sum(version.n_bytes for version in deleted) / 1e6
    verb = "would be freed" if dry_run else "freed"
    typer.echo(f"{len(deleted)} of {len(planned)}, {freed_mb:.1f} MB {verb}.")
    if deleted and not dry_run:
        update_views(opened, runner_for(opened))


@models_app.command()
def pin(context: typer.Context, version: VersionArgument, state: OwnStateOption = None) -> None:
    """Protect a version from pruning."""
    tracking = _tracking(context, state)
    from regraft import registry
    from regraft.registry.prune import pin as pin_version

    registered = registry.resolve(tracking, version)
    pin_version(tracking, registered)
    typer.echo(f"{registered.name}/{registered.version} is pinned.")


@models_app.command()
def unpin(context: typer.Context, version: VersionArgument, state: OwnStateOption = None) -> None:
    """Remove the protection of a pinned version."""
    tracking = _tracking(context, state)
    from regraft import registry
    from regraft.registry.prune import unpin as unpin_version

    registered = registry.resolve(tracking, version)
    unpin_version(tracking, registered)
    typer.echo(f"{registered.name}/{registered.version} is not pinned.")


def _tracking(context: typer.Context, state: Path | None) -> TrackingConfig:
    """Return the MLflow store of the state folder; the option nearest to the command counts."""
    return places(known_state(_root(context, state))).tracking


def _root(context: typer.Context, state: Path | None) -> Path:
    above: Path | None = context.parent.params.get("state") if context.parent else None
    return state or above or DEFAULT_STATE
