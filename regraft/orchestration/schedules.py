"""Schedule entries as ZenML schedules, where the active orchestrator can schedule.

ZenML is imported inside the functions, after state.activate().
"""

import re
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from regraft.core.config import Config
from regraft.core.errors import ScheduleError
from regraft.core.state import State, activate
from regraft.operations.schedule import ScheduleEntry, next_fire_times, refuse_addresses

_N_COMPARED = 500  # fire times compared from the entry's start on; guess
_DAYS = range(0, 400, 7)  # further days to compare from; clocks are set within a year
_N_EACH = 60  # fire times compared from each of these days on; guess
_DAY_H = 24


class ZenScheduler:
    """Schedules on the orchestrator of a state folder; see workflows.schedule.Scheduler.

    Each method points ZenML at the folder first, so that a command that needs none imports none.

    Args:
        find_dag: returns a pipeline of ZenML by its name.
    """

    def __init__(self, state: State, find_dag: Callable[[str], Callable[..., Any]]) -> None:
        self._state = state
        self._find_dag = find_dag

    def can_schedule(self) -> bool:
        """Return whether the active orchestrator can schedule."""
        activate(self._state)
        return can_schedule()

    def hand_over(self, entry: ScheduleEntry, dag: str, config: Config) -> None:
        """Let the orchestrator run the pipeline of this name at the entry's times."""
        activate(self._state)
        hand_over(entry, self._find_dag(dag), config)

    def take_back(self, name: str) -> None:
        """Delete the orchestrator's schedule of this name, if there is one."""
        activate(self._state)
        take_back(name)


def can_schedule() -> bool:
    """Return whether the orchestrator of the active stack can run pipelines on a schedule."""
    from zenml.client import Client

    return bool(Client().active_stack.orchestrator.config.is_schedulable)


def hand_over(entry: ScheduleEntry, pipeline: Callable[..., Any], *arguments: object) -> str:
    """Create a ZenML schedule for a pipeline and return its id.

    Args:
        pipeline: of ZenML.
        arguments: of the pipeline, the same for each run. ZenML stores them.

    Raises:
        ScheduleError: a notification target would be stored with its address, ZenML has a schedule
            of this name, the orchestrator cannot schedule, or the cron expression has no
            equivalent in UTC.
    """
    from zenml.client import Client
    from zenml.config.schedule import Schedule

    for argument in arguments:
        if isinstance(argument, Config):
            refuse_addresses(argument.notify)
    orchestrator = Client().active_stack.orchestrator
    if not orchestrator.config.is_schedulable:
        raise ScheduleError(
            f"Expected an orchestrator that can schedule, got {orchestrator.name} "
            f"({orchestrator.flavor}). Activate another stack, or use `regraft schedule run`."
        )
    if _find_schedules(entry.name):
        raise ScheduleError(
            f"Expected a new name, got {entry.name!r}, which ZenML has a schedule of. Set another "
            f"name with --name, or delete it: zenml pipeline schedule delete {entry.name}"
        )
    schedule = Schedule(name=entry.name, cron_expression=utc_cron(entry))
    pipeline.with_options(schedule=schedule)(*arguments)  # type: ignore[attr-defined]
    return str(_find_schedules(entry.name)[0].id)


def take_back(name: str) -> bool:
    """Delete ZenML's schedule of this name; return whether it existed.

    An orchestrator that cannot delete schedules keeps running it; ZenML logs a warning.
    """
    from zenml.client import Client

    schedules = _find_schedules(name)
    for schedule in schedules:
        Client().delete_schedule(schedule.id)
    return bool(schedules)


def utc_cron(entry: ScheduleEntry) -> str:
    """Return the entry's cron expression in UTC, the time zone of ZenML's schedules.

    Raises:
        ScheduleError: no single expression in UTC has the same fire times, because the zone's
            clocks are set twice a year, or because the days would shift.
    """
    added = datetime.fromisoformat(entry.added)
    ahead = added.astimezone(ZoneInfo(entry.timezone)).utcoffset() or timedelta()
    cron = _shifted(entry.cron, ahead)
    in_utc = ScheduleEntry(**{**vars(entry), "cron": cron, "timezone": "UTC"})
    ranges = [(added, _N_COMPARED), *((added + timedelta(days=day), _N_EACH) for day in _DAYS)]
    if any(next_fire_times(in_utc, *each) != next_fire_times(entry, *each) for each in ranges):
        raise ScheduleError(
            f"Expected a cron expression that can be converted to UTC, which ZenML's schedules "
            f"use, got {entry.cron!r} in {entry.timezone}: no single expression in UTC "
            "has the same times all year. Add the entry with --timezone UTC, or with "
            "--set backend=local and let `regraft schedule run` start it."
        )
    return cron


def _shifted(cron: str, ahead: timedelta) -> str:
    """Return the expression with its hours shifted, and its weekdays where the day changes."""
    minute, hour, day, month, weekday = cron.split()
    n_hours, rest = divmod(int(ahead.total_seconds()), 3600)
    if rest or not re.fullmatch(r"\d+(,\d+)*", hour):
        return cron  # unchanged; the caller compares the fire times
    hours = [int(each) - n_hours for each in hour.split(",")]
    days = {each // _DAY_H for each in hours}
    if len(days) == 1 and re.fullmatch(r"\d(,\d)*", weekday):
        moved = sorted((int(each) + min(days)) % 7 for each in weekday.split(","))
        weekday = ",".join(map(str, moved))
    shifted = ",".join(str(each % _DAY_H) for each in sorted(hours, key=lambda each: each % _DAY_H))
    return f"{minute} {shifted} {day} {month} {weekday}"


def _find_schedules(name: str) -> list[Any]:
    from zenml.client import Client

    return list(Client().list_schedules(name=name, is_archived=False).items)
