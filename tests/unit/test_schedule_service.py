"""The service on a clock that is set by hand: sleep, clock changes, kills, overlaps, the end."""

import errno
import json
import os
import signal
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest
import time_machine
from test_state import ended, forked

from regraft.core.errors import AlreadyRunning, ScheduleError
from regraft.core.state import exclusive_lock, open_state
from regraft.operations.schedule import ScheduleEntry, add, load_record, read_heartbeat, remove
from regraft.operations.schedule.child import N_LOGS
from regraft.operations.schedule.runs import ServiceSettings
from regraft.operations.schedule.service import serve

# What the runs are here: it writes down that it ran, and then does what its words say.
COMMAND = """
import os, signal, sys, time
with open("ran", "a", encoding="utf-8") as file:
    file.write(f"{os.getpid()}\\n")
word, *rest = sys.argv[1:]
print("said", word, *rest, flush=True)
if word == "exit":
    sys.exit(int(rest[0]))
if word == "stubborn":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
try:
    open("ready", "w").close()
    if word != "quick":
        time.sleep(60)
except KeyboardInterrupt:
    open("kept", "w").close()
    sys.exit(130)
"""
NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)
HOURLY = ScheduleEntry("job", "0 * * * *", "UTC", "quick", "", NOON.isoformat(), takes_state=False)


def clock():
    return datetime.now(UTC)


def until(happened, timeout_s=20.0):
    """Waits, by a clock that nobody sets, until it has happened."""
    deadline = time.monotonic() + timeout_s
    while not happened():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.02)


class World:
    """A state folder, a folder to run in, and a service in a thread."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.state = open_state(folder / "state")
        self.command = folder / "command.py"
        self.command.write_text(COMMAND, encoding="utf-8")
        program = (sys.executable, "-I", "-S", str(self.command))
        self.settings = ServiceSettings(program, tick_s=0.04, beat_s=0.08, stop_s=5.0)
        self.n_ticks = 0  # of all services

    def declare(self, **changed):
        load_entry = replace(HOURLY, folder=str(self.folder), **changed)
        add(self.state, load_entry)
        return load_entry

    @property
    def record(self):
        return load_record(self.state, "job")

    @property
    def pids(self):
        path = self.folder / "ran"
        return [int(line) for line in path.read_text().split()] if path.exists() else []

    @contextmanager
    def served(self):
        stop, failed = threading.Event(), []

        def is_over():
            self.n_ticks += 1
            return stop.is_set()

        def work():
            try:
                serve(self.state, self.settings, clock, is_over)
            except (AlreadyRunning, ScheduleError) as error:  # would be a warning, and then lost
                failed.append(error)

        n_ticks = self.n_ticks
        thread = threading.Thread(target=work)
        thread.start()
        try:
            until(lambda: failed or self.n_ticks > n_ticks + 1)  # the second: it has beaten
            yield
        finally:
            stop.set()
            thread.join(timeout=30)
            assert not thread.is_alive()
        assert not failed

    def wait_ticks(self, n):
        """Until the service has looked at the files and the clock n times more."""
        n_ticks = self.n_ticks + n
        until(lambda: self.n_ticks >= n_ticks)

    def settle(self):
        """Until the service has begun what it is going to begin, and that has ended."""
        self.wait_ticks(4)
        until(lambda: self.record.outcome != "running")


@pytest.fixture
def world(tmp_path):
    # What the tests' process ignores its children ignore: run in the background, it is Ctrl-C.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    world = World(tmp_path)
    yield world
    signal.signal(signal.SIGINT, before)
    for pid in world.pids:
        if psutil.pid_exists(pid):
            os.kill(pid, signal.SIGKILL)


@pytest.fixture
def time_is():
    """The clock of this process, which goes on from where it is set."""
    with time_machine.travel(NOON, tick=True) as traveller:
        yield traveller


def test_a_laptop_that_slept_for_ten_hours_makes_up_for_one_run(world, time_is):
    world.declare()
    with world.served():
        world.settle()
        assert not world.pids
        time_is.move_to(NOON + timedelta(hours=10, minutes=20))
        until(lambda: world.record.outcome == "done")
        world.settle()
        assert len(world.pids) == 1
        assert world.record.due == "2026-01-05T22:00:00+00:00"
        time_is.move_to(NOON + timedelta(hours=11))  # and the next comes when it is due
        until(lambda: len(world.pids) == 2)


def test_a_laptop_that_slept_leaves_out_what_is_declared_to_be_skipped(world, time_is):
    world.declare(missed="skip")
    with world.served():
        time_is.move_to(NOON + timedelta(hours=10, minutes=20))
        until(lambda: world.record.n_not_started == 1)
        record = world.record
        assert (record.not_started_at, record.not_started_reason) == (
            "2026-01-05T22:00:00+00:00",
            "its time was missed",
        )
        world.settle()
        assert not world.pids
        time_is.move_to(NOON + timedelta(hours=11))
        until(lambda: world.record.outcome == "done")


@pytest.mark.parametrize(("missed", "n_runs"), [("run-once", 1), ("skip", 0)])
def test_runs_that_were_missed_while_no_service_ran(world, time_is, missed, n_runs):
    world.declare(missed=missed)
    time_is.move_to(NOON + timedelta(days=300, minutes=20))
    for _ in range(2):  # begun twice, it makes up for them no second time
        with world.served():
            until(lambda: world.record.handled_until > "2026-11")
            world.settle()
            assert len(world.pids) == n_runs


@pytest.mark.parametrize(
    ("due", "again"),
    [
        ("2026-03-29T01:00:00", "2026-03-30T00:30:00"),  # 2:30 is skipped: 3:00, then 2:30
        ("2026-10-25T00:30:00", "2026-10-26T01:30:00"),  # 2:30 comes twice: the first
    ],
)
def test_a_run_at_half_past_two_runs_once_on_the_day_when_clocks_are_set(
    world, time_is, due, again
):
    first, second = (datetime.fromisoformat(each).replace(tzinfo=UTC) for each in (due, again))
    added = (first - timedelta(hours=6)).isoformat()
    world.declare(cron="30 2 * * *", timezone="Europe/Berlin", added=added)
    time_is.move_to(first - timedelta(hours=5))
    with world.served():
        for n_runs, when in enumerate((first, second), 1):
            for half_hours in range(-3, 4):
                time_is.move_to(when + half_hours * timedelta(minutes=30))
                world.wait_ticks(2)
                if half_hours < 0:
                    assert len(world.pids) == n_runs - 1
            world.settle()
            assert (len(world.pids), world.record.due) == (n_runs, when.isoformat())


def test_a_run_begins_within_its_jitter(world, time_is):
    world.declare(cron="30 * * * *", jitter_s=1800)
    with world.served():
        until(lambda: read_heartbeat(world.state).next_runs)
        when = datetime.fromisoformat(read_heartbeat(world.state).next_runs[0][1])
        assert NOON + timedelta(minutes=30) < when < NOON + timedelta(minutes=60)
        time_is.move_to(when - timedelta(seconds=5))
        world.settle()
        assert not world.pids
        time_is.move_to(when)
        until(lambda: world.record.outcome == "done")
        assert world.record.due == when.isoformat()


@pytest.mark.parametrize(
    ("command", "outcome", "code"),
    [("exit 0", "done", 0), ("exit 8", "skip", 8), ("exit 3", "failed", 3)],
)
def test_how_a_run_ended_and_what_it_said_is_kept(world, time_is, command, outcome, code):
    world.declare(command=command)
    time_is.move_to(NOON + timedelta(hours=1))
    with world.served():
        until(lambda: world.record.ended)
    record = world.record
    assert (record.outcome, record.exit_code, record.n_tries) == (outcome, code, 1)
    assert datetime.fromisoformat(record.started) >= datetime.fromisoformat(record.due)
    assert Path(record.log).read_text(encoding="utf-8") == f"said {command}\n"


def test_the_state_folder_is_named_to_the_commands_that_take_one(world, time_is):
    world.declare(takes_state=True)
    time_is.move_to(NOON + timedelta(hours=1))
    with world.served():
        until(lambda: world.record.ended)
    assert Path(world.record.log).read_text() == f"said quick --state {world.state.root}\n"


def test_a_run_that_cannot_begin_says_why_and_the_service_goes_on(world, time_is):
    gone = world.folder / "gone"
    add(world.state, replace(HOURLY, folder=str(gone)))
    add(world.state, replace(HOURLY, name="other", folder=str(world.folder)))
    time_is.move_to(NOON + timedelta(hours=1))
    with world.served():
        until(lambda: world.record.ended and load_record(world.state, "other").ended)
    assert world.record.outcome == "failed"
    assert os.strerror(errno.ENOENT) in world.record.reason
    assert str(gone) in world.record.reason
    assert load_record(world.state, "other").outcome == "done"


def test_a_run_that_still_goes_on_is_not_begun_twice(world, time_is):
    world.declare(command="sleep")
    time_is.move_to(NOON + timedelta(hours=1))
    with world.served():
        until(lambda: (world.folder / "ready").exists())
        time_is.move_to(NOON + timedelta(hours=2))
        until(lambda: world.record.n_not_started == 1)
        record = world.record
        assert "previous run" in record.not_started_reason
        assert (record.outcome, record.due) == ("running", "2026-01-05T13:00:00+00:00")
        until(lambda: read_heartbeat(world.state).running == ("job",))
        assert len(world.pids) == 1


def test_a_stop_interrupts_the_run_which_is_begun_again_by_the_next_service(world, time_is):
    world.declare(command="sleep")
    time_is.move_to(NOON + timedelta(hours=1))
    with world.served():
        until(lambda: (world.folder / "ready").exists())
    assert (world.folder / "kept").exists()
    assert (world.record.outcome, world.record.exit_code) == ("stopped", 130)
    heartbeat = read_heartbeat(world.state)
    assert (heartbeat.status, heartbeat.is_alive(clock())) == ("stopped", False)
    time_is.shift(timedelta(minutes=5))
    with world.served():
        until(lambda: len(world.pids) == 2)


def test_a_run_that_does_not_end_when_asked_is_killed(world, time_is):
    world.settings = replace(world.settings, stop_s=0.2)
    world.declare(command="stubborn")
    time_is.move_to(NOON + timedelta(hours=1))
    with world.served():
        until(lambda: (world.folder / "ready").exists())
    assert (world.record.outcome, world.record.exit_code) == ("stopped", -signal.SIGKILL)


def test_a_run_that_takes_too_long_is_interrupted(world, time_is):
    world.declare(command="sleep", timeout_s=1)
    time_is.move_to(NOON + timedelta(hours=1))
    with world.served():
        until(lambda: world.record.ended)
        assert (world.record.outcome, world.record.exit_code) == ("timeout", 130)


def test_a_second_service_on_the_same_folder_ends_and_names_the_first(world, time_is):
    with world.served(), pytest.raises(AlreadyRunning) as refused:
        serve(world.state, world.settings, clock, lambda: True)
    assert f" {os.getpid()} " in str(refused.value)
    assert "2026-01-05T12:00:0" in str(refused.value)


def test_what_is_added_and_removed_meanwhile_is_noticed(world, time_is):
    with world.served():
        world.declare()
        until(lambda: read_heartbeat(world.state).next_runs)
        time_is.move_to(NOON + timedelta(hours=1))
        until(lambda: world.record.outcome == "done")
        remove(world.state, "job")
        until(lambda: not read_heartbeat(world.state).next_runs)
        time_is.move_to(NOON + timedelta(hours=2))
        world.settle()
        assert len(world.pids) == 1


def test_a_run_whose_entry_was_removed_leaves_no_record(world, time_is):
    world.declare(command="sleep")
    time_is.move_to(NOON + timedelta(hours=1))
    with world.served():
        until(lambda: (world.folder / "ready").exists())
        remove(world.state, "job")
    assert not list((world.state.schedule / "records").glob("*.json"))


def test_an_entry_that_broke_meanwhile_stops_no_other(world, time_is):
    world.declare()
    with world.served():
        broken = world.state.schedule / "entries" / "broken.json"
        broken.write_text("{", encoding="utf-8")
        world.settle()
        time_is.move_to(NOON + timedelta(hours=1))
        until(lambda: world.record.outcome == "done")


def test_a_run_leaves_nothing_in_the_record_of_a_later_namesake(world, time_is):
    world.declare(command="sleep")
    time_is.move_to(NOON + timedelta(hours=1))
    with world.served():
        until(lambda: (world.folder / "ready").exists())
        until(lambda: read_heartbeat(world.state).running == ("job",))
        remove(world.state, "job")
        world.declare(added=clock().isoformat())
        os.kill(world.pids[0], signal.SIGINT)
        until(lambda: (world.folder / "kept").exists() and not read_heartbeat(world.state).running)
        assert world.record.outcome == ""
        time_is.move_to(NOON + timedelta(hours=2))
        until(lambda: world.record.outcome == "done")


def test_an_entry_without_a_readable_time_stops_no_other_change(world, time_is):
    world.declare(name="bad", timezone="Mars")
    world.declare(name="gone")
    with world.served():
        world.declare(name="a", cron="0 3")
        remove(world.state, "gone")
        world.declare()
        until(lambda: [name for name, _ in read_heartbeat(world.state).next_runs] == ["job"])
        remove(world.state, "bad")
        (world.state.schedule / "entries" / "job.json").write_text("{", encoding="utf-8")
        time_is.move_to(NOON + timedelta(hours=1))
        until(lambda: world.record.outcome == "done")  # as it was read before


def test_the_state_folder_is_named_before_the_words_that_are_no_options(world, time_is):
    world.declare(command="quick a -- -b", takes_state=True)
    time_is.move_to(NOON + timedelta(hours=1))
    with world.served():
        until(lambda: world.record.outcome == "done")
    log = Path(world.record.log).read_text(encoding="utf-8")
    assert log == f"said quick a --state {world.state.root} -- -b\n"


def test_an_entry_that_is_broken_at_the_start_is_an_error_at_once(world, time_is):
    world.declare()
    (world.state.schedule / "entries" / "job.json").write_text("{", encoding="utf-8")
    with pytest.raises(ScheduleError, match=r"/entries/job\.json"):
        serve(world.state, world.settings, clock, lambda: False)
    with exclusive_lock(world.state, "run the schedule", NOON):
        pass  # it holds nothing up


def test_what_zenml_keeps_is_not_run_here(world, time_is):
    world.declare(backend="zenml")
    time_is.move_to(NOON + timedelta(hours=1))
    with world.served():
        world.settle()
    assert not world.pids


def test_a_clock_that_was_years_ahead_and_is_set_right_holds_nothing_up(world, time_is):
    time_is.move_to(datetime(2037, 1, 1, 12, 30, tzinfo=UTC))
    world.declare()
    with world.served():
        until(lambda: world.record.outcome == "done")
        time_is.move_to(NOON)
        until(lambda: world.record.handled_until < "2027")
        until(lambda: read_heartbeat(world.state).next_runs[0][1] == "2026-01-05T13:00:00+00:00")
        time_is.move_to(NOON + timedelta(hours=1))
        until(lambda: len(world.pids) == 2)
        assert world.record.due == "2026-01-05T13:00:00+00:00"


def test_the_last_logs_stay_and_older_ones_go(world, time_is):
    logs = world.state.schedule / "logs"
    logs.mkdir()
    for n in range(N_LOGS + 5):
        (logs / f"job-20250101T0000{n:02}.000000Z.log").touch()
    (logs / "job-2-20250101T000000.000000Z.log").touch()  # of another entry
    world.declare()
    time_is.move_to(NOON + timedelta(hours=1))
    with world.served():
        until(lambda: world.record.ended)
    names = sorted(path.name for path in logs.glob("job-2*Z.log") if "job-2-" not in path.name)
    assert len(names) == N_LOGS
    assert names[-1] == Path(world.record.log).name
    assert names[0] == "job-20250101T000006.000000Z.log"
    assert (logs / "job-2-20250101T000000.000000Z.log").exists()


@contextmanager
def left_by_a_killed_service(world, **load_entry):
    """An hour after a service began a run and was killed with -9; the run goes on."""
    added = datetime.now(UTC) - timedelta(hours=2)
    world.declare(command="sleep", added=added.isoformat(), **load_entry)
    # A copy of this process, which is cheap.
    service = forked(lambda: serve(world.state, world.settings, clock, lambda: False))
    try:
        until(lambda: world.record.process and (world.folder / "ready").exists())
    finally:
        os.kill(service, signal.SIGKILL)
    assert ended(service) == -signal.SIGKILL
    assert psutil.pid_exists(world.pids[0])
    with time_machine.travel(datetime.now(UTC) + timedelta(hours=1), tick=True) as time_is:
        yield time_is


def test_a_run_lives_through_the_death_of_the_service_and_is_not_begun_twice(world):
    """The new service finds the run by its process."""
    with left_by_a_killed_service(world), world.served():
        until(lambda: world.record.n_not_started == 1)
        assert "previous run" in world.record.not_started_reason
        until(lambda: read_heartbeat(world.state).running == ("job",))
        # Nobody sees how it ends: it is begun once more, and not for ever.
        os.kill(world.pids[0], signal.SIGKILL)
        until(lambda: len(world.pids) == 2)
        assert world.record.outcome == "running"


def test_a_run_that_was_taken_over_has_no_more_time_than_any(world):
    """An hour is over; a clock that is set after that takes none of what is left."""
    with left_by_a_killed_service(world, timeout_s=3602) as time_is, world.served():
        until(lambda: read_heartbeat(world.state).running == ("job",))
        time_is.shift(timedelta(minutes=90))
        until(lambda: world.record.outcome == "timeout")
        until(lambda: not read_heartbeat(world.state).running)
        assert (world.folder / "kept").exists()  # it was interrupted first


def test_a_run_that_died_with_its_service_is_begun_once_more(world, time_is):
    """The power is cut; a run that takes the machine down each time is left after the second."""
    world.declare(command="sleep")
    time_is.move_to(NOON + timedelta(hours=1))
    for n_begun in (1, 2, 2):
        with world.served():
            until(lambda n=n_begun: len(world.pids) == n)
            until(lambda: world.record.process)
            world_as_it_is = (world.state.schedule / "records" / "job.json").read_bytes()
            if n_begun == 1:
                assert world.record.n_tries == 1
            world.wait_ticks(4)
        # As if nobody had been there to write down how it ended.
        (world.state.schedule / "records" / "job.json").write_bytes(world_as_it_is)
    assert len(world.pids) == 2
    with world.served():
        until(lambda: world.record.outcome == "killed")
    assert world.record.reason
    assert world.record.exit_code is None


def test_the_heartbeat_says_who_and_what_is_next(world, time_is):
    world.declare()
    with world.served():
        until(lambda: read_heartbeat(world.state).next_runs)
        path = world.state.schedule / "heartbeat.json"
        said = json.loads(path.read_text(encoding="utf-8"))
        assert (said["pid"], said["status"], said["running"]) == (os.getpid(), "running", [])
        assert said["next_runs"] == [["job", "2026-01-05T13:00:00+00:00"]]
        beats = read_heartbeat(world.state)
        until(lambda: read_heartbeat(world.state).time > beats.time)
        assert beats.is_alive(NOON + timedelta(seconds=50))
        assert not beats.is_alive(NOON + timedelta(seconds=70))
