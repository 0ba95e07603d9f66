"""The service: it runs what is declared when it is due, for months, until it is told to stop.

APScheduler keeps the time, in a memory of its own that is filled from our files. What was missed
is seen from the time that was dealt with last, which each record holds.
"""

import logging
import os
import socket
import time
from collections.abc import Callable
from datetime import UTC

from apscheduler.events import EVENT_JOB_ERROR, EVENT_JOB_MAX_INSTANCES, EVENT_JOB_MISSED, JobEvent
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler

from regraft.core.errors import ScheduleError
from regraft.core.state import State, alone
from regraft.operations.schedule.declaration import Declaration
from regraft.operations.schedule.heartbeat import Doing, Heartbeat, beat
from regraft.operations.schedule.kept import (
    declarations,
    declared,
    names,
    next_due,
    record_of,
    signature,
)
from regraft.operations.schedule.runs import Clock, Runs, ServiceSettings
from regraft.operations.schedule.trigger import Due

logger = logging.getLogger("regraft.schedule")
Stop = Callable[[], bool]
_N_AT_ONCE = 100  # declarations that may run at a time; guess: more than anybody has
_JUMP_S = 60.0  # guess: clocks that are corrected move by less
_LEFT_OUT = {
    EVENT_JOB_MISSED: "its time was missed",
    EVENT_JOB_MAX_INSTANCES: "the run before it still went on",
}


def serve(state: State, settings: ServiceSettings, clock: Clock, stop: Stop) -> None:
    """Runs what is declared in the state folder until it is to stop, then ends what runs.

    Args:
        clock: the time now, UTC; that of the machine, which APScheduler goes by.
        stop: whether it is to, asked every settings.tick_s.

    Raises:
        AlreadyRuns: another service does it.
        ScheduleError: a declaration cannot be read when the service begins.
    """
    with alone(state, "run the schedule", clock()):
        _Service(state, settings, clock).run(stop)


class _Service:
    """The declarations as they were read last, and who keeps their time."""

    def __init__(self, state: State, settings: ServiceSettings, clock: Clock) -> None:
        self._state, self._settings, self._clock = state, settings, clock
        self._since = clock().isoformat()
        self._declared: dict[str, Declaration] = {}
        self._signature: object = None
        self._runs = Runs(state, settings, clock)
        logging.getLogger("apscheduler").setLevel(logging.CRITICAL)  # we say it in our words
        self._scheduler = BackgroundScheduler(
            timezone=UTC, executors={"default": ThreadPoolExecutor(_N_AT_ONCE)}
        )
        told = EVENT_JOB_MISSED | EVENT_JOB_MAX_INSTANCES | EVENT_JOB_ERROR
        self._scheduler.add_listener(self._note, told)

    def run(self, stop: Stop) -> None:
        """Until it is to stop."""
        self._runs.look_after([each.name for each in declarations(self._state)])
        self._read_declarations()
        self._scheduler.start()
        logger.info("The schedule of %s runs, process %d", self._state.root, os.getpid())
        ahead, beaten = self._ahead_s(), -self._settings.beat_s
        while not stop():
            self._tick(self._ahead_s() - ahead)
            ahead = self._ahead_s()
            if time.monotonic() - beaten >= self._settings.beat_s:
                self._beat("running")
                beaten = time.monotonic()
            time.sleep(self._settings.tick_s)
        self._runs.stop()
        self._scheduler.shutdown()
        self._beat("stopped")
        logger.info("The schedule has stopped")

    def _ahead_s(self) -> float:
        """By how much the clock is ahead of the time that has passed, whoever set it."""
        return self._clock().timestamp() - time.monotonic()

    def _tick(self, jumped_s: float) -> None:
        try:
            ended = self._runs.find_ended(self._declared)
            self._fill([self._declared[name] for name in ended if name in self._declared])
            self._read_declarations()
            if jumped_s < -_JUMP_S:  # else it would wait for times of a clock that was wrong
                self._fill(list(self._declared.values()))
        except (OSError, ScheduleError) as error:  # what was read before goes on
            logger.warning("%s: %s", type(error).__name__, error)
        # The scheduler waits by a clock that stands still while the machine sleeps.
        self._scheduler.wakeup()

    def _read_declarations(self) -> None:
        sign = signature(self._state)
        if sign == self._signature:
            return
        self._signature = sign  # first: one that cannot be read is told once
        found = self._found()
        for name in self._declared.keys() - found.keys():
            if self._scheduler.get_job(name):  # one that is never due again has none
                self._scheduler.remove_job(name)
            del self._declared[name]
            logger.info("%s: not declared any more", name)
        self._fill([each for name, each in found.items() if self._declared.get(name) != each])

    def _found(self) -> dict[str, Declaration]:
        """What is to be run here; of a file that cannot be read, what it said before."""
        found = {}
        for name in names(self._state):
            try:
                each = declared(self._state, name)
            except ScheduleError as error:
                logger.warning("%s: %s", name, error)
                each = self._declared.get(name)
            if each and each.keeper == "here":
                found[name] = each
        return found

    def _fill(self, changed: list[Declaration]) -> None:
        """Has each kept to its times; one that has none that can be read stops no other."""
        for each in changed:
            try:
                when = self._runs.due(each)
            except ScheduleError as error:
                logger.warning("%s: %s", each.name, error)
                continue
            self._declared[each.name] = each
            self._scheduler.add_job(
                self._runs.run,
                Due(each),
                args=(each,),
                id=each.name,
                next_run_time=when,
                misfire_grace_time=None if each.missed == "run-once" else each.grace_s,
                coalesce=True,
                max_instances=1,
                replace_existing=True,
            )
            logger.info("%s: next %s", each.name, when.isoformat() if when else "never")

    def _note(self, event: JobEvent) -> None:
        """What APScheduler did not begin, or what broke in beginning it."""
        declaration = self._declared.get(event.job_id)
        if event.code == EVENT_JOB_ERROR:
            logger.error("%s: %r", event.job_id, event.exception)
        elif declaration:
            self._runs.leave_out(declaration, _LEFT_OUT[event.code])

    def _beat(self, doing: Doing) -> None:
        now = self._clock()
        try:
            times = (
                (each.name, next_due(each, record_of(self._state, each.name), now))
                for each in self._declared.values()
            )
            soonest = sorted((when.isoformat(), name) for name, when in times if when)
            next_runs = tuple((name, when) for when, name in soonest)
            said = (now.isoformat(), self._since, os.getpid(), socket.gethostname())
            beat(self._state, Heartbeat(*said, doing, next_runs, self._runs.names))
        except (OSError, ScheduleError) as error:  # a full disk is no reason to end
            logger.warning("%s: %s", type(error).__name__, error)
