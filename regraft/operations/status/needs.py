"""Open tasks for a person: a message, and the command that solves it."""

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import takewhile
from typing import Literal

from regraft.core.pages.facts import format_version
from regraft.operations.journal import Attempt, Watch
from regraft.operations.status.registry_snapshot import ModelSnapshot
from regraft.operations.status.timeline import Event

_ANSWERS = ("promote", "reject", "rollback")
Tone = Literal["bad", "warn"]


@dataclass(frozen=True)
class Need:
    """A task that needs a person.

    tone: bad = an error; warn = something to check or decide.
    message: one sentence.
    commands: possible solutions; each is a command line.
    page: path of a report, "" if there is none.
    """

    tone: Tone
    message: str
    commands: tuple[str, ...] = ()
    page: str = ""


@dataclass(frozen=True)
class Past:
    """All records of a model. attempts, watches and events: oldest first.

    snapshot: of the model in the registry, None if it is not registered.
    read: when the registry was read, ISO 8601, UTC.
    """

    name: str
    snapshot: ModelSnapshot | None
    read: str
    attempts: tuple[Attempt, ...]
    watches: tuple[Watch, ...]
    events: tuple[Event, ...]

    @property
    def champion(self) -> int | None:
        """Return the version that serves: by the alias, or by a promotion after the snapshot."""
        if self.snapshot is None:
            return self.events[-1].champion if self.events else None
        read = datetime.fromisoformat(self.read)
        newer = [
            event
            for event in self.events
            if event.entry is None and event.moved and event.moment > read
        ]
        return newer[-1].champion if newer else self.snapshot.champion


def needs(past: Past) -> Iterator[Need]:
    """Yield the open tasks, the most urgent first."""
    name = shlex.quote(past.name)
    if past.snapshot and past.snapshot.faults:
        message = f"The ledger was changed after it was written: {past.snapshot.faults[0]}"
        yield Need("bad", message, (f"regraft ledger verify {name}",))
    yield from _about_alias(past, name)
    yield from _about_failures(past, name)
    yield from _about_pending(past, name)
    yield from _about_drift(past)


def _about_alias(past: Past, name: str) -> Iterator[Need]:
    lines = past.snapshot.lines if past.snapshot else ()
    if past.snapshot and lines and past.snapshot.champion != lines[-1].after:
        previous = lines[-1].after
        message = (
            f"The champion was changed outside of Regraft, from {format_version(previous)} to "
            f"{format_version(past.snapshot.champion)}. The next decision will record this."
        )
        commands = () if previous is None else (f"regraft rollback {name} --to {previous}",)
        yield Need("warn", message, commands)


def _about_failures(past: Past, name: str) -> Iterator[Need]:
    def has_failed(attempt: Attempt) -> bool:
        return attempt.outcome in ("failed", "killed")

    failed = list(takewhile(has_failed, reversed(past.attempts)))
    if not failed:
        return
    last = failed[0]
    subject = f"The last {len(failed)} retrainings" if len(failed) > 1 else "The last retraining"
    verb = "was killed" if last.outcome == "killed" and len(failed) == 1 else "failed"
    ended = _format_time(datetime.fromisoformat(last.ended))
    message = f"{subject} {verb} ({ended}): {last.reason}"
    tone: Tone = "bad" if last.outcome == "failed" else "warn"
    yield Need(tone, message, ("regraft doctor", f"regraft history {name}"))


def _about_pending(past: Past, name: str) -> Iterator[Need]:
    for version, reason in _pending(past).items():
        message = f"Version {version} is pending your approval{f': {reason}' if reason else ''}"
        commands = (
            f"regraft approve {name}/{version}",
            f'regraft reject {name}/{version} --reason "..."',
        )
        yield Need("warn", message, commands)


def _pending(past: Past) -> dict[int, str]:
    """Return {version: reason} of all versions that are pending approval.

    The registry snapshot counts, and after it the last attempt.
    """
    pending = {version: "" for version in past.snapshot.pending} if past.snapshot else {}
    reasons: dict[int, str] = {}
    for event in past.events:
        if event.what == "pending" and event.version:
            reasons[event.version] = event.message
        elif event.what in _ANSWERS:
            for version in (event.version, event.champion):
                if version is not None:
                    reasons.pop(version, None)
    last = past.attempts[-1] if past.attempts else None
    if last and last.outcome == "pending" and last.version in reasons:
        pending[last.version] = reasons[last.version]
    return {version: reasons.get(version, reason) for version, reason in pending.items()}


def _about_drift(past: Past) -> Iterator[Need]:
    """Yield a task until a later check is negative, or another version serves."""
    checks = sorted(drift_checks(past), key=lambda check: check.moment)
    moves = [event.moment for event in past.events if event.moved]
    if not checks or not checks[-1].drifted or (moves and moves[-1] >= checks[-1].moment):
        return
    last = checks[-1]
    commands = (f"regraft watch {shlex.quote(last.photos)}",) if last.photos else ()
    message = f"New photos show a distribution shift ({_format_time(last.moment)}): {last.message}"
    yield Need("warn", message, commands, last.page)


@dataclass(frozen=True)
class DriftCheck:
    """A drift test of new photos. p_value: in [0, 1], None if it was not recorded."""

    moment: datetime
    drifted: bool
    message: str
    p_value: float | None = None
    photos: str = ""
    page: str = ""


def drift_checks(past: Past) -> Iterator[DriftCheck]:
    """Yield all drift tests that could tell: first those of `regraft watch`, then the retrainings'.

    A check of too few photos says nothing, so that it does not cancel a shift found before it.
    """
    for watch in past.watches:
        if watch.drifted is None:
            continue
        yield DriftCheck(
            moment=datetime.fromisoformat(watch.when),
            drifted=watch.drifted,
            message=watch.reason,
            p_value=watch.p_value,
            photos=watch.photos,
            page=watch.page,
        )
    for attempt in past.attempts:
        if attempt.advice is None:
            continue
        for reason in attempt.advice.reasons:
            if reason.name == "drift":
                moment = datetime.fromisoformat(attempt.ended)
                yield DriftCheck(moment, attempt.advice.has_drifted, reason.message)


def _format_time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"
