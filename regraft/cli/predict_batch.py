"""regraft predict-batch: any number of photos in, a folder of Parquet files out."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from regraft.cli.options import (
    DEFAULT_STATE,
    ConfigOption,
    ModelOption,
    SetOption,
    StateOption,
    is_debug,
    place_of,
)
from regraft.cli.predict import NO_EVICTION_GB, check_rule
from regraft.cli.train import ready_to_run, talk
from regraft.core.config import Config, load_config, override_all

if TYPE_CHECKING:
    from regraft.core.config import PredictConfig
    from regraft.core.state import State
    from regraft.operations.batch import BatchRequest, BatchSummary

_INTERRUPTED = 130


def predict_batch(
    photos: Annotated[
        list[str],
        typer.Argument(help='Folders, manifests with a column "image", photos; paths or URLs.'),
    ],
    out: Annotated[str, typer.Option(help="Folder of the answers; path or URL.")],
    model: ModelOption = "",
    config: ConfigOption = None,
    set_: SetOption = [],  # noqa: B006 - typer copies it
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Labels any number of photos, a shard at a time; what is labelled already stays as it is.

    Ends with 0 if at least one photo could be read, with 3 if not one could.
    """
    from regraft.core.errors import DataError
    from regraft.core.state import activate, existing_state

    places, folder = [place_of(place) for place in photos], place_of(out)
    settings = load_config(config, tuple(set_))
    check_rule(settings.predict)
    opened = existing_state(state, is_debug())
    activate(opened)
    talk()
    from regraft import registry
    from regraft.core.files import absolute
    from regraft.operations.batch import BatchRequest

    store = settings.embed.model_copy(update={"max_gb": NO_EVICTION_GB})
    settings = settings.model_copy(update={"embed": store})
    wanted = override_all(settings, {"tracking.uri": opened.tracking_uri})
    version = registry.resolve(wanted.tracking, model)
    request = BatchRequest(
        photos=tuple(absolute(place) for place in places),
        out=absolute(folder),
        model=f"{version.name}/{version.version}",
        abstain_below=_threshold(settings.predict),
    )
    summary = _run(request, override_all(wanted, {"tracking.name": version.name}), opened)
    typer.echo(_told(summary, request))
    if summary.n_errors == summary.n_photos:
        typer.echo(f"None of the {summary.n_photos} photos could be read.", err=True)
        raise typer.Exit(DataError.exit_code)


def _threshold(rule: "PredictConfig") -> float | Literal["card"]:
    """As the model's card says, unless abstain_below is set."""
    return rule.abstain_below if "abstain_below" in rule.model_fields_set else "card"


def _run(request: "BatchRequest", config: Config, state: "State") -> "BatchSummary":
    # ZenML would start ten threads, however many shards may be answered at a time.
    os.environ["ZENML_DYNAMIC_PIPELINE_WORKER_COUNT"] = str(config.batch.n_parallel)
    with ready_to_run(config, state) as run_name, _stopped_by_two():
        from zenml.exceptions import StepExecutionException

        from pipelines.predict import failure
        from pipelines.predict import predict as pipeline

        try:
            run = pipeline.with_options(run_name=run_name)(request, config)
        except StepExecutionException as error:  # of a thread; it may be another's that was put off
            raise failure(run_name) or error from None
    summary: BatchSummary = run.steps["predict_summary"].output.load()
    return summary


@contextmanager
def _stopped_by_two() -> Iterator[None]:
    """The first Ctrl-C lets the shards that are under way end, the second ends the process."""

    def first(*_: object) -> None:
        signal.signal(signal.SIGINT, second)
        typer.echo("Ends with the shards under way; Ctrl-C again ends at once.", err=True)
        raise KeyboardInterrupt

    def second(*_: object) -> None:
        os._exit(_INTERRUPTED)  # its run is swept by the next command, as after a SIGKILL

    before = signal.signal(signal.SIGINT, first)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _told(summary: "BatchSummary", request: "BatchRequest") -> str:
    lines = [
        f"{summary.n_photos} photos labelled by {request.model}, {summary.n_errors} of them "
        f"unreadable: {request.out}",
        f"  {summary.n_answered} of {summary.n_shards} shards answered now, the others before",
        *(f"  {n:>8}  {label}" for label, n in summary.labels.items()),
    ]
    if summary.n_gone:
        lines.append(f"  {summary.n_gone} answers about photos that have gone or changed")
    if summary.n_unopened:
        lines.append(
            f"  {summary.n_unopened} photos could not be opened. To have them tried again once "
            f"they can, delete {', '.join(summary.unopened)}"
        )
    return "\n".join(lines)
