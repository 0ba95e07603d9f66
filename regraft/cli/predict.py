"""regraft predict: labels for photos."""

from typing import Annotated

import typer

from regraft.cli.options import DEFAULT_STATE, ConfigOption, ModelOption, SetOption, StateOption
from regraft.cli.session import known_state
from regraft.core.config import load_config


def predict(
    photos: Annotated[list[str], typer.Argument(help="Photos, folders of photos, or URLs.")],
    model: ModelOption = "",
    out: Annotated[
        str, typer.Option(help="Output file: .parquet, .csv or .json; default: the screen.")
    ] = "",
    config: ConfigOption = None,
    set_: SetOption = [],  # noqa: B006 - typer copies it
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Label photos with the champion; an unreadable photo gets the reason instead.

    Exit code 0 if at least one photo could be read, 3 if none could.
    """
    from regraft.core.errors import DataError
    from regraft.operations.workflows.settings import refuse_target_risk

    settings = load_config(config, tuple(set_))
    refuse_target_risk(settings)
    from regraft.evaluation.predict import check_format, write_predictions

    if out:
        check_format(out)  # before the photos are labelled, not after
    opened = known_state(state)
    from regraft.operations.workflows.predict import predict as run_workflow

    version, table = run_workflow(photos, model, settings, opened)
    if out:
        write_predictions(table, out)
        n_read = int((table.error == "").sum())
        label = f"{version.name}/{version.version}"
        typer.echo(f"{n_read} of {len(table)} photos labelled by {label}: {out}")
    else:
        shown = table.loc[:, ["path", "label", "confidence", "error"]]
        typer.echo(shown.to_string(index=False, float_format="%.3f"))
    if (table.error != "").all():
        typer.echo(f"None of the {len(table)} photos could be read.", err=True)
        raise typer.Exit(DataError.exit_code)
