"""The timeline: everything that happened to a model, whoever wrote it down, in one order."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal, Protocol

from regraft.operations.journal import Attempt, Outcome, Watch

What = Literal[
    Outcome, "serves already", "rolled back", "rejected", "moved by hand", "drift", "no drift"
]
# Which entry of the ledger says the same as an attempt that ended so.
_ACTIONS: dict[Outcome, str] = {
    "promoted": "promote",
    "kept": "keep",
    "held": "hold",
    "waiting": "hold",
}
_WHAT: dict[str, What] = {
    "promote": "promoted",
    "keep": "kept",
    "hold": "held",
    "rollback": "rolled back",
    "reject": "rejected",
    "outside": "moved by hand",
}
_WAITS = re.compile(r"version \d+ waits for approval\b")


class Decided(Protocol):
    """An entry of the ledger, as far as it is told here."""

    @property
    def number(self) -> int:
        """Its place, >= 1."""

    @property
    def when(self) -> str:
        """ISO 8601, UTC."""

    @property
    def who(self) -> str:
        """user@host."""

    @property
    def action(self) -> str:
        """promote, keep, hold, rollback, reject or outside."""

    @property
    def before(self) -> int | None:
        """The champion before."""

    @property
    def after(self) -> int | None:
        """The champion after."""

    @property
    def verdict(self) -> str:
        """Its id, "" if there was none."""

    @property
    def reason(self) -> str:
        """One sentence."""


@dataclass(frozen=True)
class Event:
    """One thing that happened.

    when: ISO 8601, UTC. who: user@host.
    before, champion: the version that served before it and after it, None for none.
    version: the one that it is about, None if none.
    said: one sentence. details: further ones, in the order of reading.
    verdict: its id, "" if there was none. entry: its number in the ledger, None if it has none.
    """

    when: str
    who: str
    what: What
    before: int | None
    champion: int | None
    said: str
    version: int | None = None
    verdict: str = ""
    entry: int | None = None
    details: tuple[str, ...] = ()

    @property
    def moment(self) -> datetime:
        """When, as a time."""
        return datetime.fromisoformat(self.when)

    @property
    def moved(self) -> bool:
        """Whether another version serves since."""
        return self.before != self.champion


def timeline(
    entries: Sequence[Decided], attempts: Iterable[Attempt], watches: Iterable[Watch]
) -> tuple[Event, ...]:
    """Everything that happened to one model, oldest first.

    An attempt and the ledger's entry about its verdict are one event, at the entry's time.

    Args:
        entries: in the ledger's order; attempts, watches: of the same model, in any order.
    """
    left = list(entries)
    events = []
    for attempt in sorted(attempts, key=lambda one: _moment(one.ended)):
        entry = _entry_about(attempt, left)
        if entry:
            left.remove(entry)
        events.append(_of_attempt(attempt, entry))
    events += [_of_entry(entry) for entry in left]
    events += [_of_watch(watch) for watch in watches]
    events.sort(key=lambda event: (event.moment, event.entry or 0))
    return tuple(_with_champions(events, entries))


def champion_since(events: Iterable[Event]) -> datetime | None:
    """Since when the last event's champion serves without a break; None if nothing ever moved."""
    moves = [event.moment for event in events if event.moved]
    return moves[-1] if moves else None


def _entry_about(attempt: Attempt, entries: list[Decided]) -> Decided | None:
    """The entry about the attempt's verdict; the newest, where the same verdict was given twice."""
    if not attempt.verdict:
        return None
    wanted = attempt.verdict, _ACTIONS.get(attempt.outcome)
    ended = _moment(attempt.ended)
    for entry in reversed(entries):
        if (entry.verdict, entry.action) == wanted and _moment(entry.when) <= ended:
            return entry
    return None


def _of_attempt(attempt: Attempt, entry: Decided | None) -> Event:
    return Event(
        when=entry.when if entry else attempt.ended,
        who=attempt.who,
        what=attempt.outcome,
        before=entry.before if entry else None,
        champion=entry.after if entry else attempt.champion,
        said=attempt.reason,
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
        yield from (line.said for line in attempt.advice.reasons)
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


def _of_entry(entry: Decided) -> Event:
    waits = entry.action == "hold" and _WAITS.match(entry.reason)
    about = re.match(r"version (\d+) ", entry.reason)
    return Event(
        when=entry.when,
        who=entry.who,
        what="waiting" if waits else _WHAT[entry.action],
        before=entry.before,
        champion=entry.after,
        said=entry.reason,
        version=int(about[1]) if about else entry.after if entry.action == "promote" else None,
        verdict=entry.verdict,
        entry=entry.number,
    )


def _of_watch(watch: Watch) -> Event:
    return Event(
        when=watch.when,
        who=watch.who,
        what="drift" if watch.drifted else "no drift",
        before=None,
        champion=None,
        said=watch.reason,
        version=watch.version,
        details=(f"{watch.n_photos} photos of {watch.photos}", f"p = {watch.p_value:.3g}"),
    )


def _with_champions(events: list[Event], entries: Sequence[Decided]) -> Iterator[Event]:
    """Who served before and after each, also where nobody wrote it down.

    What the ledger says counts. An attempt that it does not know yet counts by its own word.
    """
    serving = entries[0].before if entries else None
    for event in events:
        if event.entry is None:
            is_own = event.what == "promoted" and event.champion is not None
            after = event.champion if is_own else serving
            event = replace(event, before=serving, champion=after)
            if event.what == "promoted" and not event.moved:
                event = replace(event, what="serves already")
        serving = event.champion
        yield event


def _moment(when: str) -> datetime:
    return datetime.fromisoformat(when)
