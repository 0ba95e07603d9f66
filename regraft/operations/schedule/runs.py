"""The runs of the service: start them, end them, and record each outcome."""

import logging
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from threading import Lock, Thread

from regraft.core.errors import AlreadyRunning, DriftFound, NothingToDo
from regraft.core.outcomes import ScheduledOutcome
from regraft.core.state import RunMarker, State, make_marker
from regraft.operations.schedule.child import (
    Process,
    is_alive,
    log_path,
    start_process,
    terminate_all,
)
from regraft.operations.schedule.entry import ScheduleEntry
from regraft.operations.schedule.heartbeat import BEAT_S
from regraft.operations.schedule.store import (
    Record,
    due,
    handled_until,
    has_entry,
    load_record,
    was_due,
    write_record,
)

logger = logging.getLogger("regraft.schedule")
Clock = Callable[[], datetime]
STOP_S = 30.0  # guess: a training saves its state after each epoch
OVERLAP = "the previous run was still active"


@dataclass(frozen=True)
class ServiceSettings:
    """Settings of the service.

    program: the command of an entry is appended to this command line.
    tick_s: seconds between two checks of the files and the clock; a run starts at most this late.
        Default: guess.
    beat_s: seconds between two heartbeats.
    stop_s: seconds that a run has to end by itself after an interrupt.
    on_run_end: called after the outcome of a run was recorded, from any thread; must not raise.
    """

    program: tuple[str, ...]
    tick_s: float = 1.0
    beat_s: float = BEAT_S
    stop_s: float = STOP_S
    on_run_end: Callable[[], None] = lambda: None


@dataclass
class _Adopted:
    """A run that an earlier service left active. started: in the time of time.monotonic()."""

    marker: RunMarker
    started: float
    is_late: bool = False


class Runs:
    """The processes of the service: its own, and those that an earlier service left active."""

    def __init__(self, state: State, settings: ServiceSettings, clock: Clock) -> None:
        self._state, self._settings, self._clock = state, settings, clock
        self._lock = Lock()  # guards the records and the three attributes below
        self._own: dict[str, subprocess.Popen[bytes]] = {}
        self._adopted: dict[str, _Adopted] = {}
        self._is_stopping = False

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of the entries that run now."""
        with self._lock:
            return tuple(sorted({*self._own, *self._adopted}))

    def run(self, entry: ScheduleEntry) -> None:
        """Run the entry and wait until it ends; do nothing while its previous run is active."""
        process = self._start(entry)
        if process is None:
            return
        outcome: ScheduledOutcome | None = None
        try:
            code = process.wait(entry.timeout_s or None)
        except subprocess.TimeoutExpired:
            outcome = "timeout"
            terminate_all([process], self._settings.stop_s)
            code = process.wait()
        with self._lock:
            del self._own[entry.name]
            outcome = outcome or _outcome_of(code)
            if outcome == "failed" and self._is_stopping:
                outcome = "stopped"
            self._conclude(entry.name, outcome, code)
        self._settings.on_run_end()

    def due(self, entry: ScheduleEntry) -> datetime | None:
        """Return the next due time of the entry, and record the time until which all is handled.

        The record makes a past clock error harmless: a time in the far future is replaced once.
        """
        with self._lock:
            record, now = load_record(self._state, entry.name), self._clock()
            since = handled_until(entry, record, now)
            if record.handled_until != since.isoformat():
                record = replace(record, handled_until=since.isoformat())
                write_record(self._state, entry.name, record)
            return due(entry, record, now)

    def record_not_started(self, entry: ScheduleEntry, reason: str) -> None:
        """Record that a run was due and is not started."""
        with self._lock:
            record = load_record(self._state, entry.name)
            when = was_due(entry, record, self._clock())
            self._write_not_started(entry.name, record, when, reason)

    def adopt_runs(self, names: list[str]) -> None:
        """Take over runs that an earlier service left active, and record those that died.

        Call this once, before anything is run.

        Args:
            names: of all entries.
        """
        for name in names:
            record = load_record(self._state, name)
            if record.outcome == "running" and record.process and is_alive(record.process):
                age = self._clock() - datetime.fromisoformat(record.process.started)
                started = time.monotonic() - age.total_seconds()
                self._adopted[name] = _Adopted(record.process, started)
                logger.info("%s: still running, process %d", name, record.process.pid)
            elif record.outcome == "running":
                self._conclude(name, "killed", None)

    def find_ended(self, entries: Mapping[str, ScheduleEntry]) -> list[str]:
        """Return the names of the adopted runs that have ended; interrupt those that take too long.

        Args:
            entries: {name: entry}, for the time limits.
        """
        with self._lock:
            adopted = dict(self._adopted)
        for name, run in adopted.items():
            limit_s = entries[name].timeout_s if name in entries else 0
            if limit_s and not run.is_late and time.monotonic() - run.started > limit_s:
                run.is_late = True
                arguments = ([run.marker], self._settings.stop_s)
                Thread(target=terminate_all, args=arguments, daemon=True).start()
        ended = [name for name, run in adopted.items() if not is_alive(run.marker)]
        for name in ended:
            with self._lock:
                self._conclude(name, "timeout" if adopted[name].is_late else "killed", None)
                del self._adopted[
                    name
                ]  # last: if the record cannot be written, the next tick retries
        if ended:
            self._settings.on_run_end()
        return ended

    def stop(self) -> None:
        """Start nothing more, and end all active runs."""
        with self._lock:
            self._is_stopping = True
            markers = [run.marker for run in self._adopted.values()]
            running: list[Process] = [*self._own.values(), *markers]
        terminate_all(running, self._settings.stop_s)
        with self._lock:
            for name, run in self._adopted.items():
                self._conclude(name, "timeout" if run.is_late else "stopped", None)
            self._adopted.clear()

    def _start(self, entry: ScheduleEntry) -> "subprocess.Popen[bytes] | None":
        name, now = entry.name, self._clock()
        with self._lock:
            record = load_record(self._state, name)
            when = was_due(entry, record, now)
            if self._is_stopping:
                return None
            if name in self._adopted:
                self._write_not_started(name, record, when, OVERLAP)
                return None
            log = log_path(self._state.schedule / "logs", name, now)
            started = _started(record, when, now, log)
            write_record(self._state, name, started)  # before the start: a run must not start twice
            process = self._start_process(entry, log)
            if process is not None:
                self._own[name] = process
                self._record_process(started, make_marker(name, process.pid, now))
        if process is None:
            self._settings.on_run_end()
        return process

    def _start_process(self, entry: ScheduleEntry, log: Path) -> "subprocess.Popen[bytes] | None":
        """Return the process; None if it cannot be started, which is recorded."""
        try:
            return start_process(self._command(entry), entry.folder, log)
        except OSError as error:
            reason = f"The command could not be started: {error.strerror} ({error.filename})."
            self._conclude(entry.name, "failed", None, reason)
            return None

    def _record_process(self, started: Record, marker: RunMarker) -> None:
        """Record the process, so that a later service can adopt it if this one is killed."""
        logger.info("%s: started, process %d, was due %s", marker.name, marker.pid, started.due)
        try:
            write_record(self._state, marker.name, replace(started, process=marker))
        except OSError as error:  # a full disk; the run has started, and the service waits for it
            logger.warning("%s: the record could not be written: %s", marker.name, error)

    def _command(self, entry: ScheduleEntry) -> list[str]:
        option = ("--state", str(self._state.root)) if entry.takes_state else ()
        words = entry.arguments
        end = words.index("--") if "--" in words else len(words)  # options must precede "--"
        return [*self._settings.program, *words[:end], *option, *words[end:]]

    def _conclude(
        self, name: str, outcome: ScheduledOutcome, code: int | None, reason: str = ""
    ) -> None:
        record = load_record(self._state, name)
        if record.outcome != "running":  # the entry was removed, and perhaps added again
            logger.info("%s: %s, but its entry was removed", name, outcome)
            return
        # A run that was stopped did not crash the machine.
        n_tries = record.n_tries - 1 if outcome == "stopped" else record.n_tries
        if outcome == "killed" and not reason:
            reason = "The exit code is unknown, because the service that started the run had ended."
        concluded = replace(
            record,
            outcome=outcome,
            exit_code=code,
            n_tries=n_tries,
            reason=reason,
            ended=self._clock().isoformat(),
        )
        if has_entry(self._state, name):
            write_record(self._state, name, concluded)
        details = reason or (f"exit code {code}" if code is not None else "")
        logger.info("%s: %s %s %s", name, outcome, details, record.log)

    def _write_not_started(self, name: str, record: Record, when: str, reason: str) -> None:
        changed = replace(
            record,
            handled_until=max(when, record.handled_until),
            n_not_started=record.n_not_started + 1,
            not_started_at=when,
            not_started_reason=reason,
        )
        write_record(self._state, name, changed)
        logger.info("%s: not started, was due %s: %s", name, when, reason)


def _started(record: Record, when: str, now: datetime, log: Path) -> Record:
    """Return the record of a run that starts now; `record` is that of the previous run."""
    return Record(
        handled_until=max(when, record.handled_until),
        due=when,
        started=now.isoformat(),
        outcome="running",
        n_tries=record.n_tries + 1 if when == record.due else 1,
        log=str(log),
        n_not_started=record.n_not_started,
        not_started_at=record.not_started_at,
        not_started_reason=record.not_started_reason,
    )


def _outcome_of(code: int) -> ScheduledOutcome:
    if code in (NothingToDo.exit_code, AlreadyRunning.exit_code):
        return "skip"
    return "done" if code in (0, DriftFound.exit_code) else "failed"
