"""The same declaration as a schedule of ZenML's, where the active orchestrator can schedule.

ZenML is imported inside the functions, after state.activate().
"""

import re
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from regraft.core.errors import ScheduleError
from regraft.operations.schedule import Declaration, upcoming

_N_COMPARED = 500  # moments by which two cron expressions are seen to mean the same; guess
_DAYS = range(0, 400, 7)  # from each of which on it is looked again: clocks are set within a year
_N_EACH = 60  # moments looked at there; guess
_DAY_H = 24


def can_schedule() -> bool:
    """Whether the orchestrator of the active stack runs pipelines by itself when it is time."""
    from zenml.client import Client

    return bool(Client().active_stack.orchestrator.config.is_schedulable)


def hand_over(declaration: Declaration, pipeline: Callable[..., Any], *arguments: object) -> str:
    """Has the orchestrator run a pipeline when the declaration is due; the schedule's id.

    Args:
        pipeline: of ZenML. arguments: what it is called with, each time.

    Raises:
        ScheduleError: ZenML has a schedule of that name, the orchestrator cannot schedule, or the
            cron expression cannot be said in UTC.
    """
    from zenml.client import Client
    from zenml.config.schedule import Schedule

    orchestrator = Client().active_stack.orchestrator
    if not orchestrator.config.is_schedulable:
        raise ScheduleError(
            f"Expected an orchestrator that can schedule, got {orchestrator.name} "
            f"({orchestrator.flavor}). Activate another stack, or let `regraft schedule run` do it."
        )
    if _found(declaration.name):
        raise ScheduleError(
            f"Expected a new name, got {declaration.name!r}, which ZenML has a schedule of. Give "
            f"another with --name, or delete it: zenml pipeline schedule delete {declaration.name}"
        )
    schedule = Schedule(name=declaration.name, cron_expression=utc_cron(declaration))
    pipeline.with_options(schedule=schedule)(*arguments)  # type: ignore[attr-defined]
    return str(_found(declaration.name)[0].id)


def take_back(name: str) -> bool:
    """Deletes ZenML's schedule of that name, at the orchestrator too; whether there was one.

    An orchestrator that cannot delete schedules goes on; ZenML warns of it.
    """
    from zenml.client import Client

    found = _found(name)
    for schedule in found:
        Client().delete_schedule(schedule.id)
    return bool(found)


def utc_cron(declaration: Declaration) -> str:
    """The declaration's cron expression in UTC, which ZenML's schedules are in.

    Raises:
        ScheduleError: no one expression says it in UTC, as the zone's clocks are set twice a year,
            or the days would shift.
    """
    added = datetime.fromisoformat(declaration.added)
    ahead = added.astimezone(ZoneInfo(declaration.timezone)).utcoffset() or timedelta()
    cron = _shifted(declaration.cron, ahead)
    in_utc = Declaration(**{**vars(declaration), "cron": cron, "timezone": "UTC"})
    looks = [(added, _N_COMPARED), *((added + timedelta(days=day), _N_EACH) for day in _DAYS)]
    if any(upcoming(in_utc, *look) != upcoming(declaration, *look) for look in looks):
        raise ScheduleError(
            f"Expected a time that ZenML's schedules can say, which are in UTC, got "
            f"{declaration.cron!r} in {declaration.timezone}: no one cron expression in UTC says "
            "it all year. Declare it with --timezone UTC, or add --set keeper=here and let "
            "`regraft schedule run` keep the time."
        )
    return cron


def _shifted(cron: str, ahead: timedelta) -> str:
    """The expression with its hours as many earlier, and its weekdays where the day changes."""
    minute, hour, day, month, weekday = cron.split()
    n_hours, rest = divmod(int(ahead.total_seconds()), 3600)
    if rest or not re.fullmatch(r"\d+(,\d+)*", hour):
        return cron  # as it is, or not at all: the moments are compared
    hours = [int(each) - n_hours for each in hour.split(",")]
    days = {each // _DAY_H for each in hours}
    if len(days) == 1 and re.fullmatch(r"\d(,\d)*", weekday):
        moved = sorted((int(each) + min(days)) % 7 for each in weekday.split(","))
        weekday = ",".join(map(str, moved))
    shifted = ",".join(str(each % _DAY_H) for each in sorted(hours, key=lambda each: each % _DAY_H))
    return f"{minute} {shifted} {day} {month} {weekday}"


def _found(name: str) -> list[Any]:
    from zenml.client import Client

    return list(Client().list_schedules(name=name, is_archived=False).items)
