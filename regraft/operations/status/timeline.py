"""The timeline: all events of a model from the ledger, the journal and drift checks, in order."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal, Protocol

from regraft.core.outcomes import AttemptOutcome, LedgerAction
from regraft.core.text import format_count
from regraft.operations.journal import Attempt, Watch

What = Literal[AttemptOutcome, LedgerAction, "serving", "drift", "no drift", "inconclusive"]
# The action of the ledger entry that belongs to an attempt with this outcome.
_ACTIONS: dict[AttemptOutcome, LedgerAction] = {
    "promote": "promote",
    "keep": "keep",
    "hold": "hold",
    "pending": "hold",
}
_Decision = tuple[str, LedgerAction]  # verdict, action
_LABELS: dict[What, str] = {
    "promote": "promoted",
    "keep": "kept",
    "hold": "held",
    "skip": "skipped",
    "postpone": "postponed",
    "rollback": "rolled back",
    "reject": "rejected",
    "outside": "changed outside",
    "serving": "already serving",
}
_DRIFT: dict[bool | None, What] = {True: "drift", False: "no drift", None: "inconclusive"}
_IS_PENDING = re.compile(r"version \d+ (?:waits for|is pending) approval\b")


class DecisionEntry(Protocol):
    """The fields of a ledger entry that the timeline uses."""

    @property
    def number(self) -> int:
        """Position in the ledger, >= 1."""

    @property
    def when(self) -> str:
        """ISO 8601, UTC."""

    @property
    def who(self) -> str:
        """user@host."""

    @property
    def action(self) -> LedgerAction:
        """What was decided or done."""

    @property
    def before(self) -> int | None:
        """The champion before."""

    @property
    def after(self) -> int | None:
        """The champion after."""

    @property
    def verdict(self) -> str:
        """Id of the verdict, "" if there was none."""

    @property
    def reason(self) -> str:
        """One sentence."""


@dataclass(frozen=True)
class Event:
    """An event of a model.

    when: ISO 8601, UTC.
    who: user@host.
    before, champion: the version that served before and after the event, None for none.
    message: one sentence.
    version: the version that the event is about, None if there is none.
    verdict: id of the verdict, "" if there was none.
    entry: its number in the ledger, None if it is not in the ledger.
    details: further sentences, in the order of reading.
    """

    when: str
    who: str
    what: What
    before: int | None
    champion: int | None
    message: str
    version: int | None = None
    verdict: str = ""
    entry: int | None = None
    details: tuple[str, ...] = ()

    @property
    def moment(self) -> datetime:
        """Return the time of the event."""
        return datetime.fromisoformat(self.when)

    @property
    def moved(self) -> bool:
        """Return whether the event changed the champion."""
        return self.before != self.champion

    @property
    def label(self) -> str:
        """Return the kind of the event in natural English, such as "promoted"."""
        return label_of(self.what)


def timeline(
    entries: Sequence[DecisionEntry], attempts: Iterable[Attempt], watches: Iterable[Watch]
) -> tuple[Event, ...]:
    """Return all events of a model, oldest first.

    An attempt and the ledger entry about its verdict become a single event, at the entry's time.

    Args:
        entries: in the ledger's order.
        attempts, watches: of the same model, in any order.
    """
    unmatched: defaultdict[_Decision, list[DecisionEntry]] = defaultdict(list)
    for entry in entries:
        unmatched[entry.verdict, entry.action].append(entry)
    events = []
    for attempt in sorted(attempts, key=lambda attempt: _moment(attempt.ended)):
        events.append(_of_attempt(attempt, _take_entry_about(attempt, unmatched)))
    events += [_of_entry(entry) for same in unmatched.values() for entry in same]
    events += [_of_watch(watch) for watch in watches]
    events.sort(key=lambda event: (event.moment, event.entry or 0))
    return tuple(_with_champions(events, entries))


def label_of(what: What) -> str:
    """Return the kind of an event in natural English.

    >>> label_of("promote"), label_of("failed")
    ('promoted', 'failed')
    """
    return _LABELS.get(what, what)


def champion_since(events: Iterable[Event]) -> datetime | None:
    """Return since when the current champion serves; None if the champion never changed."""
    moves = [event.moment for event in events if event.moved]
    return moves[-1] if moves else None


def _take_entry_about(
    attempt: Attempt, unmatched: defaultdict[_Decision, list[DecisionEntry]]
) -> DecisionEntry | None:
    """Remove the newest entry about the attempt's verdict; the same verdict may occur twice."""
    action = _ACTIONS.get(attempt.outcome)
    if not attempt.verdict or action is None:
        return None
    same, ended = unmatched[attempt.verdict, action], _moment(attempt.ended)
    for position in reversed(range(len(same))):
        if _moment(same[position].when) <= ended:
            return same.pop(position)
    return None


def _of_attempt(attempt: Attempt, entry: DecisionEntry | None) -> Event:
    return Event(
        when=entry.when if entry else attempt.ended,
        who=attempt.who,
        what=attempt.outcome,
        before=entry.before if entry else None,
        champion=entry.after if entry else attempt.champion,
        message=attempt.reason,
        version=attempt.version,
        verdict=attempt.verdict,
        entry=entry.number if entry else None,
        details=tuple(_details(attempt)),
    )


def _details(attempt: Attempt) -> Iterator[str]:
    if attempt.accuracy is not None:
        yield f"{attempt.accuracy:.1%} on {attempt.n_test} test photos{_bounds(attempt)}"
    if attempt.started_from:
        yield f"started from {attempt.started_from}"
    if attempt.interpolation:
        yield attempt.interpolation
    if attempt.flips or attempt.flips_saved:
        yield f"{attempt.flips} right before and wrong now, {attempt.flips_saved} saved"
    if attempt.advice:
        yield from (reason.message for reason in attempt.advice.reasons)
    if attempt.was_trained:
        yield f"took {_duration(attempt.seconds)}"


def _bounds(attempt: Attempt) -> str:
    if attempt.accuracy_low is None or attempt.accuracy_high is None:
        return ""
    return f" ({attempt.accuracy_low:.1%} to {attempt.accuracy_high:.1%})"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _of_entry(entry: DecisionEntry) -> Event:
    is_pending = entry.action == "hold" and _IS_PENDING.match(entry.reason)
    about = re.match(r"version (\d+) ", entry.reason)
    version = int(about[1]) if about else entry.after if entry.action == "promote" else None
    return Event(
        when=entry.when,
        who=entry.who,
        what="pending" if is_pending else entry.action,
        before=entry.before,
        champion=entry.after,
        message=entry.reason,
        version=version,
        verdict=entry.verdict,
        entry=entry.number,
    )


def _of_watch(watch: Watch) -> Event:
    return Event(
        when=watch.when,
        who=watch.who,
        what=_DRIFT[watch.drifted],
        before=None,
        champion=None,
        message=watch.reason,
        version=watch.version,
        details=(
            f"{format_count(watch.n_photos, 'photo')} of {watch.photos}",
            f"p = {watch.p_value:.3g}",
        ),
    )


def _with_champions(events: list[Event], entries: Sequence[DecisionEntry]) -> Iterator[Event]:
    """Yield the events with the champion before and after each of them.

    The ledger has priority. An attempt that is not in the ledger yet counts by its own outcome.
    """
    serving = entries[0].before if entries else None
    for event in events:
        if event.entry is None:
            has_promoted = event.what == "promote" and event.champion is not None
            after = event.champion if has_promoted else serving
            event = replace(event, before=serving, champion=after)
            if event.what == "promote" and not event.moved:
                event = replace(event, what="serving")
        serving = event.champion
        yield event


def _moment(when: str) -> datetime:
    return datetime.fromisoformat(when)
