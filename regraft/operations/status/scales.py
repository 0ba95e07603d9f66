"""Where a time and a number stand in a drawing of 360 by 230, and what is written at its edges."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

LEFT, RIGHT, TOP, BOTTOM = 44.0, 348.0, 12.0, 178.0
_MAX_TICKS = 6
_STEPS = (1, 2, 5, 10)  # of a scale, times a power of ten


@dataclass(frozen=True)
class Tick:
    """A mark at an edge. at: pixels."""

    at: float
    label: str


@dataclass(frozen=True)
class TimeScale:
    """From the first moment to the last one, left to right; they differ."""

    first: datetime
    last: datetime

    def at(self, moment: datetime) -> float:
        """Pixels from the left."""
        share = (moment - self.first) / (self.last - self.first)
        return LEFT + min(1.0, max(0.0, share)) * (RIGHT - LEFT)

    @property
    def ticks(self) -> tuple[Tick, ...]:
        """Hours, days or months, at most six."""
        marks = [mark for mark in _marks(self.first, self.last) if self.first <= mark <= self.last]
        every = math.ceil(len(marks) / _MAX_TICKS) or 1
        form = _form(self.last - self.first)
        return tuple(Tick(self.at(mark), _written(mark, form)) for mark in marks[::every])


@dataclass(frozen=True)
class NumberScale:
    """From low to high, bottom to top; they differ. step: between two ticks."""

    low: float
    high: float
    step: float

    def at(self, value: float) -> float:
        """Pixels from the top."""
        share = (value - self.low) / (self.high - self.low)
        return BOTTOM - min(1.0, max(0.0, share)) * (BOTTOM - TOP)

    @property
    def values(self) -> tuple[float, ...]:
        """What is written at the edge."""
        n = round((self.high - self.low) / self.step)
        return tuple(self.low + number * self.step for number in range(n + 1))


def time_scale(moments: list[datetime], now: datetime) -> TimeScale:
    """From the first moment until now, a day at least."""
    first = min([*moments, now - timedelta(days=1)])
    return TimeScale(first.astimezone(UTC), now.astimezone(UTC))


def number_scale(values: list[float], top: float = math.inf) -> NumberScale:
    """Round numbers around the values, three to six of them.

    >>> number_scale([0.84, 0.93]).values[0]
    0.8

    Args:
        values: at least one.
        top: no number above it is shown.
    """
    low, high = min(values), max(values)
    span = (high - low) or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(span / 4))
    step = next(s * power for s in _STEPS if s * power >= span / 4)
    bottom = math.floor(low / step + 1e-9) * step
    upper = min(top, math.ceil(high / step - 1e-9) * step)
    return NumberScale(bottom, max(upper, bottom + step), step)


def _marks(first: datetime, last: datetime) -> Iterator[datetime]:
    """The beginnings of hours, days or months."""
    span = last - first
    if span > timedelta(days=75):
        month = first.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        while month <= last:
            yield month
            month = (month + timedelta(days=32)).replace(day=1)
        return
    step = timedelta(days=1) if span > timedelta(days=3) else timedelta(hours=6)
    mark = first.replace(hour=0, minute=0, second=0, microsecond=0)
    while mark <= last:
        yield mark
        mark += step


def _form(span: timedelta) -> str:
    if span > timedelta(days=75):
        return "month"
    return "day" if span > timedelta(days=3) else "hour"


def _written(mark: datetime, form: str) -> str:
    if form == "month":
        return f"{mark:%Y}" if mark.month == 1 else f"{mark:%b}"
    return f"{mark.day} {mark:%b}" if form == "day" or not mark.hour else f"{mark:%H:%M}"
