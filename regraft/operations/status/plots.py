"""The data of the figures: accuracies, photos, drift tests and retrainings over time."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Literal

from regraft.core.intervals import wilson_interval
from regraft.core.outcomes import AttemptOutcome
from regraft.core.pages import count
from regraft.core.pages.facts import format_version
from regraft.operations.journal import Attempt
from regraft.operations.status.needs import DriftCheck, Past, drift_checks
from regraft.operations.status.timeline import label_of

MAX_BREAKS = 6  # more dashed lines would hide the accuracies
_CONFIDENCE = 0.95  # of the intervals of the accuracies
_LABEL_GAP = 0.085  # share of the time axis that the label of a version needs
_MAX_MARKS = 400  # retrainings side by side: more would overlap
# Where several retrainings overlap, the last in this order is drawn.
_RANKS: tuple[AttemptOutcome, ...] = (
    "skip",
    "postpone",
    "keep",
    "hold",
    "pending",
    "promote",
    "killed",
    "failed",
)
PointKind = Literal["champion", "challenger", "count", "stable", "drifted"]


@dataclass(frozen=True)
class TimeSpan:
    """The time axis. first < last, UTC."""

    first: datetime
    last: datetime

    def share(self, moment: datetime) -> float:
        """Return the position of a time on the axis, in [0, 1]."""
        share = (moment - self.first) / (self.last - self.first)
        return min(1.0, max(0.0, share))


@dataclass(frozen=True)
class Point:
    """A mark of a plot.

    value: accuracy in [0, 1], number of photos, or p-value in [0, 1]; None = no p-value recorded.
    caption: text of the tooltip.
    low, high: bounds of the value's interval, None if there is none.
    label: text beside the mark, "" for none.
    """

    moment: datetime
    value: float | None
    kind: PointKind
    caption: str
    low: float | None = None
    high: float | None = None
    label: str = ""


@dataclass(frozen=True)
class Plot:
    """The data of a figure.

    line: (time, value) of a step line: each value holds until the next time.
    breaks: times of dashed vertical lines.
    """

    points: tuple[Point, ...]
    line: tuple[tuple[datetime, float], ...] = ()
    breaks: tuple[datetime, ...] = ()


@dataclass(frozen=True)
class Mark:
    """A retraining on the time axis. caption: text of the tooltip."""

    moment: datetime
    outcome: AttemptOutcome
    caption: str


@dataclass(frozen=True)
class Score:
    """A measured accuracy with its bounds, in [0, 1]. n_test: test photos, 0 if unknown."""

    moment: datetime
    version: int
    accuracy: float
    low: float | None
    high: float | None
    n_test: int


def time_span(times: list[datetime], now: datetime) -> TimeSpan:
    """Return the span from the first moment until now, at least one day."""
    first = min([*times, now - timedelta(days=1)])
    return TimeSpan(first.astimezone(UTC), now.astimezone(UTC))


def scores(past: Past) -> tuple[Score, ...]:
    """Return all measured accuracies, oldest first: of attempts, else of the registry."""
    measured = [
        _score(attempt, attempt.version, attempt.accuracy)
        for attempt in past.attempts
        if attempt.version is not None and attempt.accuracy is not None
    ]
    versions = {score.version for score in measured}
    for each in past.snapshot.measured if past.snapshot else ():
        if each.version not in versions:
            low, high = _interval(each.accuracy, each.n_test)
            moment = datetime.fromisoformat(each.when)
            measured.append(Score(moment, each.version, each.accuracy, low, high, each.n_test))
    return tuple(sorted(measured, key=lambda score: score.moment))


def accuracy_plot(past: Past, span: TimeSpan) -> Plot | None:
    """Return the accuracy of every version when it was judged, and the champion's as a line."""
    measured = scores(past)
    if not measured:
        return None
    champions = {event.champion for event in past.events if event.moved} | {past.champion}
    points = [_accuracy_point(score, score.version in champions) for score in measured]
    breaks = tuple(changes_of_test(measured))
    return Plot(
        points=tuple(_without_overlap(points, span)),
        line=tuple(_champion_line(past, measured, span)),
        breaks=breaks if len(breaks) <= MAX_BREAKS else (),
    )


def changes_of_test(measured: tuple[Score, ...]) -> list[datetime]:
    """Return the times at which the number of test photos changed."""
    counted = [score for score in measured if score.n_test]
    return [later.moment for earlier, later in pairwise(counted) if earlier.n_test != later.n_test]


def photos_plot(past: Past, span: TimeSpan) -> Plot | None:
    """Return the number of photos in all splits over time."""
    counts = [
        (datetime.fromisoformat(attempt.ended), attempt.n_photos)
        for attempt in past.attempts
        if attempt.n_photos
    ]
    if not counts:
        return None
    line: list[tuple[datetime, float]] = []
    for moment, n in counts:
        if not line or n != line[-1][1]:
            line.append((moment, n))
    n = counts[-1][1]
    line.append((span.last, n))
    return Plot((Point(span.last, n, "count", f"{count(n)} photos", label=count(n)),), tuple(line))


def drift_plot(past: Past) -> Plot | None:
    """Return the p-value of every drift test; a detection without a p-value counts too."""
    checks = [each for each in drift_checks(past) if each.p_value is not None or each.drifted]
    return Plot(tuple(map(_drift_point, checks))) if checks else None


def retraining_marks(past: Past, span: TimeSpan) -> tuple[Mark, ...]:
    """Return every call of `regraft retrain`; of those that overlap, the most important."""
    marks: dict[int, Attempt] = {}
    for attempt in past.attempts:
        position = int(span.share(datetime.fromisoformat(attempt.ended)) * _MAX_MARKS)
        other = marks.get(position)
        if other is None or _rank(attempt) >= _rank(other):
            marks[position] = attempt
    return tuple(
        Mark(
            datetime.fromisoformat(attempt.ended),
            attempt.outcome,
            f"{attempt.ended[:10]} {label_of(attempt.outcome)}: {attempt.reason}",
        )
        for attempt in marks.values()
    )


def _score(attempt: Attempt, version: int, accuracy: float) -> Score:
    moment = datetime.fromisoformat(attempt.ended)
    low, high = attempt.accuracy_low, attempt.accuracy_high
    return Score(moment, version, accuracy, low, high, attempt.n_test)


def _interval(accuracy: float, n: int) -> tuple[float | None, float | None]:
    """Return the bounds of an accuracy measured on n photos; None where n is 0."""
    if n == 0:
        return None, None
    interval = wilson_interval(round(accuracy * n), n, _CONFIDENCE)
    return interval.low, interval.high


def _accuracy_point(score: Score, was_champion: bool) -> Point:
    version = format_version(score.version)
    caption = f"{score.moment:%Y-%m-%d} {version}: {score.accuracy:.1%}"
    return Point(
        moment=score.moment,
        value=score.accuracy,
        kind="champion" if was_champion else "challenger",
        caption=f"{caption} of {score.n_test} test photos",
        low=score.low,
        high=score.high,
        label=version if was_champion else "",
    )


def _without_overlap(points: list[Point], span: TimeSpan) -> Iterator[Point]:
    """Yield the points without labels that would overlap; the last label always stays."""
    right = 2.0  # right of the axis
    labelled = []
    for point in reversed(points):
        position = span.share(point.moment)
        if point.label and right - position >= _LABEL_GAP:
            right = position
            labelled.append(point)
        else:
            labelled.append(replace(point, label=""))
    yield from reversed(labelled)


def _champion_line(
    past: Past, measured: tuple[Score, ...], span: TimeSpan
) -> Iterator[tuple[datetime, float]]:
    """Yield the champion's accuracy, as last measured before it began to serve."""
    accuracy: float | None = None
    for event in past.events:
        if not event.moved:
            continue
        # The attempt is dated after its entry in the ledger, by minutes.
        own = [score for score in measured if score.version == event.champion]
        before = [score for score in own if score.moment <= event.moment] or own[:1]
        if before:
            accuracy = before[-1].accuracy
            yield event.moment, accuracy
    if accuracy is not None:
        yield span.last, accuracy


def _drift_point(check: DriftCheck) -> Point:
    caption = f"{check.moment:%Y-%m-%d}: {check.message}"
    return Point(check.moment, check.p_value, "drifted" if check.drifted else "stable", caption)


def _rank(attempt: Attempt) -> int:
    return _RANKS.index(attempt.outcome)
