"""The service: starts every entry when it is due, until it is stopped.

The service compares the next fire time of each entry with the clock, once per tick. Missed runs
follow from the time until which all is handled, which each record holds.
"""

import logging
import os
import socket
import time
from collections.abc import Callable
from datetime import datetime
from threading import Thread

import psutil

from regraft.core.errors import ScheduleError
from regraft.core.state import State, exclusive_lock
from regraft.operations.schedule.entry import ScheduleEntry, latest_due, next_fire_times
from regraft.operations.schedule.heartbeat import Heartbeat, ServiceStatus, write_heartbeat
from regraft.operations.schedule.runs import OVERLAP, Clock, Runs, ServiceSettings
from regraft.operations.schedule.store import (
    list_entries,
    load_entry,
    load_record,
    names,
    next_due,
    signature,
)

logger = logging.getLogger("regraft.schedule")
Stop = Callable[[], bool]
_CLOCK_JUMP_S = 60.0  # guess: regular clock corrections are smaller


def serve(state: State, settings: ServiceSettings, clock: Clock, stop: Stop) -> None:
    """Run the entries of a state folder until `stop` returns True, then end the active runs.

    Args:
        clock: returns the current time, in UTC.
        stop: called every settings.tick_s seconds.

    Raises:
        AlreadyRunning: another service runs in this state folder.
        ScheduleError: an entry is invalid when the service starts.
    """
    with exclusive_lock(state, "run the schedule", clock()):
        _Service(state, settings, clock).run(stop)


class _Service:
    """The entries as last read, their next fire times, and a thread per active run."""

    def __init__(self, state: State, settings: ServiceSettings, clock: Clock) -> None:
        self._state, self._settings, self._clock = state, settings, clock
        self._since = clock().isoformat()
        self._signature: object = None
        self._entries: dict[str, ScheduleEntry] = {}
        self._next: dict[str, datetime | None] = {}
        self._threads: dict[str, Thread] = {}
        self._runs = Runs(state, settings, clock)

    def run(self, stop: Stop) -> None:
        """Serve until `stop` returns True."""
        self._runs.adopt_runs([entry.name for entry in list_entries(self._state)])
        self._read_entries()
        logger.info("The schedule of %s is running, process %d", self._state.root, os.getpid())
        offset_s, last_beat = self._clock_offset_s(), -self._settings.beat_s
        while not stop():
            self._tick(self._clock_offset_s() - offset_s)
            offset_s = self._clock_offset_s()
            if time.monotonic() - last_beat >= self._settings.beat_s:
                self._write_heartbeat("running")
                last_beat = time.monotonic()
            time.sleep(self._settings.tick_s)
        self._runs.stop()
        for thread in self._threads.values():
            thread.join()
        self._write_heartbeat("stopped")
        logger.info("The schedule has stopped")

    def _clock_offset_s(self) -> float:
        """Return the clock minus the monotonic time; the value changes when the clock is set."""
        return self._clock().timestamp() - time.monotonic()

    def _tick(self, jump_s: float) -> None:
        try:
            ended = self._runs.find_ended(self._entries)
            self._schedule([self._entries[name] for name in ended if name in self._entries])
            self._read_entries()
            if jump_s < -_CLOCK_JUMP_S:  # otherwise runs would wait for times of the wrong clock
                self._schedule(list(self._entries.values()))
        except (OSError, ScheduleError) as error:  # continue with the entries that were read before
            logger.warning("%s: %s", type(error).__name__, error)
        for entry in list(self._entries.values()):
            try:
                self._start_if_due(entry, self._clock())
            except (OSError, ScheduleError) as error:
                logger.error("%s: %s", entry.name, error)

    def _start_if_due(self, entry: ScheduleEntry, now: datetime) -> None:
        """Start at most one run for all fire times that have passed."""
        when = self._next[entry.name]
        if when is None or when > now:
            return
        self._next[entry.name] = next(iter(next_fire_times(entry, now, 1)), None)
        late_s = (now - (latest_due(entry, when, now) or when)).total_seconds()
        previous = self._threads.get(entry.name)
        if previous and previous.is_alive():
            self._runs.record_not_started(entry, OVERLAP)
        elif entry.missed == "skip" and late_s > entry.grace_s:
            self._runs.record_not_started(entry, "its time was missed")
        else:
            thread = Thread(target=self._run, args=(entry,), name=f"run {entry.name}")
            self._threads[entry.name] = thread
            thread.start()

    def _run(self, entry: ScheduleEntry) -> None:
        try:
            self._runs.run(entry)
        except (OSError, ScheduleError) as error:  # a full disk, or a broken record
            logger.error("%s: %s", entry.name, error)

    def _read_entries(self) -> None:
        current = signature(self._state)
        if current == self._signature:
            return
        self._signature = current  # first, so that an invalid file is logged once
        entries = self._load_entries()
        for name in self._entries.keys() - entries.keys():
            del self._entries[name], self._next[name]
            logger.info("%s: removed from the schedule", name)
        self._schedule(
            [entry for name, entry in entries.items() if self._entries.get(name) != entry]
        )

    def _load_entries(self) -> dict[str, ScheduleEntry]:
        """Return the entries of this service; for an invalid file, the entry as read before."""
        entries = {}
        for name in names(self._state):
            try:
                entry = load_entry(self._state, name)
            except ScheduleError as error:
                logger.warning("%s: %s", name, error)
                entry = self._entries.get(name)
            if entry and entry.backend == "local":
                entries[name] = entry
        return entries

    def _schedule(self, entries: list[ScheduleEntry]) -> None:
        """Compute the next fire time of each entry; an invalid entry does not affect the others."""
        for entry in entries:
            try:
                when = self._runs.due(entry)
            except ScheduleError as error:
                logger.warning("%s: %s", entry.name, error)
                continue
            self._entries[entry.name], self._next[entry.name] = entry, when
            logger.info("%s: next %s", entry.name, when.isoformat() if when else "never")

    def _write_heartbeat(self, status: ServiceStatus) -> None:
        now = self._clock()
        try:
            times = [
                (entry.name, next_due(entry, load_record(self._state, entry.name), now))
                for entry in self._entries.values()
            ]
            runs = sorted((when.isoformat(), name) for name, when in times if when)
            heartbeat = Heartbeat(
                time=now.isoformat(),
                since=self._since,
                pid=os.getpid(),
                host=socket.gethostname(),
                status=status,
                next_runs=tuple((name, when) for when, name in runs),
                running=self._runs.names,
                created=psutil.Process().create_time(),
            )
            write_heartbeat(self._state, heartbeat)
        except (OSError, ScheduleError) as error:  # a full disk must not end the service
            logger.warning("%s: %s", type(error).__name__, error)
