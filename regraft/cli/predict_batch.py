"""regraft predict-batch: any number of photos in, a folder of Parquet files out."""

from typing import TYPE_CHECKING, Annotated

import typer

from regraft.cli.options import DEFAULT_STATE, ConfigOption, ModelOption, SetOption, StateOption
from regraft.cli.session import configure_logging, known_state, runner_for
from regraft.core.config import load_config
from regraft.core.text import format_count

if TYPE_CHECKING:
    from regraft.operations.batch import BatchRequest, BatchSummary


def predict_batch(
    photos: Annotated[
        list[str],
        typer.Argument(
            metavar="PHOTOS",
            help='Folders, manifests with a column "image", photos; paths or URLs.',
        ),
    ],
    out: Annotated[
        str, typer.Option(metavar="FOLDER", help="Folder of the predictions; path or URL.")
    ],
    model: ModelOption = "",
    config: ConfigOption = None,
    set_: SetOption = [],  # noqa: B006 - typer copies it
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Label any number of photos, a shard at a time; finished shards are not repeated.

    Exit code 0 if at least one photo could be read, 3 if none could.
    """
    from regraft.core.errors import DataError

    settings = load_config(config, tuple(set_))
    opened = known_state(state)
    configure_logging()
    from regraft.operations.workflows.predict import batch_request
    from regraft.operations.workflows.predict import predict_batch as run_workflow

    request, complete = batch_request(photos, out, model, settings, opened)
    summary = run_workflow(request, complete, runner_for(opened))
    typer.echo(_summary_text(summary, request))
    if summary.n_errors == summary.n_photos:
        typer.echo(f"None of {format_count(summary.n_photos, 'photo')} could be read.", err=True)
        raise typer.Exit(DataError.exit_code)


def _summary_text(summary: "BatchSummary", request: "BatchRequest") -> str:
    lines = [
        f"{format_count(summary.n_photos, 'photo')} labelled by {request.model}, "
        f"{summary.n_errors} of them "
        f"unreadable: {request.out}",
        f"  {summary.n_predicted} of {format_count(summary.n_shards, 'shard')} predicted now, "
        "the others before",
        *(f"  {n:>8}  {label}" for label, n in summary.labels.items()),
    ]
    if summary.n_gone:
        lines.append(
            f"  {format_count(summary.n_gone, 'prediction')} of photos that were deleted or changed"
        )
    if summary.n_unopened:
        lines.append(
            f"  {format_count(summary.n_unopened, 'photo')} could not be opened. To try them "
            "again later, "
            f"delete {', '.join(summary.unopened)}"
        )
    return "\n".join(lines)
