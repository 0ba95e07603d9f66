"""Fire times: cron in a time zone, missed runs, jitter, stored entries."""

import json
import re
import socket
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise, takewhile
from pathlib import Path
from zoneinfo import ZoneInfo

import psutil
import pytest

from regraft.core.errors import ScheduleError
from regraft.core.state import open_state
from regraft.operations.schedule import (
    Heartbeat,
    Record,
    ScheduleEntry,
    add,
    check,
    default_name,
    due,
    find,
    list_entries,
    load_record,
    next_due,
    next_fire_times,
    read_heartbeat,
    remove,
    split_command,
    with_settings,
)
from regraft.operations.schedule.cron import check_cron, fire_times, last_fire_time, zone_of
from regraft.operations.schedule.entry import latest_due
from regraft.operations.schedule.store import MAX_TRIES, write_record

ROOT = Path(__file__).resolve().parents[2]
BERLIN = "Europe/Berlin"
NOW = datetime(2026, 1, 5, 12, tzinfo=UTC)  # a Monday
MONDAYS = ScheduleEntry("weekly", "0 3 * * 1", BERLIN, "retrain photos", "/", NOW.isoformat())
KNOWN = ("retrain", "watch", "train")


@pytest.fixture
def state(tmp_path):
    return open_state(tmp_path / "state")


def local(cron, zone, after, n):
    """The next n moments as the zone's clocks show them."""
    after = datetime.fromisoformat(after).replace(tzinfo=ZoneInfo(zone))
    found = islice(fire_times(cron, zone, after), n)
    return [f"{each.astimezone(ZoneInfo(zone)):%a %d %H:%M %z}" for each in found]


def test_weekdays_are_counted_as_cron_does():
    assert local("0 3 * * 1", BERLIN, "2026-01-05T12:00", 1) == ["Mon 12 03:00 +0100"]
    for sunday in ("0", "7", "sun", "SUN"):
        assert local(f"0 3 * * {sunday}", BERLIN, "2026-01-05", 1) == ["Sun 11 03:00 +0100"]
    weekend = ["Sat 10 00:00 +0000", "Sun 11 00:00 +0000", "Sat 17 00:00 +0000"]
    for days in ("6-7", "sat-sun", "0,6", "sat,7"):
        assert local(f"0 0 * * {days}", "UTC", "2026-01-05T01:00", 3) == weekend


def test_day_of_month_and_weekday_mean_either_as_in_cron():
    found = local("0 0 13 * 5", "UTC", "2026-01-05", 4)
    assert [each[:6] for each in found] == ["Fri 09", "Tue 13", "Fri 16", "Fri 23"]
    both = local("0 0 */2 * 5", "UTC", "2026-01-05", 2)  # one that begins with a star: both
    assert [each[:6] for each in both] == ["Fri 09", "Fri 23"]


def test_a_time_that_the_clocks_skip_comes_once_and_right_after_the_gap():
    assert local("30 2 * * *", BERLIN, "2026-03-28T12:00", 2) == [
        "Sun 29 03:00 +0200",
        "Mon 30 02:30 +0200",
    ]
    assert local("30 2 * * *", BERLIN, "2026-03-29T03:00", 1) == ["Mon 30 02:30 +0200"]
    # Where midnight is skipped.
    assert local("0 0 * * *", "America/Santiago", "2026-09-05T12:00", 1) == ["Sun 06 01:00 -0300"]


def test_a_time_that_the_clocks_show_twice_comes_once():
    assert local("30 2 * * *", BERLIN, "2026-10-24T12:00", 2) == [
        "Sun 25 02:30 +0200",
        "Mon 26 02:30 +0100",
    ]


def test_a_doubled_time_that_is_over_does_not_come_again_within_the_second_hour():
    second = datetime(2026, 10, 25, 1, 10, tzinfo=UTC)  # 2:10, the second time
    again = datetime(2026, 10, 26, 1, 30, tzinfo=UTC)
    assert next(fire_times("30 2 * * *", BERLIN, second)) == again
    first = datetime(2026, 10, 25, 0, 30, tzinfo=UTC)
    assert last_fire_time("30 2 * * *", BERLIN, NOW, second) == first


def test_a_star_in_the_minute_or_the_hour_follows_the_clock():
    """A skipped time does not fire, a doubled one fires twice, as in Debian's cron."""
    assert local("*/30 1-3 * * *", BERLIN, "2026-10-25T01:50", 6) == [
        "Sun 25 02:00 +0200",
        "Sun 25 02:30 +0200",
        "Sun 25 02:00 +0100",
        "Sun 25 02:30 +0100",
        "Sun 25 03:00 +0100",
        "Sun 25 03:30 +0100",
    ]
    assert local("*/30 2 * * *", BERLIN, "2026-03-28T12:00", 1) == ["Mon 30 02:00 +0200"]


def test_two_times_that_become_one_are_one_run():
    found = local("0 2,3 * * *", BERLIN, "2026-03-28T12:00", 2)
    assert found == ["Sun 29 03:00 +0200", "Mon 30 02:00 +0200"]


@pytest.mark.parametrize(("day", "n_hours"), [("2026-03-29", 23), ("2026-10-25", 25)])
def test_every_hour_is_every_hour_on_the_days_when_clocks_are_set(day, n_hours):
    zone = ZoneInfo(BERLIN)
    start = datetime.fromisoformat(day).replace(tzinfo=zone)
    found = [start.astimezone(UTC), *islice(fire_times("0 * * * *", BERLIN, start), n_hours)]
    assert {later - earlier for earlier, later in pairwise(found)} == {timedelta(hours=1)}
    assert found[-1].astimezone(zone).date() == start.date() + timedelta(days=1)


LORD_HOWE, NEW_YORK = "Australia/Lord_Howe", "America/New_York"


def first_after_gap(wall, zone):
    """The moment of a local time; of a skipped one, the end of the gap."""
    while True:
        moment = wall.replace(tzinfo=zone).astimezone(UTC)
        if moment.astimezone(zone).replace(tzinfo=None) == wall:
            return moment
        wall += timedelta(minutes=1)


@pytest.mark.parametrize(
    ("start", "days", "zone"),
    [
        # Five days around each change of the clocks; the month around them is the slow tier's.
        ("2026-03-27", 5, BERLIN),
        ("2026-10-23", 5, BERLIN),
        ("2026-03-06", 5, NEW_YORK),
        ("2026-10-30", 5, NEW_YORK),
        ("2026-04-02", 5, LORD_HOWE),
        ("2026-10-01", 5, LORD_HOWE),
        *(
            pytest.param(start, 35, zone, marks=pytest.mark.slow)
            for start in ("2026-03-05", "2026-10-01")
            for zone in (BERLIN, NEW_YORK, LORD_HOWE)
        ),
    ],
)
@pytest.mark.parametrize(
    ("cron", "minutes", "hours"),
    [
        ("*/20 * * * *", {0, 20, 40}, None),
        ("15 0-4 * * *", {15}, set(range(5))),
        ("0,45 */3 * * *", {0, 45}, set(range(0, 24, 3))),
        ("30 2 * * *", {30}, {2}),
    ],
)
def test_a_month_of_set_clocks_is_as_if_every_minute_had_been_looked_at(
    start, days, zone, cron, minutes, hours
):
    if zone == LORD_HOWE and "*/3" in cron:
        pytest.skip("clocks set by half an hour: cronsim steps by whole hours and misses a time")
    start = datetime.fromisoformat(start).replace(tzinfo=UTC)
    end = start + timedelta(days=days)
    first, last = (each.astimezone(ZoneInfo(zone)).utcoffset() for each in (start, end))
    assert first != last  # the clocks were set in between
    found = list(takewhile(lambda moment: moment < end, fire_times(cron, zone, start)))
    if "*" in "".join(cron.split()[:2]):
        every = [start + timedelta(minutes=n) for n in range(1, days * 24 * 60)]
        shown = [(moment, moment.astimezone(ZoneInfo(zone))) for moment in every]
        expected = [
            moment
            for moment, wall in shown
            if wall.minute in minutes and (hours is None or wall.hour in hours)
        ]
    else:
        first = start.replace(tzinfo=None) - timedelta(days=1)
        walls = (
            first + timedelta(days=day, hours=hour, minutes=minute)
            for day in range(days + 2)
            for hour in hours
            for minute in minutes
        )
        once = {first_after_gap(wall, ZoneInfo(zone)) for wall in walls}
        expected = sorted(moment for moment in once if start < moment < end)
    assert found == expected
    assert last_fire_time(cron, zone, start, end - timedelta(minutes=1)) == expected[-1]


def test_the_last_of_many_missed_moments_is_found_at_once():
    years_ago, now = datetime(2016, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, 12, 0, 30, tzinfo=UTC)
    began = time.process_time()
    assert last_fire_time("* * * * *", BERLIN, years_ago, now) == now.replace(second=0)
    assert last_fire_time("0 0 29 2 *", "UTC", years_ago, now) == datetime(2024, 2, 29, tzinfo=UTC)
    assert last_fire_time("0 3 * * 1", BERLIN, now - timedelta(hours=1), now) is None
    assert last_fire_time("0 0 29 2 *", "UTC", datetime(2025, 1, 1, tzinfo=UTC), now) is None
    assert time.process_time() - began < 1.0


@pytest.mark.parametrize(
    ("cron", "said"),
    [
        ("* * * *", r"\bminute, hour, .*'\* \* \* \*' with 4"),
        ("0 3 * * 1 7", r"'0 3 \* \* 1 7' with 6"),
        ("a * * * *", r"\bminute\b.*'a' in 'a \* \* \* \*'"),
        ("0 3 * jan5 *", r" dec .*\bmonth\b.*'jan5'"),
        ("0 3 last * *", r"\bday of month\b.*'last'"),
        ("5,61 * * * *", r"\b59\b.*\bminute\b.*'61' in '5,61 \* \* \* \*'"),
        ("*/0 * * * *", r"\bminute\b.*'\*/0'"),
        ("0 3 * * 8", r"\b0 to 7 \(0 and 7 are Sunday\).*\bweekday\b.*'8'"),
        ("0 3 * * fri-mon", r"\bweekday\b.* smaller number first.*'fri-mon'"),
        ("0 3 ,5 * *", r"\bday of month\b.*''"),
        ("0 3 30 2 *", r"'0 3 30 2 \*': .*\bday\b"),
        ("0 3 31 4 *", r"'0 3 31 4 \*': .*\bday\b"),
    ],
)
def test_an_invalid_cron_expression_is_refused(cron, said):
    with pytest.raises(ScheduleError, match=said):
        check_cron(cron, NOW)


@pytest.mark.parametrize(
    ("name", "meant"),
    [("Europe/Berln", BERLIN), ("berlin", BERLIN), ("new york", "America/New_York")],
)
def test_an_unknown_time_zone_is_refused_and_the_right_one_named(name, meant):
    with pytest.raises(ScheduleError, match=f"time zone.*'{name}'.*{meant}"):
        zone_of(name)


def test_a_name_without_a_likeness_gets_no_hint():
    with pytest.raises(ScheduleError, match=r"got 'qqqqqq'\.$"):
        zone_of("qqqqqq")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"command": "retran photos"}, r"'retran'\. .*\bretrain\?.*retrain, train, watch"),
        ({"command": "qqqq photos"}, r"'qqqq'\.[^?]+: retrain, train, watch"),  # no hint
        ({"command": "  "}, '"retrain photos/"'),
        ({"command": "retrain s3://me:pw@bucket"}, "password"),
        (
            {"command": "retrain p --set 'notify.targets=[{kind: webhook, to: https://h/x}]'"},
            r"address of a notification target.* webhook.*env:NAME.*--config",
        ),
        ({"command": "retrain p '--set=notify.targets=[{kind: command, to: x y}]'"}, "command"),
        ({"command": "retrain 'photos"}, r"retrain 'photos\" \(No closing"),
        ({"name": "../weekly"}, r"'\.\./weekly'"),
        ({"cron": "0 3"}, "'0 3' with 2"),
        ({"timezone": "Mars"}, "time zone.*'Mars'"),
        ({"grace_s": 0}, r"\[1, 86400\].* 0\b.*--set grace_s="),
        ({"timeout_s": -1}, r"timeout_s in \[0, 31536000\].* -1\b"),
        ({"jitter_s": 3600, "cron": "0 * * * *"}, r"\b3600 s .*'0 \* .*--set jitter_s="),
    ],
)
def test_a_schedule_entry_that_is_invalid_is_refused(changed, said):
    check(MONDAYS, KNOWN)
    with pytest.raises(ScheduleError, match=said):
        check(replace(MONDAYS, **changed), KNOWN)


def test_a_target_that_names_where_its_address_is_may_be_scheduled():
    target = "notify.targets=[{kind: webhook, to: env:HOOK}]"
    check(replace(MONDAYS, command=f"retrain p --set '{target}'"), KNOWN)


def test_fields_are_set_by_name():
    changed = with_settings(MONDAYS, ["missed=skip", "jitter_s=90"])
    assert changed == replace(MONDAYS, missed="skip", jitter_s=90)
    with pytest.raises(ScheduleError, match=r"\bmissed, .*'jiter_s'\. .*\bjitter_s\?"):
        with_settings(MONDAYS, ["jiter_s=90"])
    with pytest.raises(ScheduleError, match=r"\bmissed\b.*'twice'.*'run-once'"):
        with_settings(MONDAYS, ["missed=twice"])
    with pytest.raises(ScheduleError, match=r"\bgrace_s\b.*'long'"):
        with_settings(MONDAYS, ["grace_s=long"])


def test_a_name_is_made_of_the_command_and_what_it_works_on():
    assert default_name("retrain /data/My\\ photos/ --set a.b=1") == "retrain-My-photos"
    assert default_name("doctor --fix") == "doctor"
    assert split_command("retrain 'my photos'") == ["retrain", "my photos"]


def test_jitter_is_a_delay_in_range_always_the_same_and_another_on_another_machine():
    plain = replace(MONDAYS, cron="0 3 * * *")
    late, elsewhere = replace(plain, jitter_s=600), replace(plain, jitter_s=600, host="b")
    pairs = zip(next_fire_times(plain, NOW, 300), next_fire_times(late, NOW, 300), strict=True)
    delays = [(second - first).total_seconds() for first, second in pairs]
    assert 0 <= min(delays) < 30
    assert 570 < max(delays) < 600
    assert next_fire_times(late, NOW, 300) == next_fire_times(late, NOW, 300)
    assert next_fire_times(late, NOW, 300) != next_fire_times(elsewhere, NOW, 300)


def test_every_delayed_run_comes_once_whenever_it_is_asked_for():
    late = replace(MONDAYS, cron="*/10 * * * *", jitter_s=500)
    coming = next_fire_times(late, NOW, 5)
    for earlier, later in pairwise(coming):
        assert next_fire_times(late, earlier, 1) == [later]
        assert next_fire_times(late, later - timedelta(microseconds=1), 1) == [later]
        assert latest_due(late, NOW, later) == later
        assert latest_due(late, NOW, later - timedelta(microseconds=1)) == earlier
        assert latest_due(late, earlier, later - timedelta(microseconds=1)) is None


def test_an_entry_is_stored_until_it_is_removed(state):
    daily = replace(MONDAYS, name="daily", cron="0 4 * * *")
    add(state, MONDAYS)
    add(state, daily)
    assert list_entries(state) == [daily, MONDAYS]
    assert find(state, "weekly") == MONDAYS
    remove(state, "daily")
    assert list_entries(state) == [MONDAYS]
    remove(state, "weekly")
    assert list_entries(state) == []


def test_a_name_is_unique_and_an_unknown_name_is_an_error(state):
    add(state, MONDAYS)
    with pytest.raises(ScheduleError, match=r"'weekly'.* schedule remove weekly"):
        add(state, MONDAYS)
    with pytest.raises(ScheduleError, match=r"\(weekly\).*'daily'"):
        remove(state, "daily")
    remove(state, "weekly")
    with pytest.raises(ScheduleError, match=r"\(none yet\).*'weekly'"):
        find(state, "weekly")


def test_an_invalid_file_is_named_in_the_error(state):
    add(state, MONDAYS)
    path = state.schedule / "entries" / "weekly.json"
    path.write_text(json.dumps({"name": "weekly"}), encoding="utf-8")
    with pytest.raises(ScheduleError, match=rf"{re.escape(str(path))}.*\(cron: "):
        list_entries(state)
    (state.schedule / "records").mkdir()
    record = state.schedule / "records" / "weekly.json"
    record.write_text("{", encoding="utf-8")
    with pytest.raises(ScheduleError, match=rf"{re.escape(str(record))}.*JSON"):
        load_record(state, "weekly")
    (state.schedule / "heartbeat.json").write_text("{", encoding="utf-8")
    assert read_heartbeat(state) is None


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"added": "yesterday"}, "added: 'yesterday'.*ISO 8601"),
        ({"added": "2026-01-05T12:00:00"}, "added: '2026-01-05T12:00:00'.*ISO 8601"),
        ({"name": "daily"}, "name: 'daily'.*'weekly'"),
    ],
)
def test_an_entry_that_a_manual_edit_broke_is_named(state, changed, said):
    add(state, MONDAYS)
    path = state.schedule / "entries" / "weekly.json"
    path.write_text(json.dumps(vars(replace(MONDAYS, **changed))), encoding="utf-8")
    with pytest.raises(ScheduleError, match=rf"{re.escape(str(path))}.*{said}"):
        list_entries(state)


def test_a_heartbeat_far_ahead_is_no_life():
    ahead = Heartbeat((NOW + timedelta(days=400)).isoformat(), "", 1, "here", "running")
    assert not ahead.is_alive(NOW)
    assert ahead.is_alive(NOW + timedelta(days=400, seconds=-5))


def test_a_missed_run_is_overdue_or_skipped_as_the_entry_says(state):
    later = NOW + timedelta(days=10)
    missed, coming = datetime(2026, 1, 12, 2, tzinfo=UTC), datetime(2026, 1, 19, 2, tzinfo=UTC)
    skipping = replace(MONDAYS, missed="skip")
    assert next_due(MONDAYS, Record(), later) == missed
    assert next_due(skipping, Record(), later) == coming
    assert next_due(skipping, Record(), missed + timedelta(seconds=30)) == missed
    assert due(skipping, Record(), later) == missed  # the service writes down that it was
    assert due(MONDAYS, Record(handled_until=missed.isoformat()), later) == coming


def test_an_interrupted_run_is_due_again_but_not_for_ever():
    interrupted = Record(
        handled_until=NOW.isoformat(), due=NOW.isoformat(), outcome="killed", n_tries=1
    )
    assert due(MONDAYS, interrupted, NOW) == NOW
    assert due(replace(MONDAYS, missed="skip"), interrupted, NOW) > NOW
    assert due(MONDAYS, replace(interrupted, n_tries=MAX_TRIES), NOW) > NOW
    assert due(MONDAYS, replace(interrupted, outcome="failed"), NOW) > NOW
    assert due(MONDAYS, replace(interrupted, due="", n_tries=-1), NOW) > NOW


def test_a_record_of_a_clock_that_was_years_ahead_holds_nothing_up():
    ahead = Record(handled_until=(NOW + timedelta(days=4000)).isoformat())
    assert due(MONDAYS, ahead, NOW) == next_fire_times(MONDAYS, NOW, 1)[0]
    # A clock that is set back by less must not make a run come twice.
    fired = datetime(2026, 1, 12, 2, tzinfo=UTC)
    a_little = due(MONDAYS, Record(handled_until=fired.isoformat()), fired - timedelta(minutes=5))
    assert a_little == fired + timedelta(days=7)


def test_a_record_of_a_removed_namesake_does_not_count(state):
    old = (NOW - timedelta(days=90)).isoformat()
    add(state, MONDAYS)
    write_record(state, "weekly", Record(handled_until=old))
    assert due(MONDAYS, load_record(state, "weekly"), NOW) > NOW


def test_reading_the_schedule_imports_nothing_heavy():
    command = [sys.executable, "-X", "importtime", "-c", "import regraft.operations.schedule"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    lines = re.findall(r"^import time:.*\| +(\d+) \| +([\w.]+)", done.stderr, re.MULTILINE)
    names = {name.split(".")[0] for _, name in lines}
    assert "regraft" in names
    assert not names & {"torch", "zenml", "mlflow", "pandas", "numpy", "sqlalchemy"}


def test_a_heartbeat_of_a_dead_process_is_no_life():
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    this = psutil.Process()

    def beat(pid: int, created: float, host: str = "") -> Heartbeat:
        now = NOW.isoformat()
        return Heartbeat(now, now, pid, host or socket.gethostname(), "running", created=created)

    assert beat(this.pid, this.create_time()).is_alive(NOW)
    assert not beat(ended.pid, time.time()).is_alive(NOW)
    assert not beat(this.pid, this.create_time() - 3600).is_alive(NOW)  # its id was used again
    assert beat(ended.pid, time.time(), "another machine").is_alive(NOW)
