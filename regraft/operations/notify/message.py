"""What there is to tell, as JSON for machines and as text for people."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from regraft.core.config import Happening
from regraft.operations.journal import Attempt, Outcome, Watch

_HAPPENED: dict[Outcome, Happening] = {
    "promoted": "promoted",
    "kept": "kept",
    "held": "kept",
    "waiting": "waiting",
    "skipped": "skipped",
    "postponed": "skipped",
    "failed": "failed",
    "killed": "failed",
}
_TITLES: dict[Outcome, str] = {
    "promoted": "version {version} serves now",
    "kept": "version {version} was not better; the champion serves on",
    "held": "too few photos to decide about version {version}; the champion serves on",
    "waiting": "version {version} waits for your approval",
    "skipped": "nothing to train on",
    "postponed": "the training was put off",
    "failed": "the retraining failed",
    "killed": "the retraining was killed",
}


@dataclass(frozen=True)
class Message:
    """One happening, as it is told.

    model: its name. title: one line. text: some sentences.
    facts: what a reader or a machine may want beside it, by name.
    when: it happened, with a time zone.
    """

    happening: Happening
    model: str
    title: str
    text: str
    facts: Mapping[str, str | int | float]
    when: datetime

    @property
    def delivery_id(self) -> str:
        """32 hex digits over all that is said: told twice, it can be known again."""
        said = json.dumps(self._said(), sort_keys=True)
        return hashlib.sha256(said.encode()).hexdigest()[:32]

    def payload(self) -> bytes:
        """The body of a webhook and the input of a command: one JSON object.

        delivery_id, timestamp (ISO 8601, UTC, when it happened), happening, model, title, text,
        facts. A number that JSON does not know is written as text.
        """
        return json.dumps({"delivery_id": self.delivery_id, **self._said()}, indent=1).encode()

    def plain(self) -> str:
        """The text and the facts, a line a fact."""
        facts = [f"{name}: {value}" for name, value in self.facts.items()]
        told = f"{self.when.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
        return "\n".join([self.text, "", *facts, f"when: {told}"])

    def _said(self) -> dict[str, object]:
        return {
            "timestamp": self.when.astimezone(UTC).isoformat(),
            "happening": self.happening,
            "model": self.model,
            "title": self.title,
            "text": self.text,
            "facts": {name: _written(value) for name, value in self.facts.items()},
        }


def of_attempt(attempt: Attempt) -> Message:
    """What a call of `regraft retrain` came to."""
    title = _TITLES[attempt.outcome].format(version=attempt.version)
    return Message(
        happening=_HAPPENED[attempt.outcome],
        model=attempt.name,
        title=f"{attempt.name}: {title}",
        text=attempt.reason,
        facts=_facts(attempt),
        when=datetime.fromisoformat(attempt.ended),
    )


def of_watch(watch: Watch) -> Message | None:
    """That new photos are of another kind; None if they are not."""
    if not watch.drifted:
        return None
    facts: dict[str, str | int | float] = {
        "photos": watch.photos,
        "n_photos": watch.n_photos,
        "reference": watch.version,
        "p_value": watch.p_value,
    }
    return Message(
        happening="drift",
        model=watch.name,
        title=f"{watch.name}: the new photos are of another kind",
        text=watch.reason,
        facts=facts | ({"page": watch.page} if watch.page else {}),
        when=datetime.fromisoformat(watch.when),
    )


def trial(model: str, now: datetime) -> Message:
    """What is sent only to see whether it arrives."""
    text = "Nothing happened. This is what `regraft notify test` sends to every target."
    return Message("kept", model, f"{model}: a test message", text, {"test": 1}, now)


def _facts(attempt: Attempt) -> dict[str, str | int | float]:
    """Only what is known."""
    known: dict[str, str | int | float | None] = {
        "outcome": attempt.outcome,
        "version": attempt.version,
        "champion": attempt.champion,
        "accuracy": attempt.accuracy,
        "accuracy_low": attempt.accuracy_low,
        "accuracy_high": attempt.accuracy_high,
        "n_test": attempt.n_test or None,
        "n_photos": attempt.n_photos or None,
        "seconds": round(attempt.seconds, 1),
        "verdict": attempt.verdict or None,
        "who": attempt.who,
    }
    return {name: value for name, value in known.items() if value is not None}


def _written(value: str | int | float) -> str | int | float:
    is_number = isinstance(value, str | int) or math.isfinite(value)
    return value if is_number else str(value)
