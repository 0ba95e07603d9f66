"""APScheduler's question, when is it due next, answered by a declaration."""

from datetime import datetime

from apscheduler.triggers.base import BaseTrigger

from regraft.operations.schedule.declaration import Declaration, latest_due, upcoming


class Due(BaseTrigger):  # type: ignore[misc]  # APScheduler has no types
    """Fires when the declaration is due, and once for all the times that have passed."""

    def __init__(self, declaration: Declaration) -> None:
        self.declaration = declaration

    def get_next_fire_time(self, previous: datetime | None, now: datetime) -> datetime | None:
        """The next time after `previous`, or the latest one until `now` if that has passed too.

        APScheduler walks through every time that was missed to find the last one: for each minute
        of a month that takes it minutes.
        """
        after = previous or now
        following = next(iter(upcoming(self.declaration, after, 1)), None)
        if following is None or following > now:
            return following
        return latest_due(self.declaration, following, now) or following
