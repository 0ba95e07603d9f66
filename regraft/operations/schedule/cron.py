"""The moments that a cron expression means on the clocks of a time zone.

APScheduler's CronTrigger reads the fields and knows the calendar. Three things it does otherwise
than cron are put right here, each seen in version 3.11: it counts Monday as 0, it asks for day of
month AND weekday where both are given, and where clocks are set back it fires in both of the two
hours that have one name.
"""

import heapq
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from functools import lru_cache
from zoneinfo import ZoneInfo, available_timezones

from apscheduler.triggers.cron import CronTrigger

from regraft.core.errors import ScheduleError

FIELDS = ("minute", "hour", "day of month", "month", "weekday")
_WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat", "sun")  # as cron counts, 0 to 7
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_NUMBER = r"\d{1,2}"
_PART = r"(?:\*|(?P<first>{0})(?:-(?P<last>{0}))?)(?:/(?P<step>\d{{1,2}}))?"
_SECOND = timedelta(seconds=1)
_MOST = timedelta(hours=2)  # guess: by which clocks are ever set forward or back
_WINDOWS = tuple(timedelta(hours=hours) for hours in (2, 24, 24 * 32, 24 * 366 * 8))


def zone_of(name: str) -> ZoneInfo:
    """The time zone of that name in the IANA database.

    Raises:
        ScheduleError: there is none of that name.
    """
    known = available_timezones()
    if name in known:
        return ZoneInfo(name)
    lower = {each.lower(): each for each in known}
    cities = {each.rpartition("/")[2].lower(): each for each in sorted(known, reverse=True)}
    words = lower | {city: each for city, each in cities.items() if city not in lower}
    close = get_close_matches(name.lower(), words, n=3, cutoff=0.6)
    hint = f" Did you mean {' or '.join(dict.fromkeys(words[word] for word in close))}?"
    raise ScheduleError(
        f"Expected the name of a time zone such as Europe/Berlin or UTC, got {name!r}."
        f"{hint if close else ''}"
    )


def check_cron(cron: str, after: datetime) -> None:
    """Nothing, if the expression can be read and ever comes.

    Raises:
        ScheduleError: otherwise.
    """
    if next(moments(cron, "UTC", after), None) is None:
        raise ScheduleError(
            f"Expected a cron expression whose time comes, got {cron!r}: there is no such day."
        )


def moments(cron: str, timezone: str, after: datetime) -> Iterator[datetime]:
    """Every moment that is meant after `after`, in order, UTC.

    A time that the zone's clocks skip is a moment all the same, that much later: 2:30 is 3:30 on
    the day when 2:00 becomes 3:00. A time that they show twice is the first of the two. Only an
    expression for every hour ("*") goes by what the clocks show: not the one, and twice the other.

    Args:
        cron: minute, hour, day of month, month, weekday (0 or 7 = Sunday, or names).
        timezone: IANA name.
        after: with a zone.

    Raises:
        ScheduleError: the expression cannot be read, or there is no such zone.
    """
    triggers, every_hour = _read(cron)
    zone = zone_of(timezone)
    coming: list[datetime] = []
    last = after.astimezone(UTC)
    for wall in _walls(triggers, last.astimezone(zone).replace(tzinfo=None) - _MOST):
        settled = wall.replace(tzinfo=zone).astimezone(UTC) - _MOST
        while coming and coming[0] < settled:
            moment = heapq.heappop(coming)
            if moment > last:
                last = moment
                yield moment
        for moment in _moments_of(wall, zone, every_hour):
            heapq.heappush(coming, moment)


def last_moment(cron: str, timezone: str, after: datetime, until: datetime) -> datetime | None:
    """The latest moment that is meant in (after, until], None if there is none.

    Raises:
        ScheduleError: as moments().
    """
    for window in _WINDOWS:  # else all the minutes of a year would be counted
        latest = None
        for moment in moments(cron, timezone, max(after, until - window)):
            if moment > until:
                break
            latest = moment
        if latest or until - window <= after:
            return latest
    return None


def _moments_of(wall: datetime, zone: ZoneInfo, every_hour: bool) -> tuple[datetime, ...]:
    """When the zone's clocks show it; where they skip it, when they would have."""
    first, second = (wall.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1))
    if first == second or not every_hour:
        return (first,)
    return (first, second) if first < second else ()


def _walls(triggers: tuple[CronTrigger, ...], start: datetime) -> Iterator[datetime]:
    """What a clock shows, from `start` on; neither has a zone, or clocks that are set."""
    moment = start.replace(tzinfo=UTC)
    while found := [
        time for each in triggers if (time := each.get_next_fire_time(None, moment)) is not None
    ]:
        wall = min(found)
        yield wall.replace(tzinfo=None)
        moment = wall + _SECOND


@lru_cache(maxsize=64)
def _read(cron: str) -> tuple[tuple[CronTrigger, ...], bool]:
    """The triggers of which any is meant, and whether every hour is."""
    fields = cron.lower().split()
    if len(fields) != len(FIELDS):
        raise ScheduleError(
            f"Expected a cron expression of five fields ({', '.join(FIELDS)}), such as "
            f'"0 3 * * 1", got {cron!r} with {len(fields)}.'
        )
    for name, field in zip(FIELDS, fields, strict=True):
        _check_field(name, field, cron)
    minute, hour, day, month, weekday = fields
    weekdays = _named_weekdays(weekday, cron)
    # As cron has it: a field that begins with a star leaves the choice of days to the other.
    both = not day.startswith("*") and not weekday.startswith("*")
    wanted = ((day, "*"), ("*", weekdays)) if both else ((day, weekdays),)
    try:
        triggers = tuple(
            CronTrigger(
                minute=minute, hour=hour, day=each, month=month, day_of_week=of_week, timezone=UTC
            )
            for each, of_week in wanted
        )
    except ValueError as error:
        raise ScheduleError(
            f'Expected a cron expression such as "0 3 * * 1", got {cron!r}: {error}.'
        ) from None
    return triggers, hour == "*"


def _check_field(name: str, field: str, cron: str) -> None:
    """Says which field cannot be read; APScheduler would take some that mean nothing."""
    names = {"month": _MONTHS, "weekday": _WEEKDAYS}.get(name, ())
    word = re.compile(_PART.format("|".join((_NUMBER, *names))))
    for part in field.split(","):
        if not word.fullmatch(part):
            raise ScheduleError(
                f"Expected numbers, *, -, / or , in the {name} of a cron expression"
                f"{f' or names such as {names[1]}' if names else ''}, got {part!r} in {cron!r}."
            )


def _named_weekdays(field: str, cron: str) -> str:
    """Cron's weekdays as names, because APScheduler counts from Monday.

    >>> _named_weekdays("1-5", ""), _named_weekdays("fri-sun", ""), _named_weekdays("*/3", "")
    ('mon,tue,wed,thu,fri', 'sun,fri,sat', 'sun,wed,sat')
    """
    if field == "*":
        return field
    days: set[int] = set()
    for part in field.split(","):
        match = re.fullmatch(_PART.format(r"\w+"), part)
        first, last, step = match.group("first", "last", "step") if match else (None, None, None)
        low = _weekday(first) if first else 0
        high = (_weekday(last) or 7) if last else low if first and not step else 6
        if not low <= high <= 7 or step == "0":
            raise ScheduleError(
                f"Expected weekdays from 0 (Sunday) to 7 (Sunday), the smaller first, got {part!r} "
                f"in {cron!r}."
            )
        days.update(day % 7 for day in range(low, high + 1, int(step or 1)))
    return ",".join(_WEEKDAYS[day] for day in sorted(days))


def _weekday(word: str) -> int:
    return int(word) if word.isdigit() else _WEEKDAYS.index(word)
