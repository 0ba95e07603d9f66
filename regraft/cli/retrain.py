"""regraft retrain: train again if there is a reason to, and record why or why not."""

from typing import Annotated

import typer

from regraft.cli.options import DEFAULT_STATE, ConfigOption, NameOption, SetOption, StateOption
from regraft.cli.session import configure_logging, new_state, runner_for
from regraft.core.errors import NothingToDo


def retrain(
    photos: Annotated[str, typer.Argument(metavar="PHOTOS", help="As for `regraft train`.")],
    config: ConfigOption = None,
    set_: SetOption = [],  # noqa: B006 - typer copies it
    name: NameOption = "",
    plan: Annotated[
        bool, typer.Option("--plan", help="Print what would be done; change nothing.")
    ] = False,
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Train again if the photos, their labels, drift or the champion's age give a reason to.

    Without --config, the settings of the last retraining apply. Exit code 0 if a model was trained
    and judged, whatever the verdict; 8 if there was no reason to train, or it was postponed.
    """
    opened = new_state(state)
    configure_logging()
    from regraft.operations.workflows.retrain import (
        RetrainRequest,
        plan_retraining,
        retrain_config,
    )
    from regraft.operations.workflows.retrain import retrain as run_workflow

    request = RetrainRequest(photos, config, tuple(set_), name)
    if plan:
        advice = plan_retraining(retrain_config(request, opened))
        typer.echo(f"\n{advice.format_text()}\n  (a plan: nothing was changed)")
        return
    result = run_workflow(request, opened, runner_for(opened))
    if result.attempt.advice:
        typer.echo(f"\n{result.attempt.advice.format_text()}")
    if result.model is None:
        raise NothingToDo(f"{result.attempt.outcome}: {result.attempt.reason}.")
    from regraft.cli.summary import summarize

    typer.echo(summarize(result.model, opened.root))
