"""`regraft retrain`: trains again if there is a reason to, and writes down why or why not."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Annotated

import typer

from commands.mirror import show_on_page
from commands.options import DEFAULT_STATE, ConfigOption, SetOption, StateOption, is_debug
from commands.train import ask_if_it_waits, completed, model_name, ready_to_run, remembered, talk
from regraft.config import Config, config_of, load_config, with_settings
from regraft.errors import NothingToDo

if TYPE_CHECKING:
    from regraft.journal import Attempt
    from regraft.state import RunMarker, State


def retrain(
    photos: Annotated[str, typer.Argument(help="As for `regraft train`.")],
    config: ConfigOption = None,
    set_: SetOption = [],  # noqa: B006 - typer copies it
    name: Annotated[str, typer.Option(help="Of the model; left out: the folder's.")] = "",
    plan: Annotated[bool, typer.Option("--plan", help="Say what would be done; do nothing.")] = (
        False
    ),
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Trains again if the photos, their labels, drift or the champion's age give a reason to.

    Without --config, everything is as it was the last time. Ends with 0 if a model was trained and
    judged, whatever the verdict, and with 8 if there was no reason to, or it was put off.
    """
    from regraft.state import activate, open_state

    opened = open_state(state, is_debug())
    activate(opened)
    talk()
    complete = as_before(photos, config, tuple(set_), name, opened)
    if plan:
        typer.echo(_planned(complete))
        return
    ended = attempt(complete, opened)
    if not ended.was_trained:
        raise NothingToDo(f"{ended.outcome}: {ended.reason}.")


def as_before(
    photos: str, file: Path | None, settings: tuple[str, ...], name: str, state: "State"
) -> Config:
    """The configuration of the last retraining of the model, changed by --set; complete.

    Args:
        file: is obeyed instead of it, if one is named.
        name: of the model, "" if nobody said.
    """
    from regraft.journal import last_attempt

    wanted = load_config(file, settings)
    called = name or wanted.tracking.name or model_name(photos)
    if file is None:
        last = last_attempt(str(state.journal), called)
        then = config_of(last.settings) if last else _of_model(called, state)
        wanted = with_settings(then, settings)
    return completed(wanted, photos, called, state)


def _of_model(name: str, state: "State") -> Config:
    """The configuration of the newest version, of the defaults if there is none."""
    if not state.mlflow_database.exists():
        return Config()
    from regraft import registry
    from regraft.config import TrackingConfig

    tracking = TrackingConfig(uri=state.tracking_uri)
    held = registry.aliases(tracking, name)
    last = held.get(registry.CHALLENGER, held.get(registry.CHAMPION))
    if last is None:
        return Config()
    card = registry.load_card(tracking, registry.find(tracking, name, str(last)))
    return remembered(card.config, state)


def attempt(config: Config, state: "State") -> "Attempt":
    """One attempt, from its beginning to its end.

    Args:
        config: complete, see completed().
        state: opened and activated.

    Raises:
        AlreadyRuns: somebody retrains this model now.
    """
    from regraft.retrain.conclude import again, begin
    from regraft.retrain.unchanged import unchanged_since
    from regraft.state import alone

    began = datetime.now(UTC)
    with alone(state, f"retrain {config.tracking.name}", began) as killed:
        if killed:
            _conclude(_cut_off(config, killed), config, state)
        with _told_if_it_fails(config, state, began):
            beginning = begin(config, began)
            last = unchanged_since(config, beginning.fingerprint)
            if last is None:
                return _run(config, state)
            found = again(last, beginning, config, datetime.now(UTC))
            _conclude(found, config, state)
            return found


def _run(config: Config, state: "State") -> "Attempt":
    with ready_to_run(config, state) as run_name:
        from zenml.client import Client

        from commands.summary import summarise
        from pipelines.retrain import retrain as pipeline

        pipeline.with_options(run_name=run_name)(config)
        run = Client().get_pipeline_run(run_name)
    ended: Attempt = run.steps["conclude"].output.load()
    if ended.advice:
        typer.echo(f"\n{ended.advice.told()}")
    if ended.was_trained:
        typer.echo(summarise(run, config, state))
        ask_if_it_waits(run, config, state)
    show_on_page(state)
    return ended


def _conclude(ended: "Attempt", config: Config, state: "State") -> None:
    """Ends an attempt that did not come to a pipeline, or not to its end."""
    from regraft.retrain.conclude import conclude
    from regraft.status import refresh

    conclude(ended, config)
    refresh(state, datetime.now(UTC), config.retrain.journal_url)


def _cut_off(config: Config, marker: "RunMarker") -> "Attempt":
    from regraft.retrain.conclude import Beginning, untrained

    reason = f"process {marker.pid} on {marker.host} was killed before it came to an end"
    began = Beginning(marker.started, "", "")
    return untrained(config, began, "killed", reason, datetime.now(UTC))


@contextmanager
def _told_if_it_fails(config: Config, state: "State", began: datetime) -> Iterator[None]:
    """Writes down what ends the block early, whatever it is, and lets it pass."""

    def tell_of(
        kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if kind is None:
            return
        from regraft.retrain.conclude import Beginning, untrained

        is_stopped = issubclass(kind, KeyboardInterrupt)
        reason = "it was interrupted" if is_stopped else f"{kind.__name__}: {error}"
        seen = Beginning(began.isoformat(), "", "")
        _conclude(untrained(config, seen, "failed", reason, datetime.now(UTC)), config, state)

    with ExitStack() as stack:
        stack.push(tell_of)
        yield


def _planned(config: Config) -> str:
    """What the advice would be, and what a training would cost; nothing is written down."""
    from regraft.ingest import ingest
    from regraft.retrain.circumstances import advice_about
    from regraft.split import split

    table = ingest(config.ingest)
    splits = split(table, config.split, remembers=False)
    advice = advice_about(splits, config, datetime.now(UTC))
    return f"\n{advice.told()}\n  (a plan: nothing was done)"
