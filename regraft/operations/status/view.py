"""What the page says of a model, ready to be filled in."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from regraft.operations.status.needs import Need, Past, needs
from regraft.operations.status.plots import (
    Plot,
    Point,
    Score,
    accuracy_plot,
    changes_of_test,
    drift_plot,
    photos_plot,
    runs_strip,
    scores,
)
from regraft.operations.status.scales import Tick, time_scale
from regraft.operations.status.timeline import Event, champion_since

N_DECISIONS = 10
_QUIET = ("skipped", "no drift")


@dataclass(frozen=True)
class Row:
    """An event of the list, and how many more of the same kind came directly before it."""

    event: Event
    n_before: int = 0


@dataclass(frozen=True)
class View:
    """One model's part of the page.

    since: since when the champion serves, None if unknown; days: how long that is.
    score: the champion's last measured accuracy, None if there is none.
    test_said: whether accuracies are of the same photos. n_photos: 0 if unknown.
    n_runs, n_trained: calls of `regraft retrain`, and those that trained.
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
    accuracy: Plot | None
    photos: Plot | None
    drift: Plot | None
    runs: tuple[Point, ...]
    times: tuple[Tick, ...]
    test_said: str
    decisions: tuple[Row, ...]


def view_of(past: Past, number: int, now: datetime) -> View:
    """What is said of the model.

    Args:
        number: of the model on the page.
    """
    measured = scores(past)
    times = time_scale([event.moment for event in past.events], now)
    champion = past.champion
    agrees = bool(past.events) and past.events[-1].champion == champion
    since = champion_since(past.events) if agrees else None
    counted = [attempt.n_photos for attempt in past.attempts if attempt.n_photos]
    return View(
        name=past.name,
        anchor=f"model-{number}",
        champion=champion,
        since=since,
        days=(now - since) // timedelta(days=1) if since else 0,
        score=next((one for one in reversed(measured) if one.version == champion), None),
        n_photos=counted[-1] if counted else 0,
        last=past.events[-1] if past.events else None,
        n_runs=len(past.attempts),
        n_trained=sum(attempt.was_trained for attempt in past.attempts),
        needs=tuple(needs(past)),
        accuracy=accuracy_plot(past, times),
        photos=photos_plot(past, times),
        drift=drift_plot(past, times),
        runs=runs_strip(past, times),
        times=times.ticks,
        test_said=_about_test(measured),
        decisions=tuple(_newest(past.events)),
    )


def _about_test(measured: tuple[Score, ...]) -> str:
    known = [score for score in measured if score.n_test]
    changes = changes_of_test(measured)
    if not known:
        return ""
    if not changes:
        return f"All of the same number of test photos, {known[-1].n_test}."
    times = "once" if len(changes) == 1 else f"{len(changes)} times"
    return (
        f"The test photos changed {times}, from {known[0].n_test} to {known[-1].n_test}: "
        "accuracies before and after are of other photos."
    )


def _newest(events: tuple[Event, ...]) -> Iterator[Row]:
    """The last events, newest first; quiet ones of the same kind in a row are one."""
    rows: list[Row] = []
    for event in reversed(events):
        if rows and event.what in _QUIET and rows[-1].event.what == event.what:
            rows[-1] = Row(rows[-1].event, rows[-1].n_before + 1)
        elif len(rows) == N_DECISIONS:
            break
        else:
            rows.append(Row(event))
    yield from rows
