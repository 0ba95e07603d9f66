"""The content of the page for a model, ready for the template."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from regraft.operations.status.needs import Need, Past, needs
from regraft.operations.status.plots import (
    Mark,
    Plot,
    Score,
    TimeSpan,
    accuracy_plot,
    changes_of_test,
    drift_plot,
    photos_plot,
    retraining_marks,
    scores,
    time_span,
)
from regraft.operations.status.timeline import Event, champion_since

N_DECISIONS = 10
_GROUPED = ("skip", "no drift")


@dataclass(frozen=True)
class Row:
    """An event of the list. n_before: number of equal events directly before it."""

    event: Event
    n_before: int = 0


@dataclass(frozen=True)
class View:
    """The part of the page about a model.

    since: start of the champion's service, None if unknown; days: its length.
    score: the champion's last measured accuracy, None if there is none.
    n_photos: in all splits, 0 if unknown.
    n_runs, n_trained: calls of `regraft retrain`, and those that trained.
    span: the time axis of all figures.
    test_note: whether the accuracies were measured on the same photos, a sentence.
    """

    name: str
    anchor: str
    champion: int | None
    since: datetime | None
    days: int
    score: Score | None
    n_photos: int
    last: Event | None
    n_runs: int
    n_trained: int
    needs: tuple[Need, ...]
    span: TimeSpan
    accuracy: Plot | None
    photos: Plot | None
    drift: Plot | None
    runs: tuple[Mark, ...]
    test_note: str
    decisions: tuple[Row, ...]


def view_of(past: Past, number: int, now: datetime) -> View:
    """Return the content of the page for a model.

    Args:
        number: of the model on the page.
        now: UTC.
    """
    measured = scores(past)
    span = time_span([event.moment for event in past.events], now)
    champion = past.champion
    is_in_timeline = bool(past.events) and past.events[-1].champion == champion
    since = champion_since(past.events) if is_in_timeline else None
    counts = [attempt.n_photos for attempt in past.attempts if attempt.n_photos]
    return View(
        name=past.name,
        anchor=f"model-{number}",
        champion=champion,
        since=since,
        days=(now - since) // timedelta(days=1) if since else 0,
        score=next((score for score in reversed(measured) if score.version == champion), None),
        n_photos=counts[-1] if counts else 0,
        last=past.events[-1] if past.events else None,
        n_runs=len(past.attempts),
        n_trained=sum(attempt.was_trained for attempt in past.attempts),
        needs=tuple(needs(past)),
        span=span,
        accuracy=accuracy_plot(past, span),
        photos=photos_plot(past, span),
        drift=drift_plot(past),
        runs=retraining_marks(past, span),
        test_note=_test_note(measured),
        decisions=tuple(_newest(past.events)),
    )


def _test_note(measured: tuple[Score, ...]) -> str:
    counted = [score for score in measured if score.n_test]
    changes = changes_of_test(measured)
    if not counted:
        return ""
    if not changes:
        return f"All measured on the same number of test photos, {counted[-1].n_test}."
    times = "once" if len(changes) == 1 else f"{len(changes)} times"
    return (
        f"The number of test photos changed {times}, from {counted[0].n_test} to "
        f"{counted[-1].n_test}: accuracies before and after a change are not comparable."
    )


def _newest(events: tuple[Event, ...]) -> Iterator[Row]:
    """Yield the last events, newest first; uneventful ones of the same kind are grouped."""
    rows: list[Row] = []
    for event in reversed(events):
        if rows and event.what in _GROUPED and rows[-1].event.what == event.what:
            rows[-1] = Row(rows[-1].event, rows[-1].n_before + 1)
        elif len(rows) == N_DECISIONS:
            break
        else:
            rows.append(Row(event))
    yield from rows
