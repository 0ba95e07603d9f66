"""How an attempt ends: written down, and told to whom it may concern, whatever came of it."""

from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING

from regraft.core.config import Config
from regraft.core.files import is_url
from regraft.core.state import who_am_i
from regraft.data.ingest import fingerprint
from regraft.operations import journal
from regraft.operations.advice import RetrainAdvice
from regraft.operations.journal import Attempt, Judged, Outcome
from regraft.operations.notify import Message, of_attempt, tell
from regraft.operations.retrain.unchanged import aliases_of, fingerprint_of

if TYPE_CHECKING:
    from regraft.evaluation.evaluate import EvaluationReport
    from regraft.promotion import Verdict
    from regraft.registry.interpolate import Interpolation

OUTCOMES: dict[str, Judged] = {
    "promote": "promoted",
    "serves": "promoted",
    "keep": "kept",
    "hold": "held",
    "wait": "waiting",
}
_OF_THIS_CALL = ("ingest.photos", "tracking.name")


@dataclass(frozen=True)
class Beginning:
    """What an attempt found when it began.

    began: ISO 8601, UTC. fingerprint: see fingerprint_of(). photos: of the photos alone.
    """

    began: str
    fingerprint: str
    photos: str


@dataclass(frozen=True)
class Trained:
    """What was trained, and what became of it; the fields are an Attempt's."""

    outcome: Judged
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

    def __str__(self) -> str:
        return f"sum_up: version {self.version} {self.outcome}, started {self.started_from}"


@dataclass(frozen=True)
class Course:
    """What came of an attempt that looked at its photos.

    n_photos: on all sides. n_waiting: in the inbox, without a label. run: of ZenML.
    trained: None if nothing was.
    """

    beginning: Beginning
    advice: RetrainAdvice
    n_photos: int
    n_waiting: int
    run: str
    trained: Trained | None = None


def begin(config: Config, now: datetime) -> Beginning:
    """What is found now.

    Args:
        now: UTC.

    Raises:
        ConfigError, NoPhotos, ManifestError: as ingest().
    """
    photos = fingerprint(config.ingest)
    return Beginning(now.isoformat(), fingerprint_of(config, photos), photos)


def untrained(
    config: Config, beginning: Beginning, outcome: Outcome, reason: str, now: datetime
) -> Attempt:
    """An attempt that judged no model.

    Args:
        now: UTC.
    """
    return Attempt(
        name=config.tracking.name,
        began=beginning.began,
        ended=now.isoformat(),
        who=who_am_i(),
        outcome=outcome,
        reason=reason,
        fingerprint=beginning.fingerprint,
        settings=settings_of(config),
    )


def again(last: Attempt, beginning: Beginning, config: Config, now: datetime) -> Attempt:
    """An attempt that found just what the last one had found.

    Args:
        last: as unchanged_since(). now: UTC.
    """
    is_first = last.was_trained or last.advice is not None
    said = f"nothing has changed since {last.ended[:16]}" if is_first else last.reason
    attempt = untrained(config, beginning, "skipped", said, now)
    return replace(attempt, n_photos=last.n_photos)


def conclude_course(course: Course, config: Config, now: datetime) -> Attempt:
    """The record of what came of it, after it was written down and told.

    Args:
        now: UTC.
    """
    advice, trained = course.advice, course.trained
    outcome: Outcome = "postponed" if advice.decision == "postpone" else "skipped"
    attempt = replace(
        untrained(config, course.beginning, outcome, advice.reason, now),
        advice=advice,
        n_photos=course.n_photos,
        n_waiting=course.n_waiting,
        run=course.run,
        **asdict(trained) if trained else {},
    )
    if _was_told(attempt, config):
        told = f"version {attempt.version} serves already"
        attempt = replace(attempt, outcome="skipped", reason=told, version=None, verdict="")
    return conclude(attempt, config)


def sum_up(
    verdict: "Verdict", report: "EvaluationReport", started_from: str, blend: "Interpolation"
) -> Trained:
    """A training in a few numbers.

    Args:
        started_from: in a sentence.
    """
    return Trained(
        outcome=OUTCOMES[verdict.standing],
        reason=verdict.reason,
        version=verdict.challenger,
        verdict=verdict.id,
        champion=verdict.challenger if verdict.serves else verdict.champion,
        accuracy=report.accuracy.value,
        accuracy_low=report.accuracy.low,
        accuracy_high=report.accuracy.high,
        n_test=report.n,
        started_from=started_from,
        interpolation=blend.reason,
        flips=len(verdict.flips),
        flips_saved=blend.flips_saved,
    )


def settings_of(config: Config) -> dict[str, str]:
    """What the configuration says other than the defaults, for the next time.

    Places on this machine are left out, because the state folder may be moved, and those behind a
    URL stay. Whom to tell is left out too: its addresses are nobody's business who reads a journal.
    """
    usual = Config().flat()
    return {
        key: text
        for key, text in config.flat().items()
        if text != usual[key] and key not in _OF_THIS_CALL and _may_travel(key, text)
    }


def _may_travel(key: str, text: str) -> bool:
    is_place = key.endswith(("_url", ".uri"))
    return not is_place or (is_url(text) and not text.startswith("sqlite:"))


def conclude(attempt: Attempt, config: Config) -> Attempt:
    """The attempt as it is in the journal, after whoever wants to hear of it was told."""
    written = replace(attempt, aliases=aliases_of(config.tracking))
    journal.write(config.retrain.journal_url, written)
    tell(config.notify, of_attempt(written))
    if drift := _drift_of(written):
        tell(config.notify, drift)
    return written


def _was_told(attempt: Attempt, config: Config) -> bool:
    """Whether this very promotion was written down before, and the training only repeated it."""
    if attempt.outcome != "promoted":
        return False
    past = journal.attempts(config.retrain.journal_url, attempt.name)
    return any(one.outcome == "promoted" and one.verdict == attempt.verdict for one in past)


def _drift_of(attempt: Attempt) -> Message | None:
    """The news that the new photos are of another kind, None if they are not."""
    advice = attempt.advice
    if advice is None or not advice.has_drifted:
        return None
    said = next(line.said for line in advice.reasons if line.name == "drift")
    title = f"{attempt.name}: the new photos are of another kind"
    return replace(of_attempt(attempt), happening="drift", title=title, text=said)
