"""Fire times of a cron expression in a time zone, computed by cronsim.

Times at clock changes are those of Debian's cron, which cronsim imitates (seen in version 2.8):

- Minute and hour both begin with something else than `*`, such as `30 2 * * *`: a local time that
  the clocks skip fires once, at the first local time after the gap (2:30 fires at 3:00 where 2:00
  becomes 3:00). A local time that occurs twice fires once, the first time.
- Minute or hour begins with `*`, such as `*/30 2 * * *` or `0 * * * *`: the expression follows the
  clock. A skipped time does not fire, and a doubled time fires twice.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from functools import cache
from zoneinfo import ZoneInfo, available_timezones

from cronsim import CronSim, CronSimError

from regraft.core.errors import ScheduleError

_ALLOWED = {
    "minute": "0 to 59",
    "hour": "0 to 23",
    "day of month": "1 to 31, or L for the last day",
    "month": "1 to 12, or names from jan to dec",
    "weekday": "0 to 7 (0 and 7 are Sunday), or names from sun to sat",
}
_MAX_CLOCK_CHANGE = timedelta(hours=3)  # guess: no zone sets its clocks back by more


def zone_of(name: str) -> ZoneInfo:
    """Return the time zone of the IANA database with this name.

    Raises:
        ScheduleError: the name is unknown; the message suggests similar names.
    """
    zones = _zone_names()
    if name in zones:
        return ZoneInfo(name)
    by_name = {zone.lower(): zone for zone in zones}
    by_city = {zone.rpartition("/")[2].lower(): zone for zone in sorted(zones, reverse=True)}
    candidates = by_city | by_name
    close = get_close_matches(name.lower(), candidates, n=3, cutoff=0.6)
    hint = f" Did you mean {' or '.join(dict.fromkeys(candidates[word] for word in close))}?"
    raise ScheduleError(
        f"Expected the name of a time zone such as Europe/Berlin or UTC, got {name!r}."
        f"{hint if close else ''}"
    )


@cache
def _zone_names() -> frozenset[str]:
    return frozenset(available_timezones())  # reads several hundred files


def check_cron(cron: str, after: datetime) -> None:
    """Raise an error if the expression is invalid or never fires after `after`.

    Raises:
        ScheduleError: the message names the field and the part that is wrong.
    """
    if next(fire_times(cron, "UTC", after), None) is None:
        raise _no_such_day(cron)


def fire_times(cron: str, timezone: str, after: datetime) -> Iterator[datetime]:
    """Yield every fire time later than `after`, in order, in UTC.

    See the module's docstring for clock changes. The iterator ends where no date matches within
    50 years.

    Args:
        cron: minute, hour, day of month, month, weekday (0 or 7 = Sunday, or names).
        timezone: IANA name.
        after: with a time zone.

    Raises:
        ScheduleError: the expression is invalid, or the time zone is unknown.
    """
    latest = after.astimezone(UTC)
    # cronsim ignores which of two equal local times it starts at, and may begin before `after`.
    for local in _simulate(cron, after.astimezone(zone_of(timezone))):
        moment = local.astimezone(UTC)
        if moment > latest:
            latest = moment
            yield moment


def last_fire_time(cron: str, timezone: str, after: datetime, until: datetime) -> datetime | None:
    """Return the latest fire time in (after, until], None if there is none.

    Raises:
        ScheduleError: see fire_times().
    """
    start = (until + _MAX_CLOCK_CHANGE).astimezone(zone_of(timezone))
    for local in _simulate(cron, start, reverse=True):
        moment = local.astimezone(UTC)
        if moment <= until:
            return moment if moment > after else None
    return None


def _simulate(cron: str, start: datetime, reverse: bool = False) -> CronSim:
    fields = cron.lower().split()
    if len(fields) != len(_ALLOWED):
        raise ScheduleError(
            f"Expected a cron expression of five fields ({', '.join(_ALLOWED)}), such as "
            f'"0 3 * * 1", got {cron!r} with {len(fields)}.'
        )
    fields[4] = fields[4].replace("-sun", "-7")  # cronsim counts Sunday as 0, so sat-sun is empty
    for position, (name, allowed) in enumerate(_ALLOWED.items()):
        for part in fields[position].split(","):
            alone = ["*"] * len(fields)
            alone[position] = part
            try:
                CronSim(" ".join(alone), start)
            except CronSimError:
                raise ScheduleError(
                    f"Expected {allowed} with *, -, / or , in the {name} of a cron expression, "
                    f"the smaller number first, got {part!r} in {cron!r}."
                ) from None
    try:
        return CronSim(" ".join(fields), start, reverse)
    except CronSimError:  # each field is valid, but no month has this day
        raise _no_such_day(cron) from None


def _no_such_day(cron: str) -> ScheduleError:
    return ScheduleError(
        f"Expected a cron expression that fires on some day, got {cron!r}: no such day exists."
    )
