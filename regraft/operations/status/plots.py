"""The drawings of a model's year: accuracy, photos, drift, and what became of every run."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

from regraft.operations.journal import Attempt
from regraft.operations.status.needs import Look, Past, looks_of, told
from regraft.operations.status.scales import BOTTOM, NumberScale, Tick, TimeScale, number_scale

MAX_BREAKS = 6  # more dashed lines than that hide what they part
_LEAST_P = 1e-4  # smaller ones are drawn there
_LABEL_GAP = 26.0  # pixels that the label of a version takes
_STRIP = 0.75  # pixels that a run takes at least
# What is seen where several runs fall on one place: the last named here.
_RANKS = ("skipped", "postponed", "kept", "held", "waiting", "promoted", "killed", "failed")


@dataclass(frozen=True)
class Point:
    """A mark. x, y: pixels; low, high: of its interval, None if there is none.

    tone: how it is drawn. caption: what is said when it is pointed at. label: beside it.
    """

    x: float
    y: float
    tone: str
    caption: str
    low: float | None = None
    high: float | None = None
    label: str = ""


@dataclass(frozen=True)
class Plot:
    """A drawing. line: points of the line, in pixels; breaks: where a dashed line stands."""

    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    points: tuple[Point, ...]
    line: tuple[tuple[float, float], ...] = ()
    breaks: tuple[float, ...] = ()


@dataclass(frozen=True)
class Score:
    """An accuracy that was measured, in [0, 1]. n_test: 0 if unknown."""

    moment: datetime
    version: int
    accuracy: float
    low: float | None
    high: float | None
    n_test: int


def scores(past: Past) -> tuple[Score, ...]:
    """Every measured accuracy, oldest first; of attempts, and of versions that none tells of."""
    found = [
        _score(a, a.version, a.accuracy)
        for a in past.attempts
        if a.version is not None and a.accuracy is not None
    ]
    told_of = {one.version for one in found}
    for one in past.known.measured if past.known else ():
        if one.version not in told_of:
            low, high = wilson(one.accuracy, one.n_test)
            moment = datetime.fromisoformat(one.when)
            found.append(Score(moment, one.version, one.accuracy, low, high, one.n_test))
    return tuple(sorted(found, key=lambda score: score.moment))


def wilson(accuracy: float, n: int) -> tuple[float | None, float | None]:
    """The 95 % interval of a share of n; None where n is 0.

    In plain arithmetic: scipy, which the report asks, takes longer to import than a page to build.

    Source: Wilson 1927, with z = 1.96.
    """
    if not n:
        return None, None
    z2 = 1.959964**2
    middle = (accuracy + z2 / (2 * n)) / (1 + z2 / n)
    half = math.sqrt(z2) / (1 + z2 / n) * math.sqrt(accuracy * (1 - accuracy) / n + z2 / 4 / n**2)
    return max(0.0, middle - half), min(1.0, middle + half)


def accuracy_plot(past: Past, times: TimeScale) -> Plot | None:
    """The accuracy of every version when it was judged, and the champion's as a line."""
    measured = scores(past)
    if not measured:
        return None
    bounds = [v for s in measured for v in (s.accuracy, s.low, s.high) if v is not None]
    scale = number_scale(bounds, top=1.0)
    served = {event.champion for event in past.events if event.moved} | {past.champion}
    points = [_point(score, times, scale, score.version in served) for score in measured]
    form = f".{_digits(scale.step)}f"
    breaks = tuple(times.at(moment) for moment in changes_of_test(measured))
    return Plot(
        x_ticks=times.ticks,
        y_ticks=tuple(Tick(scale.at(v), f"{100 * v:{form}} %") for v in scale.values),
        points=tuple(_labelled(points)),
        line=tuple(_champions(past, measured, times, scale)),
        breaks=breaks if len(breaks) <= MAX_BREAKS else (),
    )


def changes_of_test(measured: tuple[Score, ...]) -> list[datetime]:
    """When accuracies began to be of other test photos than those before."""
    known = [score for score in measured if score.n_test]
    return [late.moment for early, late in pairwise(known) if early.n_test != late.n_test]


def photos_plot(past: Past, times: TimeScale) -> Plot | None:
    """How many photos there were, on all sides, as steps."""
    counted = [
        (datetime.fromisoformat(attempt.ended), attempt.n_photos)
        for attempt in past.attempts
        if attempt.n_photos
    ]
    if not counted:
        return None
    scale = number_scale([0.0, *(float(n) for _, n in counted)])
    line: list[tuple[float, float]] = []
    for moment, n in counted:
        x, y = times.at(moment), scale.at(n)
        if not line:
            line.append((x, y))
        elif y != line[-1][1]:
            line += [(x, line[-1][1]), (x, y)]
    line.append((times.at(times.last), line[-1][1]))
    ticks = tuple(Tick(scale.at(v), f"{v:g}") for v in scale.values)
    last = line[-1]
    dot = Point(last[0], last[1], "serves", f"{counted[-1][1]} photos", label=f"{counted[-1][1]}")
    return Plot(times.ticks, ticks, (dot,), tuple(line))


def drift_plot(past: Past, times: TimeScale) -> Plot | None:
    """The p-value of every look at new photos, on a scale of powers of ten."""
    looks = [look for look in looks_of(past) if look.p_value is not None or look.drifted]
    if not looks:
        return None
    scale = NumberScale(math.log10(_LEAST_P), 0.0, 1.0)
    names = ("≤ 10⁻⁴", "0.001", "0.01", "0.1", "1")
    ticks = zip(scale.values, names, strict=True)
    return Plot(
        x_ticks=times.ticks,
        y_ticks=tuple(Tick(scale.at(v), name) for v, name in ticks),
        points=tuple(_look(look, times, scale) for look in looks),
    )


def runs_strip(past: Past, times: TimeScale) -> tuple[Point, ...]:
    """What became of every call of `regraft retrain`; the gravest, where many fall together."""
    seen: dict[int, tuple[float, Attempt]] = {}
    for attempt in past.attempts:
        x = times.at(datetime.fromisoformat(attempt.ended))
        place = int(x / _STRIP)
        other = seen.get(place)
        if other is None or _rank(attempt) >= _rank(other[1]):
            seen[place] = x, attempt
    return tuple(
        Point(x, 0.0, one.outcome, f"{one.ended[:10]} {one.outcome}: {one.reason}")
        for x, one in seen.values()
    )


def _score(attempt: Attempt, version: int, accuracy: float) -> Score:
    moment = datetime.fromisoformat(attempt.ended)
    low, high = attempt.accuracy_low, attempt.accuracy_high
    return Score(moment, version, accuracy, low, high, attempt.n_test)


def _point(score: Score, times: TimeScale, scale: NumberScale, served: bool) -> Point:
    about = f"{score.moment:%Y-%m-%d} {told(score.version)}: {score.accuracy:.1%}"
    low, high = (None if v is None else scale.at(v) for v in (score.low, score.high))
    return Point(
        x=times.at(score.moment),
        y=scale.at(score.accuracy),
        tone="serves" if served else "kept",
        caption=f"{about} of {score.n_test} test photos",
        low=low,
        high=high,
        label=told(score.version) if served else "",
    )


def _labelled(points: list[Point]) -> Iterator[Point]:
    """The points with only such labels as do not cover each other; the last one always has its."""
    right = math.inf
    kept = []
    for point in reversed(points):
        fits = point.label and right - point.x >= _LABEL_GAP
        right = point.x if fits else right
        kept.append(point if fits else _unlabelled(point))
    yield from reversed(kept)


def _unlabelled(point: Point) -> Point:
    return Point(point.x, point.y, point.tone, point.caption, point.low, point.high)


def _champions(
    past: Past, measured: tuple[Score, ...], times: TimeScale, scale: NumberScale
) -> Iterator[tuple[float, float]]:
    """Steps: what served, as accurate as it was measured last before it began to serve."""
    height: float | None = None
    for event in past.events:
        if not event.moved:
            continue
        # The page of a training is dated after the entry in the ledger, by minutes.
        ours = [score for score in measured if score.version == event.champion]
        before = [score for score in ours if score.moment <= event.moment] or ours[:1]
        if not before:
            continue
        x, y = times.at(event.moment), scale.at(before[-1].accuracy)
        if height is not None:
            yield x, height
        yield x, y
        height = y
    if height is not None:
        yield times.at(times.last), height


def _look(look: Look, times: TimeScale, scale: NumberScale) -> Point:
    about = f"{look.moment:%Y-%m-%d}: {look.said}"
    tone = "drift" if look.drifted else "calm"
    if look.p_value is None:
        return Point(times.at(look.moment), BOTTOM + 9, f"{tone} own", about)
    return Point(
        times.at(look.moment), scale.at(math.log10(max(look.p_value, _LEAST_P))), tone, about
    )


def _digits(step: float) -> int:
    """Of a percentage."""
    return 0 if step >= 0.0099 else 1 if step >= 0.00099 else 2


def _rank(attempt: Attempt) -> int:
    return _RANKS.index(attempt.outcome)
