"""The end of an attempt: its record in the journal, and the notifications about it."""

import logging
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from regraft.core.config import Config, NotifyConfig
from regraft.core.files import is_url
from regraft.core.outcomes import AttemptOutcome, TrainedOutcome, VerdictStatus
from regraft.core.state import current_user
from regraft.data.ingest import fingerprint
from regraft.operations import journal
from regraft.operations.advice import RetrainAdvice
from regraft.operations.journal import Attempt
from regraft.operations.notify import Message, attempt_message, send
from regraft.operations.retrain.guards import describe_weakened, find_weakened
from regraft.operations.retrain.unchanged import read_aliases, run_fingerprint

if TYPE_CHECKING:
    from regraft.evaluation.evaluate import EvaluationReport
    from regraft.promotion import Verdict
    from regraft.registry.interpolate import Interpolation

logger = logging.getLogger("regraft.begin")

_PER_CALL = ("ingest.photos", "tracking.name")  # settings that each call gives anew


@dataclass(frozen=True)
class RunSnapshot:
    """The inputs of an attempt at its start.

    started: ISO 8601, UTC. fingerprint: see run_fingerprint(). photos: fingerprint of the photos.
    weakened: see find_weakened().
    """

    started: str
    fingerprint: str
    photos: str
    weakened: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Trained:
    """The result of a training and its verdict; the fields are those of an Attempt.

    was_serving: whether the version served before the verdict. (No field of an Attempt.)
    """

    outcome: TrainedOutcome
    reason: str
    version: int
    verdict: str
    champion: int | None
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    n_test: int
    started_from: str
    interpolation: str
    flips: int
    flips_saved: int
    was_serving: bool = False

    def __str__(self) -> str:
        return f"sum_up: version {self.version} {self.outcome}, started {self.started_from}"


@dataclass(frozen=True)
class RunOutcome:
    """The result of a pipeline run of an attempt.

    n_photos: in all splits. n_waiting: photos in the inbox without a label. run: ZenML run name.
    trained: None without a training.
    """

    snapshot: RunSnapshot
    advice: RetrainAdvice
    n_photos: int
    n_waiting: int
    run: str
    trained: Trained | None = None


def take_snapshot(config: Config, now: datetime) -> RunSnapshot:
    """Return the inputs of an attempt that starts now.

    Args:
        now: UTC.

    Raises:
        ConfigError, NoPhotos, ManifestError: as ingest().
    """
    photos = fingerprint(config.ingest)
    return RunSnapshot(now.isoformat(), run_fingerprint(config, photos), photos)


def begin_attempt(config: Config, now: datetime) -> RunSnapshot:
    """Return the inputs of an attempt, with the guards that are weaker than before; log these.

    Args:
        now: UTC.

    Raises:
        As take_snapshot() and find_weakened().
    """
    weakened = find_weakened(config)
    if weakened:
        logger.warning("begin: %s", describe_weakened(weakened, config.flat()))
    return replace(take_snapshot(config, now), weakened=weakened)


def attempt_without_training(
    config: Config, snapshot: RunSnapshot, outcome: AttemptOutcome, reason: str, now: datetime
) -> Attempt:
    """Return the record of an attempt that judged no model.

    Args:
        now: UTC.
    """
    return Attempt(
        name=config.tracking.name,
        started=snapshot.started,
        ended=now.isoformat(),
        who=current_user(),
        outcome=outcome,
        reason=reason,
        fingerprint=snapshot.fingerprint,
        settings=changed_settings(config),
    )


def repeat_attempt(last: Attempt, snapshot: RunSnapshot, config: Config, now: datetime) -> Attempt:
    """Return the record of an attempt whose inputs are those of the last attempt.

    Args:
        last: result of find_unchanged_attempt(). now: UTC.
    """
    is_first = last.was_trained or last.advice is not None
    reason = f"nothing has changed since {last.ended[:16]}" if is_first else last.reason
    attempt = attempt_without_training(config, snapshot, "skip", reason, now)
    return replace(attempt, n_photos=last.n_photos)


def conclude_run(result: RunOutcome, config: Config, now: datetime) -> Attempt:
    """Write the record of a pipeline run, send its notifications, and return the record.

    Args:
        config: without targets if the process that started the run sends the notifications.
        now: UTC.
    """
    advice, trained = result.advice, result.trained
    outcome: AttemptOutcome = "postpone" if advice.decision == "postpone" else "skip"
    attempt = replace(
        attempt_without_training(config, result.snapshot, outcome, advice.reason, now),
        advice=advice,
        n_photos=result.n_photos,
        n_waiting=result.n_waiting,
        run=result.run,
        **_attempt_fields(trained) if trained else {},
    )
    if trained and trained.was_serving and advice.decision == "revise":
        reason = f"{advice.reason}, but that is version {attempt.version} as it serves"
        attempt = replace(attempt, outcome="keep", reason=f"{reason}: nothing changes")
    elif _is_recorded_promotion(attempt, config):
        reason = f"version {attempt.version} already serves"
        attempt = replace(attempt, outcome="skip", reason=reason, version=None, verdict="")
    return conclude(_with_weakened(attempt, result.snapshot.weakened, config), config)


def _attempt_fields(trained: Trained) -> dict[str, Any]:
    fields = asdict(trained)
    del fields["was_serving"]
    return fields


def _with_weakened(attempt: Attempt, weakened: dict[str, str], config: Config) -> Attempt:
    """Return the attempt with its weaker guards, which its reason names."""
    named = describe_weakened(weakened, config.flat())
    if not named:
        return attempt
    if attempt.was_trained:
        return replace(attempt, reason=f"{attempt.reason}; {named}", weakened=weakened)
    return replace(attempt, reason=f"{attempt.reason}; {named}, which is not passed on")


def sum_up(
    verdict: "Verdict", report: "EvaluationReport", started_from: str, blend: "Interpolation"
) -> Trained:
    """Return the numbers of a training and its verdict.

    Args:
        started_from: one sentence.
    """
    return Trained(
        outcome=outcome_of_verdict(verdict.status),
        reason=verdict.reason,
        version=verdict.challenger,
        verdict=verdict.id,
        champion=verdict.challenger if verdict.is_serving else verdict.champion,
        accuracy=report.accuracy.value,
        accuracy_low=report.accuracy.low,
        accuracy_high=report.accuracy.high,
        n_test=report.n,
        started_from=started_from,
        interpolation=blend.reason,
        flips=len(verdict.flips),
        flips_saved=blend.flips_saved,
        was_serving=verdict.status == "serving",
    )


def outcome_of_verdict(status: VerdictStatus) -> TrainedOutcome:
    """Return the outcome of an attempt by the status of its verdict."""
    return "promote" if status == "serving" else status


def changed_settings(config: Config) -> dict[str, str]:
    """Return the settings that differ from the defaults, for the next attempt.

    Local paths are left out, because the state folder may be moved; URLs stay. The notification
    targets are left out too, because the journal's readers need not see their addresses.
    """
    defaults = Config().flat()
    return {
        key: text
        for key, text in config.flat().items()
        if text != defaults[key] and key not in _PER_CALL and _is_portable(key, text)
    }


def _is_portable(key: str, text: str) -> bool:
    is_place = key.endswith(("_url", ".uri"))
    return not is_place or (is_url(text) and not text.startswith("sqlite:"))


def conclude(attempt: Attempt, config: Config) -> Attempt:
    """Write the attempt to the journal, send its notifications, and return the written record."""
    written = replace(attempt, aliases=read_aliases(config.tracking))
    journal.write_record(config.retrain.journal_url, written)
    notify_attempt(written, config.notify)
    return written


def notify_attempt(attempt: Attempt, notify: NotifyConfig) -> None:
    """Send the notifications about a recorded attempt."""
    send(notify, attempt_message(attempt))
    if drift := _drift_message(attempt):
        send(notify, drift)


def _is_recorded_promotion(attempt: Attempt, config: Config) -> bool:
    """Whether the journal already has this promotion, because the run only repeated it."""
    if attempt.outcome != "promote":
        return False
    past = journal.read_attempts(config.retrain.journal_url, attempt.name)
    return any(each.outcome == "promote" and each.verdict == attempt.verdict for each in past)


def _drift_message(attempt: Attempt) -> Message | None:
    """Return the notification about drifted photos, None if there is no drift."""
    advice = attempt.advice
    if advice is None or not advice.has_drifted:
        return None
    text = next(line.message for line in advice.reasons if line.name == "drift")
    title = f"{attempt.name}: distribution shift in the new photos"
    return replace(attempt_message(attempt), event="drift", title=title, text=text)
