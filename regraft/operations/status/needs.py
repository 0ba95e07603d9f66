"""What needs a person: what it is, and the command to type."""

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import takewhile
from typing import Literal

from regraft.operations.journal import Attempt, Watch
from regraft.operations.status.memory import Remembered
from regraft.operations.status.timeline import Event

_ENDED = ("promoted", "rejected", "rolled back")


@dataclass(frozen=True)
class Need:
    """One thing that waits for a person.

    tone: bad = something is wrong; look = somebody should look.
    commands: to be typed, any of them. page: path of a report, "" if none.
    """

    tone: Literal["bad", "look"]
    said: str
    commands: tuple[str, ...] = ()
    page: str = ""


@dataclass(frozen=True)
class Past:
    """All that is known of one model. attempts, watches and events: oldest first.

    known: None if it is in no registry. read: when that was looked at, ISO 8601, UTC.
    """

    name: str
    known: Remembered | None
    read: str
    attempts: tuple[Attempt, ...]
    watches: tuple[Watch, ...]
    events: tuple[Event, ...]

    @property
    def champion(self) -> int | None:
        """What serves: what the alias said, unless a newer attempt moved it."""
        if self.known is None:
            return self.events[-1].champion if self.events else None
        read = datetime.fromisoformat(self.read)
        newer = [e for e in self.events if e.entry is None and e.moved and e.moment > read]
        return newer[-1].champion if newer else self.known.champion


def needs(past: Past) -> Iterator[Need]:
    """What needs a person, the gravest first."""
    name = shlex.quote(past.name)
    if past.known and past.known.faults:
        said = f"The ledger is not as it was written: {past.known.faults[0]}"
        yield Need("bad", said, (f"regraft ledger verify {name}",))
    yield from _about_alias(past, name)
    yield from _about_failures(past, name)
    yield from _about_waiting(past, name)
    yield from _about_drift(past, name)


def _about_alias(past: Past, name: str) -> Iterator[Need]:
    lines = past.known.lines if past.known else ()
    if past.known and lines and past.known.champion != lines[-1].after:
        said = (
            f"The champion was moved outside of Regraft, from {told(lines[-1].after)} to "
            f"{told(past.known.champion)}. The next decision will record it."
        )
        back = lines[-1].after
        way = () if back is None else (f"regraft rollback {name} --to {back}",)
        yield Need("look", said, way)


def _about_failures(past: Past, name: str) -> Iterator[Need]:
    def has_failed(attempt: Attempt) -> bool:
        return attempt.outcome in ("failed", "killed")

    failed = list(takewhile(has_failed, reversed(past.attempts)))
    if not failed:
        return
    times = f"The last {len(failed)} retrainings" if len(failed) > 1 else "The last retraining"
    what = "was killed" if failed[0].outcome == "killed" and len(failed) == 1 else "failed"
    said = f"{times} {what} ({_day(datetime.fromisoformat(failed[0].ended))}): {failed[0].reason}"
    tone: Literal["bad", "look"] = "bad" if failed[0].outcome == "failed" else "look"
    yield Need(tone, said, ("regraft doctor", f"regraft history {name}"))


def _about_waiting(past: Past, name: str) -> Iterator[Need]:
    for version, why in _waiting(past).items():
        said = f"Version {version} waits for your approval{f': {why}' if why else ''}"
        commands = (
            f"regraft approve {name}/{version}",
            f'regraft reject {name}/{version} --reason "..."',
        )
        yield Need("look", said, commands)


def _waiting(past: Past) -> dict[int, str]:
    """Versions that wait, and why; what the registry said counts, then what happened since."""
    waiting = {version: "" for version in past.known.waiting} if past.known else {}
    open_: dict[int, str] = {}
    for event in past.events:
        if event.what == "waiting" and event.version:
            open_[event.version] = event.said
        elif event.what in _ENDED:
            open_ = {v: s for v, s in open_.items() if v != event.version and v != event.champion}
    last = past.attempts[-1] if past.attempts else None
    if last and last.outcome == "waiting" and last.version in open_:
        waiting[last.version] = open_[last.version]
    return {version: open_.get(version, why) for version, why in waiting.items()}


def _about_drift(past: Past, name: str) -> Iterator[Need]:
    """Until somebody looks again and finds none, or another model serves."""
    looks = sorted(looks_of(past), key=lambda look: look.moment)
    moved = [event.moment for event in past.events if event.moved]
    if not looks or not looks[-1].drifted or (moved and moved[-1] >= looks[-1].moment):
        return
    last = looks[-1]
    commands = (f"regraft watch {shlex.quote(last.photos)}",) if last.photos else ()
    said = f"New photos are of another kind ({_day(last.moment)}): {last.said}"
    yield Need("look", said, commands, last.page)


@dataclass(frozen=True)
class Look:
    """One look at whether photos are of another kind. p_value: None if it was not written down."""

    moment: datetime
    drifted: bool
    said: str
    p_value: float | None = None
    photos: str = ""
    page: str = ""


def looks_of(past: Past) -> Iterator[Look]:
    """Every one: those that somebody asked for, then those of the retrainings."""
    for one in past.watches:
        moment = datetime.fromisoformat(one.when)
        yield Look(moment, one.drifted, one.reason, one.p_value, one.photos, one.page)
    for attempt in past.attempts:
        reasons = attempt.advice.reasons if attempt.advice else ()
        for line in reasons:
            if attempt.advice and line.name == "drift":
                moment = datetime.fromisoformat(attempt.ended)
                yield Look(moment, attempt.advice.has_drifted, line.said)


def told(version: int | None) -> str:
    """The version as it is told."""
    return "none" if version is None else f"v{version}"


def _day(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"
