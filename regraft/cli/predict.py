"""regraft predict: labels for photos."""

from typing import TYPE_CHECKING, Annotated

import typer

from regraft.cli.options import DEFAULT_STATE, ConfigOption, ModelOption, SetOption, StateOption
from regraft.cli.session import known_state
from regraft.core.config import load_config
from regraft.core.text import format_count

if TYPE_CHECKING:
    import pandas as pd


def predict(
    photos: Annotated[
        list[str], typer.Argument(metavar="PHOTOS", help="Photos, folders of photos, or URLs.")
    ],
    model: ModelOption = "",
    out: Annotated[
        str,
        typer.Option(
            metavar="FILE", help="Output file: .parquet, .csv or .json; default: the screen."
        ),
    ] = "",
    config: ConfigOption = None,
    set_: SetOption = [],  # noqa: B006 - typer copies it
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Label photos with the champion; an unreadable photo gets the reason instead.

    Exit code 0 if at least one photo could be read, 3 if none could.
    """
    from regraft.core.errors import DataError

    settings = load_config(config, tuple(set_))
    from regraft.evaluation.predict import check_format, write_predictions

    if out:
        check_format(out)  # before the photos are labelled, not after
    opened = known_state(state)
    from regraft.operations.workflows.predict import predict as run_workflow

    version, table = run_workflow(photos, model, settings, opened)
    if out:
        write_predictions(table, out)
    else:
        _print_predictions(table)
    n_read = int((table.error == "").sum())
    labelled = f"{n_read} of {format_count(len(table), 'photo')} labelled by"
    typer.echo(f"{labelled} {version.name}/{version.version}: {out or _counts_text(table)}")
    if (table.error != "").all():
        typer.echo(f"None of {format_count(len(table), 'photo')} could be read.", err=True)
        raise typer.Exit(DataError.exit_code)


def _print_predictions(table: "pd.DataFrame") -> None:
    from regraft.cli.table import fit_paths, print_table

    columns = ["path", "label", "confidence"]
    rows = [
        [row.label, f"{row.confidence:.3f}" if not row.error else "", row.error]
        for row in table.itertuples()
    ]
    if (table.error == "").all():
        rows = [row[:2] for row in rows]
    else:
        columns.append("error")
    cells = zip(columns[1:], *rows, strict=True)
    n_others = sum(max(map(len, column)) + 2 for column in cells)  # columns are two spaces apart
    paths = fit_paths(list(table.path), n_others)
    print_table(columns, [[path, *row] for path, row in zip(paths, rows, strict=True)])


def _counts_text(table: "pd.DataFrame") -> str:
    """Return how many photos have each label, the most frequent first."""
    counts = table.label[table.error == ""].value_counts()
    return ", ".join(f"{n} {label}" for label, n in counts.items()) or "none"
