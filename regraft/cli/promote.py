"""regraft promote: a registered version, judged again on the current photos."""

from typing import Annotated

import typer

from regraft.cli.options import DEFAULT_STATE, ConfigOption, SetOption, StateOption
from regraft.cli.session import configure_logging, known_state, runner_for
from regraft.core.state import places


def promote(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="NAME, NAME@ALIAS or NAME/VERSION; default: the challenger."
        ),
    ] = "",
    photos: Annotated[
        str, typer.Option(metavar="PHOTOS", help="Default: those it was trained on.")
    ] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Judge, and change nothing.")] = False,
    config: ConfigOption = None,
    set_: SetOption = [],  # noqa: B006 - typer copies it
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Judge a version against the champion on the current photos; promote it if it is better."""
    opened = known_state(state)
    configure_logging()
    from regraft.operations.workflows.promote import dry_run_promotion, promotion_config
    from regraft.operations.workflows.promote import promote as run_workflow
    from regraft.registry import CHALLENGER, resolve

    version = resolve(places(opened).tracking, model, CHALLENGER)
    complete = promotion_config(version, photos, config, tuple(set_), opened)
    if dry_run:
        verdict = dry_run_promotion(version, complete)
    else:
        verdict = run_workflow(version, complete, opened, runner_for(opened))
    text = verdict.format_text(f"{version.name}/{version.version}")
    note = "\n  (a dry run: nothing was changed)" if dry_run else ""
    typer.echo(f"\n{text}{note}")
