"""`regraft retrain`: trains again if there is a reason to, and writes down why or why not."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Annotated

import typer

from regraft.cli.mirror import show_on_page
from regraft.cli.options import DEFAULT_STATE, ConfigOption, SetOption, StateOption, is_debug
from regraft.cli.train import ask_if_it_waits, completed, model_name, ready_to_run, remembered, talk
from regraft.core.config import Config, config_of, load_config, with_settings
from regraft.core.errors import NothingToDo, RegraftError

_WHICH = ("tracking.", "retrain.journal_url=")

if TYPE_CHECKING:
    from regraft.core.state import RunMarker, State
    from regraft.operations.journal import Attempt


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
    from regraft.core.state import activate, open_state

    opened = open_state(state, is_debug())
    activate(opened)
    talk()
    settings = tuple(set_)
    if plan:
        typer.echo(_planned(as_before(photos, config, settings, name, opened)))
        return
    try:
        complete = as_before(photos, config, settings, name, opened)
    except RegraftError as error:
        _note_refusal(error, _which(photos, config, settings, name, opened), opened)
        raise
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
    from regraft.operations.journal import last_settings

    # The rest of --set may make sense only beside what is remembered.
    wanted = load_config(file, settings if file else _about_which(settings))
    called = name or wanted.tracking.name or model_name(photos)
    if file is None:
        journal = wanted.retrain.journal_url or str(state.journal)
        last = last_settings(journal, called)
        then = _of_model(called, wanted, state) if last is None else config_of(last)
        wanted = with_settings(then, settings)
    return completed(wanted, photos, called, state)


def _which(
    photos: str, file: Path | None, settings: tuple[str, ...], name: str, state: "State"
) -> Config:
    """As much of a configuration that was refused as says which model was meant."""
    try:
        wanted = load_config(file, _about_which(settings))
    except RegraftError:  # the file is what was refused
        wanted = load_config(None, _about_which(settings))
    return completed(wanted, photos, name, state)


def _note_refusal(error: RegraftError, which: Config, state: "State") -> None:
    """A failed attempt of a model that is known; else it is somebody's mistyped name.

    Nobody reads what a schedule says: the settings that it remembers may be of an older Regraft.
    """
    from regraft.core.errors import AlreadyRuns
    from regraft.core.state import alone
    from regraft.operations.journal import last_attempt

    if last_attempt(which.retrain.journal_url, which.tracking.name) is None:
        return
    began = datetime.now(UTC)
    with suppress(AlreadyRuns), alone(state, f"retrain {which.tracking.name}", began) as killed:
        _note_killed(killed, which, state)
        _conclude(_failed(which, began, f"{type(error).__name__}: {error}"), which, state)


def _about_which(settings: tuple[str, ...]) -> tuple[str, ...]:
    """Those that say which model is meant, and where its past is."""
    return tuple(setting for setting in settings if setting.startswith(_WHICH))


def _of_model(name: str, wanted: Config, state: "State") -> Config:
    """The configuration of the model that serves, of the newest if none does, else the defaults."""
    uri = wanted.tracking.uri or state.tracking_uri
    if uri == state.tracking_uri and not state.mlflow_database.exists():
        return Config()
    from regraft import registry
    from regraft.core.config import TrackingConfig

    tracking = TrackingConfig(uri=uri)
    held = registry.aliases(tracking, name)
    last = held.get(registry.CHAMPION, held.get(registry.CHALLENGER))
    if last is None:
        return Config()
    card = registry.load_card(tracking, registry.find(tracking, name, str(last)))
    made_under = {key: text for key, text in card.config.items() if key != "ingest.photos"}
    return remembered(made_under, state)


def attempt(config: Config, state: "State") -> "Attempt":
    """One attempt, from its beginning to its end.

    Args:
        config: complete, see completed().
        state: opened and activated.

    Raises:
        AlreadyRuns: somebody retrains this model now.
    """
    from regraft.core.state import alone

    began = datetime.now(UTC)
    with alone(state, f"retrain {config.tracking.name}", began) as killed:
        with _told_if_it_fails(config, state, began):
            _note_killed(killed, config, state)
            unchanged = _unchanged(config, began)
            run_name = "" if unchanged else _run(config, state)
        # What goes wrong from here on is no failure of the attempt.
        return _conclude(unchanged, config, state) if unchanged else _shown(run_name, config, state)


def _note_killed(killed: "tuple[RunMarker, ...]", config: Config, state: "State") -> None:
    """Writes down what became of attempts whose processes were killed before they could."""
    for marker in killed:
        if not _had_ended(config, marker):
            from regraft.operations.retrain.cut_off import cut_off

            _conclude(cut_off(config, marker, datetime.now(UTC)), config, state)


def _unchanged(config: Config, began: datetime) -> "Attempt | None":
    """The attempt, if nothing has changed since the last one; else None."""
    from regraft.operations.retrain.conclude import again, begin
    from regraft.operations.retrain.unchanged import unchanged_since

    beginning = begin(config, began)
    last = unchanged_since(config, beginning.fingerprint)
    return again(last, beginning, config, datetime.now(UTC)) if last else None


def _run(config: Config, state: "State") -> str:
    """The name of the pipeline run, after its last step wrote the attempt down."""
    with ready_to_run(config, state) as run_name:
        from pipelines.retrain import retrain as pipeline

        pipeline.with_options(run_name=run_name)(config)
        return run_name


def _shown(run_name: str, config: Config, state: "State") -> "Attempt":
    """The attempt that the run came to, after it was shown."""
    from zenml.client import Client

    from regraft.cli.summary import summarise

    run = Client().get_pipeline_run(run_name)
    ended: Attempt = run.steps["conclude"].output.load()
    show_on_page(state)
    if ended.advice:
        typer.echo(f"\n{ended.advice.told()}")
    if ended.was_trained:
        typer.echo(summarise(run, config, state))
        ask_if_it_waits(run, config, state)
    return ended


def _had_ended(config: Config, marker: "RunMarker") -> bool:
    """Whether the killed process had written down its end before."""
    from regraft.operations.journal import last_attempt

    last = last_attempt(config.retrain.journal_url, config.tracking.name)
    return last is not None and last.began >= marker.started


def _conclude(ended: "Attempt", config: Config, state: "State") -> "Attempt":
    """Ends an attempt that did not come to a pipeline, or not to its end; as it is written."""
    from regraft.operations.retrain.conclude import conclude
    from regraft.operations.status import refresh

    written = conclude(ended, config)
    refresh(state, datetime.now(UTC), config.retrain.journal_url)
    return written


def _failed(config: Config, began: datetime, reason: str) -> "Attempt":
    from regraft.operations.retrain.conclude import Beginning, untrained

    seen = Beginning(began.isoformat(), "", "")
    return untrained(config, seen, "failed", reason, datetime.now(UTC))


@contextmanager
def _told_if_it_fails(config: Config, state: "State", began: datetime) -> Iterator[None]:
    """Writes down what ends the block early, whatever it is, and lets it pass."""

    def tell_of(
        kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if kind is None:
            return
        is_stopped = issubclass(kind, KeyboardInterrupt)
        reason = "it was interrupted" if is_stopped else f"{kind.__name__}: {error}"
        _conclude(_failed(config, began, reason), config, state)

    with ExitStack() as stack:
        stack.push(tell_of)
        yield


def _planned(config: Config) -> str:
    """What the advice would be, and what a training would cost; nothing is written down."""
    from regraft.data.ingest import ingest
    from regraft.data.split import split
    from regraft.operations.retrain.circumstances import advice_about

    table = ingest(config.ingest)
    splits = split(table, config.split, remembers=False)
    advice = advice_about(splits, config, datetime.now(UTC))
    return f"\n{advice.told()}\n  (a plan: nothing was done)"
