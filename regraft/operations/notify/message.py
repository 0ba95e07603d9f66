"""A notification about an event, as JSON for machines and as text for people."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from regraft.core.outcomes import AttemptOutcome, EventType
from regraft.operations.journal import Attempt, Watch

_EVENTS: dict[AttemptOutcome, EventType] = {
    "promote": "promote",
    "keep": "keep",
    "hold": "keep",
    "pending": "pending",
    "skip": "skip",
    "postpone": "skip",
    "failed": "failed",
    "killed": "failed",
}
_TITLES: dict[AttemptOutcome, str] = {
    "promote": "version {version} was promoted and serves now",
    "keep": "version {version} was not better; the champion continues to serve",
    "hold": "too few photos to judge version {version}; the champion continues to serve",
    "pending": "version {version} is pending your approval",
    "skip": "nothing to train on",
    "postpone": "the training was postponed",
    "failed": "the retraining failed",
    "killed": "the retraining was killed",
}


@dataclass(frozen=True)
class Message:
    """A notification about an event.

    model: its name. title: one line. text: some sentences.
    facts: further values by name, for readers and machines.
    when: time of the event, with a time zone.
    """

    event: EventType
    model: str
    title: str
    text: str
    facts: Mapping[str, str | int | float]
    when: datetime

    @property
    def delivery_id(self) -> str:
        """32 hex digits of the content; a receiver recognises a repeated message by them."""
        content = json.dumps(self._fields(), sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:32]

    def payload(self) -> bytes:
        """Return the body of a webhook and the input of a command: one JSON object.

        Its keys are delivery_id, timestamp (of the event; ISO 8601, UTC), event, model, title,
        text and facts. Non-finite numbers, which JSON does not have, are written as text.
        """
        return json.dumps({"delivery_id": self.delivery_id, **self._fields()}, indent=1).encode()

    def plain_text(self) -> str:
        """Return the text, then one line per fact."""
        facts = [f"{name}: {value}" for name, value in self.facts.items()]
        when = f"{self.when.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
        return "\n".join([self.text, "", *facts, f"when: {when}"])

    def _fields(self) -> dict[str, object]:
        return {
            "timestamp": self.when.astimezone(UTC).isoformat(),
            "event": self.event,
            "model": self.model,
            "title": self.title,
            "text": self.text,
            "facts": {name: _to_json(value) for name, value in self.facts.items()},
        }


def attempt_message(attempt: Attempt) -> Message:
    """Return the notification about a call of `regraft retrain`."""
    title = _TITLES[attempt.outcome].format(version=attempt.version)
    return Message(
        event=_EVENTS[attempt.outcome],
        model=attempt.name,
        title=f"{attempt.name}: {title}",
        text=attempt.reason,
        facts=_facts(attempt),
        when=datetime.fromisoformat(attempt.ended),
    )


def watch_message(watch: Watch) -> Message | None:
    """Return the notification about drifted photos, None if there is no drift."""
    if not watch.drifted:
        return None
    facts: dict[str, str | int | float] = {
        "photos": watch.photos,
        "n_photos": watch.n_photos,
        "reference": watch.version,
        "p_value": watch.p_value,
    }
    return Message(
        event="drift",
        model=watch.name,
        title=f"{watch.name}: distribution shift in the new photos",
        text=watch.reason,
        facts=facts | ({"page": watch.page} if watch.page else {}),
        when=datetime.fromisoformat(watch.when),
    )


def sample_message(model: str, now: datetime) -> Message:
    """Return the message of `regraft notify test`."""
    text = "Nothing happened. `regraft notify test` sends this message to every target."
    return Message("keep", model, f"{model}: a test message", text, {"test": 1}, now)


def _facts(attempt: Attempt) -> dict[str, str | int | float]:
    """Return the values that the attempt has, by name."""
    values: dict[str, str | int | float | None] = {
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
    return {name: value for name, value in values.items() if value is not None}


def _to_json(value: str | int | float) -> str | int | float:
    is_finite = isinstance(value, str | int) or math.isfinite(value)
    return value if is_finite else str(value)
