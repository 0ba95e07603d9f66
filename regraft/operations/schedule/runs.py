"""The runs that the service begins and ends, and what is written down about each."""

import logging
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from threading import Lock, Thread

from regraft.core.errors import AlreadyRuns, DriftFound, NothingToDo
from regraft.core.state import RunMarker, State, marker_of
from regraft.operations.schedule.child import Process, begin, lives, log_path, put_an_end_to
from regraft.operations.schedule.declaration import Declaration
from regraft.operations.schedule.heartbeat import BEAT_S
from regraft.operations.schedule.kept import (
    Outcome,
    Record,
    due,
    is_declared,
    record_of,
    seen,
    was_due,
    write_record,
)

logger = logging.getLogger("regraft.schedule")
Clock = Callable[[], datetime]
STOP_S = 30.0  # guess: a training writes down what it has after each epoch


@dataclass(frozen=True)
class ServiceSettings:
    """How the service works.

    program: what a declaration's command is appended to.
    tick_s: seconds between two looks at the files and the clock. Guess: nobody waits longer.
    beat_s: seconds between two heartbeats.
    stop_s: seconds that a run has to end by itself once it was interrupted.
    when_ended: called after what became of a run was written down, from any thread; raises nothing.
    """

    program: tuple[str, ...]
    tick_s: float = 1.0
    beat_s: float = BEAT_S
    stop_s: float = STOP_S
    when_ended: Callable[[], None] = lambda: None


@dataclass
class _Adopted:
    """A run that an earlier service left running. began: by time.monotonic()."""

    marker: RunMarker
    began: float
    is_late: bool = False


class Runs:
    """The processes of the service, its own and those that an earlier one left running."""

    def __init__(self, state: State, settings: ServiceSettings, clock: Clock) -> None:
        self._state, self._settings, self._clock = state, settings, clock
        self._lock = Lock()  # over the records and all that follows
        self._own: dict[str, subprocess.Popen[bytes]] = {}
        self._adopted: dict[str, _Adopted] = {}
        self._stopping = False

    @property
    def names(self) -> tuple[str, ...]:
        """Of the declarations that are run now."""
        with self._lock:
            return tuple(sorted({*self._own, *self._adopted}))

    def run(self, declaration: Declaration) -> None:
        """One run from its beginning to its end; nothing if the one before still lives."""
        process = self._begin(declaration)
        if process is None:
            return
        outcome: Outcome | None = None
        try:
            code = process.wait(declaration.timeout_s or None)
        except subprocess.TimeoutExpired:
            outcome = "timeout"
            put_an_end_to([process], self._settings.stop_s)
            code = process.wait()
        with self._lock:
            del self._own[declaration.name]
            outcome = outcome or _outcome_of(code)
            if outcome == "failed" and self._stopping:
                outcome = "stopped"
            self._conclude(declaration.name, outcome, code)
        self._settings.when_ended()

    def due(self, declaration: Declaration) -> datetime | None:
        """When it is to be run next, from what was dealt with; that is written down if it is new.

        Else a clock that was years ahead and is set right would be asked about at each run.
        """
        with self._lock:
            record, now = record_of(self._state, declaration.name), self._clock()
            since = seen(declaration, record, now)
            if record.seen != since.isoformat():
                record = replace(record, seen=since.isoformat())
                write_record(self._state, declaration.name, record)
            return due(declaration, record, now)

    def leave_out(self, declaration: Declaration, why: str) -> None:
        """Writes down that a run was due and is not begun."""
        with self._lock:
            record = record_of(self._state, declaration.name)
            when = was_due(declaration, record, self._clock())
            self._write_left_out(declaration.name, record, when, why)

    def look_after(self, names: list[str]) -> None:
        """Takes over what an earlier service left running, and notes what it left dead.

        Args:
            names: of the declarations; once, before any is run.
        """
        for name in names:
            record = record_of(self._state, name)
            if record.outcome == "running" and record.process and lives(record.process):
                taken = self._clock() - datetime.fromisoformat(record.process.started)
                began = time.monotonic() - taken.total_seconds()
                self._adopted[name] = _Adopted(record.process, began)
                logger.info("%s: still runs, process %d", name, record.process.pid)
            elif record.outcome == "running":
                self._conclude(name, "lost", None)

    def find_ended(self, declared: Mapping[str, Declaration]) -> list[str]:
        """The names of those taken over that have ended since, or took too long and were ended.

        Args:
            declared: {name: declaration}, which says how long a run may take.
        """
        with self._lock:
            adopted = dict(self._adopted)
        for name, run in adopted.items():
            limit_s = declared[name].timeout_s if name in declared else 0
            if limit_s and not run.is_late and time.monotonic() - run.began > limit_s:
                run.is_late = True
                ending = ([run.marker], self._settings.stop_s)
                Thread(target=put_an_end_to, args=ending, daemon=True).start()
        gone = [name for name, run in adopted.items() if not lives(run.marker)]
        for name in gone:
            with self._lock:
                self._conclude(name, "timeout" if adopted[name].is_late else "lost", None)
                del self._adopted[name]  # last: where that cannot be written, it is tried again
        if gone:
            self._settings.when_ended()
        return gone

    def stop(self) -> None:
        """Begins nothing any more, and ends what runs."""
        with self._lock:
            self._stopping = True
            left = [run.marker for run in self._adopted.values()]
            running: list[Process] = [*self._own.values(), *left]
        put_an_end_to(running, self._settings.stop_s)
        with self._lock:
            for name, run in self._adopted.items():
                self._conclude(name, "timeout" if run.is_late else "stopped", None)
            self._adopted.clear()

    def _begin(self, declaration: Declaration) -> "subprocess.Popen[bytes] | None":
        name, now = declaration.name, self._clock()
        with self._lock:
            record = record_of(self._state, name)
            when = was_due(declaration, record, now)
            if self._stopping:
                return None
            if name in self._adopted:
                self._write_left_out(name, record, when, "the run before it still went on")
                return None
            log = log_path(self._state.schedule / "logs", name, now)
            begun = _begun(record, when, now, log)
            write_record(self._state, name, begun)  # first: it is not to begin twice
            process = self._started(declaration, log)
            if process is not None:
                self._own[name] = process
                self._remember(begun, marker_of(name, process.pid, now))
        if process is None:
            self._settings.when_ended()
        return process

    def _started(self, declaration: Declaration, log: Path) -> "subprocess.Popen[bytes] | None":
        """None where it cannot be started, which is written down."""
        try:
            return begin(self._command(declaration), declaration.folder, log)
        except OSError as error:
            why = f"It could not be started: {error.strerror} ({error.filename})."
            self._conclude(declaration.name, "failed", None, why)
            return None

    def _remember(self, begun: Record, marker: RunMarker) -> None:
        """By what the process is found again, should the service be killed."""
        logger.info("%s: begun, process %d, was due %s", marker.name, marker.pid, begun.due)
        try:
            write_record(self._state, marker.name, replace(begun, process=marker))
        except OSError as error:  # a full disk; the run has begun, and is waited for
            logger.warning("%s: could not be written down: %s", marker.name, error)

    def _command(self, declaration: Declaration) -> list[str]:
        where = ("--state", str(self._state.root)) if declaration.takes_state else ()
        words = declaration.arguments
        end = words.index("--") if "--" in words else len(words)  # no options are read behind it
        return [*self._settings.program, *words[:end], *where, *words[end:]]

    def _conclude(self, name: str, outcome: Outcome, code: int | None, reason: str = "") -> None:
        record = record_of(self._state, name)
        if record.outcome != "running":  # removed meanwhile, and perhaps declared anew
            logger.info("%s: %s, but its declaration was removed", name, outcome)
            return
        # A run that was stopped is not one that takes the machine down.
        tries = record.n_tries - (outcome == "stopped")
        reason = reason or ("Nobody saw how it ended." if outcome == "lost" else "")
        over = replace(record, outcome=outcome, exit_code=code, n_tries=tries, reason=reason)
        over = replace(over, ended=self._clock().isoformat())
        if is_declared(self._state, name):
            write_record(self._state, name, over)
        said = reason or (f"exit code {code}" if code is not None else "")
        logger.info("%s: %s %s %s", name, outcome, said, record.log)

    def _write_left_out(self, name: str, record: Record, when: str, why: str) -> None:
        left = replace(record, seen=max(when, record.seen), n_left_out=record.n_left_out + 1)
        write_record(self._state, name, replace(left, left_out_at=when, left_out_why=why))
        logger.info("%s: left out, was due %s: %s", name, when, why)


def _begun(record: Record, when: str, now: datetime, log: Path) -> Record:
    return Record(
        seen=max(when, record.seen),
        due=when,
        began=now.isoformat(),
        outcome="running",
        n_tries=record.n_tries + 1 if when == record.due else 1,
        log=str(log),
        n_left_out=record.n_left_out,
        left_out_at=record.left_out_at,
        left_out_why=record.left_out_why,
    )


def _outcome_of(code: int) -> Outcome:
    if code in (NothingToDo.exit_code, AlreadyRuns.exit_code):
        return "skipped"
    return "done" if code in (0, DriftFound.exit_code) else "failed"
