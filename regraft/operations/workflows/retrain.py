"""The workflow retrain: train again if there is a reason to, and record why or why not."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from regraft.core.config import (
    Config,
    apply_overrides,
    config_from_flat,
    load_config,
)
from regraft.core.errors import AlreadyRunning, RegraftError
from regraft.core.outcomes import AttemptOutcome
from regraft.core.pages.facts import facts_html
from regraft.core.state import RunMarker, State, exclusive_lock, find_fault, fix_places
from regraft.operations.workflows.runner import FinishedRun, PipelineRunner
from regraft.operations.workflows.settings import (
    complete_config,
    config_of_model,
    default_model_name,
)

if TYPE_CHECKING:
    from regraft.operations.advice import RetrainAdvice
    from regraft.operations.journal import Attempt
    from regraft.operations.workflows.train import TrainedModel

# Settings that identify a model and the place of its journal.
_IDENTIFYING = ("tracking.", "retrain.journal_url=")


@dataclass(frozen=True)
class RetrainRequest:
    """What a user asks for.

    photos: folder, manifest or "torchvision:NAME".
    file: a configuration in place of the last one; None keeps the last one.
    overrides: "section.field=value", applied last.
    name: of the model; "" means the configuration's, else that of the photos.
    """

    photos: str
    file: Path | None = None
    overrides: tuple[str, ...] = ()
    name: str = ""


@dataclass(frozen=True)
class Retrained:
    """The result of an attempt. model: what was trained, None if nothing was."""

    attempt: "Attempt"
    model: "TrainedModel | None"

    @property
    def outcome(self) -> AttemptOutcome:
        """How the attempt ended."""
        return self.attempt.outcome

    def __str__(self) -> str:
        return f"{self.attempt.name}: {self.attempt.outcome}; {self.attempt.reason}"

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        ended = self.attempt
        facts = {"model": ended.name, "outcome": ended.outcome, "reason": ended.reason}
        return facts_html(facts) + (self.model._repr_html_() if self.model else "")


def retrain(request: RetrainRequest, state: State, runner: PipelineRunner) -> Retrained:
    """Attempt to retrain; an attempt that fails or is refused is recorded in the journal too.

    Args:
        state: opened and activated.

    Raises:
        AlreadyRunning: another process retrains this model now.
        RegraftError: the settings are refused, or a stage failed.
    """
    try:
        config = retrain_config(request, state)
    except RegraftError as error:
        _record_refusal(error, request, state)
        raise
    return attempt(config, state, runner)


def retrain_config(request: RetrainRequest, state: State) -> Config:
    """Return the complete configuration: that of the last judged attempt, with overrides.

    Without such an attempt, it is the configuration of the model that serves.
    """
    from regraft.operations.journal import last_judged

    # The other overrides may be valid only together with the last configuration.
    overrides = request.overrides if request.file else _identifying(request.overrides)
    config = load_config(request.file, overrides)
    name = request.name or config.tracking.name or default_model_name(request.photos)
    if request.file is None:
        judged = last_judged(fix_places(config, state).journal, name)
        if judged is None:
            last = _registered_config(name, config, state)
        else:
            last = config_from_flat(judged.settings)
        config = apply_overrides(last, request.overrides)
    return complete_config(config, request.photos, name, state)


def plan_retraining(config: Config) -> "RetrainAdvice":
    """Return what the advice would be, and what a training would cost; nothing is recorded."""
    from regraft.data.ingest import ingest
    from regraft.data.split import split
    from regraft.operations.retrain.signals import advise_now

    splits = split(ingest(config.ingest), config.split, should_remember=False)
    return advise_now(splits, config, datetime.now(UTC))


def attempt(config: Config, state: State, runner: PipelineRunner) -> Retrained:
    """Run one attempt from its start to its end.

    Args:
        config: complete, see retrain_config().
        state: opened and activated.

    Raises:
        AlreadyRunning: another process retrains this model now.
    """
    started = datetime.now(UTC)
    with exclusive_lock(state, f"retrain {config.tracking.name}", started) as killed:
        with _recorded_failure(config, state, started):
            _record_killed(killed, config, state)
            unchanged = _unchanged_attempt(config, started)
            if unchanged is None:
                run = runner.run("retrain", config.tracking, config)
                if run.load("conclude").awaits_revision:
                    run = runner.run("retrain", config.tracking, config)
        # An error from here on is no failure of the attempt.
        if unchanged is not None:
            return Retrained(_conclude(unchanged, config, state), None)
        return _result(run, config, state, runner)


def _result(run: FinishedRun, config: Config, state: State, runner: PipelineRunner) -> Retrained:
    """Return the attempt that the run's last step recorded, and the model that it trained."""
    from regraft.operations.retrain.conclude import notify_attempt
    from regraft.operations.retrain.guards import describe_weakened
    from regraft.operations.status import rebuild
    from regraft.operations.workflows.train import request_pending_approval, trained_model

    recorded: Attempt = run.load("conclude")
    notify_attempt(recorded, config.notify)  # the run has no targets: a run's settings are stored
    rebuild(state, datetime.now(UTC))
    if not recorded.was_trained:
        return Retrained(recorded, None)
    weakened = describe_weakened(recorded.weakened, config.flat())
    model = trained_model(run, config, weakened)
    request_pending_approval(model.verdict, config, runner)
    return Retrained(recorded, model)


def _record_refusal(error: RegraftError, request: RetrainRequest, state: State) -> None:
    """Record a failed attempt of a known model; an unknown name is a typing error.

    A schedule's output is rarely read, and its stored settings may be those of an older Regraft.
    """
    from regraft.operations.journal import last_attempt

    config = _identifying_config(request, state)
    if last_attempt(config.retrain.journal_url, config.tracking.name) is None:
        return
    started = datetime.now(UTC)
    work = f"retrain {config.tracking.name}"
    with suppress(AlreadyRunning), exclusive_lock(state, work, started) as killed:
        _record_killed(killed, config, state)
        reason = f"{type(error).__name__}: {error}"
        _conclude(_failed_attempt(config, started, reason), config, state)


def _identifying_config(request: RetrainRequest, state: State) -> Config:
    """Return the part of a refused configuration that identifies the model."""
    overrides = _identifying(request.overrides)
    try:
        config = load_config(request.file, overrides)
    except RegraftError:  # the file is refused
        config = load_config(None, overrides)
    return complete_config(config, request.photos, request.name, state)


def _identifying(overrides: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(override for override in overrides if override.startswith(_IDENTIFYING))


def _registered_config(name: str, config: Config, state: State) -> Config:
    """Return the configuration of the champion, else of the challenger, else the defaults."""
    fixed = fix_places(config, state)
    if not fixed.has_registry:
        return Config()
    from regraft import registry

    tracking = fixed.tracking
    aliases = registry.get_aliases(tracking, name)
    version = aliases.get(registry.CHAMPION, aliases.get(registry.CHALLENGER))
    if version is None:
        return Config()
    card = registry.load_card(tracking, registry.find(tracking, name, str(version)))
    settings = {key: text for key, text in card.config.items() if key != "ingest.photos"}
    return config_of_model(settings, state)


def _record_killed(killed: tuple[RunMarker, ...], config: Config, state: State) -> None:
    """Record attempts whose processes were killed before they could."""
    for marker in killed:
        if not _is_recorded(config, marker):
            from regraft.operations.retrain.interrupted import recover_attempt

            _conclude(recover_attempt(config, marker, datetime.now(UTC)), config, state)


def _is_recorded(config: Config, marker: RunMarker) -> bool:
    """Return whether the killed process had recorded the end of its attempt before."""
    from regraft.operations.journal import last_attempt

    last = last_attempt(config.retrain.journal_url, config.tracking.name)
    return last is not None and last.started >= marker.started


def _unchanged_attempt(config: Config, started: datetime) -> "Attempt | None":
    """Return the attempt if nothing has changed since the last one, else None."""
    from regraft.operations.retrain.conclude import repeat_attempt, take_snapshot
    from regraft.operations.retrain.unchanged import find_unchanged_attempt

    snapshot = take_snapshot(config, started)
    last = find_unchanged_attempt(config, snapshot.fingerprint)
    return repeat_attempt(last, snapshot, config, datetime.now(UTC)) if last else None


def _conclude(ended: "Attempt", config: Config, state: State) -> "Attempt":
    """Record an attempt whose pipeline did not start, or did not end; return it as recorded."""
    from regraft.operations.retrain.conclude import conclude
    from regraft.operations.status import refresh

    recorded = conclude(ended, config)
    refresh(state, datetime.now(UTC))
    return recorded


def _failed_attempt(config: Config, started: datetime, reason: str) -> "Attempt":
    from regraft.operations.retrain.conclude import RunSnapshot, attempt_without_training

    snapshot = RunSnapshot(started.isoformat(), "", "")
    return attempt_without_training(config, snapshot, "failed", reason, datetime.now(UTC))


@contextmanager
def _recorded_failure(config: Config, state: State, started: datetime) -> Iterator[None]:
    """Record whatever error ends the block, and let it pass."""

    def record(
        kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if kind is None:
            return
        fault = find_fault(error) if isinstance(error, Exception) else None
        reason = f"{type(fault or error).__name__}: {fault or error}"
        if isinstance(error, KeyboardInterrupt):
            reason = f"it was interrupted{f' by {error}' if error.args else ''}"
        _conclude(_failed_attempt(config, started, reason), config, state)

    with ExitStack() as stack:
        stack.push(record)
        yield
