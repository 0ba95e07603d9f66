"""The timeline and the status page: its events, figures and open tasks."""

import json
import os
import re
import subprocess
import sys
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path

import pytest
from typer.testing import CliRunner

from regraft.cli import app
from regraft.core.errors import ConfigError, RegraftError
from regraft.core.pages import count
from regraft.core.state import State, open_state
from regraft.operations import journal
from regraft.operations.advice import ClassDelta, Delta, Reason, RetrainAdvice
from regraft.operations.journal import Attempt, Watch
from regraft.operations.schedule import Heartbeat, Record, ScheduleEntry, add
from regraft.operations.schedule.heartbeat import write_heartbeat
from regraft.operations.schedule.store import write_record
from regraft.operations.status import rebuild, refresh, timeline
from regraft.operations.status.figures import draw_accuracy, draw_drift, draw_retrainings
from regraft.operations.status.needs import Need, Past, needs
from regraft.operations.status.page import SNAPSHOT, link
from regraft.operations.status.plots import (
    Mark,
    TimeSpan,
    accuracy_plot,
    drift_plot,
    photos_plot,
    retraining_marks,
    scores,
    time_span,
)
from regraft.operations.status.registry_snapshot import (
    LedgerLine,
    MeasuredVersion,
    ModelSnapshot,
    RegistrySnapshot,
    load_snapshot,
    save_snapshot,
)
from regraft.operations.status.schedule import service_of
from regraft.operations.status.view import N_DECISIONS, view_of

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
WHO = "svc@engine"


def at(hours: float) -> str:
    return (NOON + timedelta(hours=hours)).isoformat()


def line(
    number: int, hours: float, action: str, before, after, verdict="", reason="why"
) -> LedgerLine:
    return LedgerLine(number, at(hours), WHO, action, before, after, verdict, reason)


def attempt(hours: float, outcome: str, **changes) -> Attempt:
    known = {"reason": f"it was {outcome}", **changes}
    return Attempt("clothes", at(hours - 0.2), at(hours), WHO, outcome, **known)


def trained(hours: float, outcome: str, version: int, champion: int, **changes) -> Attempt:
    known = {
        "version": version,
        "champion": champion,
        "verdict": f"verdict-{version}",
        "accuracy": 0.9,
        "accuracy_low": 0.85,
        "accuracy_high": 0.94,
        "n_test": 200,
        "n_photos": 1000 + version,
    }
    return attempt(hours, outcome, **(known | changes))


def advice(drifted: bool, message: str = "darker photos") -> RetrainAdvice:
    delta = Delta(1, (ClassDelta("shirt", 90, 10, 0, 0, 0),))
    return RetrainAdvice(
        "retrain", "10 new photos", (Reason("drift", message, "for"),), delta, drifted
    )


def watch(hours: float, drifted: bool | None, **changes) -> Watch:
    known = {"photos": "/new photos", "n_photos": 40, "reason": "darker", **changes}
    p_value = 0.001 if drifted else 0.5
    return Watch("clothes", at(hours), WHO, 1, drifted=drifted, p_value=p_value, **known)


def past(lines=(), attempts=(), watches=(), **known) -> Past:
    events = timeline(lines, attempts, watches)
    if not (lines or known):
        return Past("clothes", None, "", tuple(attempts), tuple(watches), events)
    champion = lines[-1].after if lines else None
    told = {"champion": champion, "faults": (), "pending": (), "measured": (), **known}
    model = ModelSnapshot("clothes", lines=tuple(lines), **told)
    return Past("clothes", model, at(1000), tuple(attempts), tuple(watches), events)


def test_attempt_and_the_entry_about_its_verdict_are_one_event():
    lines = [
        line(1, 0, "promote", None, 1),
        line(2, 9.9, "promote", 1, 2, "verdict-2", "better"),
        line(3, 19.9, "keep", 2, 2, "verdict-3", "version 3 not promoted: a tie"),
    ]
    tried = [trained(10, "promote", 2, 2), trained(20, "keep", 3, 2), attempt(30, "skip")]
    events = timeline(lines, tried, [])
    assert [(e.what, e.before, e.champion, e.entry) for e in events] == [
        ("promote", None, 1, 1),
        ("promote", 1, 2, 2),
        ("keep", 2, 2, 3),
        ("skip", 2, 2, None),
    ]
    assert events[1].when == at(9.9)
    assert (events[1].message, events[1].label) == ("it was promote", "promoted")
    assert re.search(r"90\.0% .* 200 .*85\.0% .* 94\.0%", events[1].details[0])
    assert "took 12 min" in events[1].details


def test_approval_is_an_event_of_its_own_after_the_one_that_waited():
    lines = [
        line(1, 0, "promote", None, 1),
        line(2, 9.9, "hold", 1, 1, "verdict-2", "version 2 waits for approval: better"),
        line(3, 30, "promote", 1, 2, "verdict-2", "approved by ada; better"),
        line(4, 40, "hold", 2, 2, "verdict-3", "version 3 waits for approval: better"),
        line(5, 50, "reject", 2, 2, "verdict-3", "version 3 rejected by ada (blue)"),
    ]
    events = timeline(lines, [trained(10, "pending", 2, 1)], [])
    told = [(e.what, e.version, e.entry) for e in events]
    assert told == [
        ("promote", 1, 1),
        ("pending", 2, 2),
        ("promote", 2, 3),
        ("pending", 3, 4),
        ("reject", 3, 5),
    ]


def test_same_verdict_twice_is_the_same_promotion_once():
    """A process that was killed after the entry; the next one comes to the same verdict."""
    lines = [line(1, 0, "promote", None, 1), line(2, 5, "promote", 1, 2, "verdict-2")]
    tried = [attempt(5.1, "killed"), trained(6, "promote", 2, 2), trained(9, "promote", 2, 2)]
    told = [(e.what, e.entry, e.champion) for e in timeline(lines, tried, [])]
    assert told == [
        ("promote", 1, 1),
        ("promote", 2, 2),
        ("killed", None, 2),
        ("serving", None, 2),
    ]


def test_rollback_and_a_move_by_hand_are_told_and_what_serves_follows():
    lines = [
        line(1, 0, "promote", None, 1),
        line(2, 10, "promote", 1, 2),
        line(3, 20, "rollback", 2, 1),
        line(4, 30, "outside", 1, 5),
    ]
    events = timeline(lines, [attempt(25, "skip"), attempt(35, "failed")], [watch(5, True)])
    assert [(e.what, e.champion) for e in events] == [
        ("promote", 1),
        ("drift", 1),
        ("promote", 2),
        ("rollback", 1),
        ("skip", 1),
        ("outside", 5),
        ("failed", 5),
    ]


def test_attempt_that_the_ledger_does_not_know_yet_counts_by_its_own_word():
    events = timeline([line(1, 0, "promote", None, 1)], [trained(10, "promote", 2, 2)], [])
    assert [(e.before, e.champion) for e in events] == [(None, 1), (1, 2)]
    newer = past([line(1, 0, "promote", None, 1)], [trained(2000, "promote", 2, 2)])
    assert newer.champion == 2
    assert past([line(1, 0, "promote", None, 1)], champion=7).champion == 7


def test_order_of_writing_does_not_change_the_timeline():
    lines = [line(1, 0, "promote", None, 1), line(2, 10, "promote", 1, 2, "verdict-2")]
    tried = [trained(10.1, "promote", 2, 2), attempt(20, "skip"), attempt(30, "failed")]
    looks = [watch(15, True), watch(16, False)]
    told = timeline(lines, tried, looks)
    assert timeline(lines, tried[::-1], looks[::-1]) == told
    assert [e.when for e in told] == sorted(e.when for e in told)


def needed(*known, **more) -> list[Need]:
    """What waits for a person, of a past(...)."""
    return list(needs(past(*known, **more)))


def test_nothing_waits_where_all_is_well():
    well = ([line(1, 0, "promote", None, 1)], [attempt(1, "skip")], [watch(2, False)])
    assert needed(*well) == []
    assert needed([], []) == []


def test_verdict_that_waits_tells_what_to_type():
    waiting = [line(1, 0, "promote", None, 1), line(2, 9.9, "hold", 1, 1, "verdict-2", "x")]
    tried = [trained(10, "pending", 2, 1, reason="better by a point")]
    commands = ("regraft approve clothes/2", 'regraft reject clothes/2 --reason "..."')
    for known in ({"pending": (2,)}, {}):  # also where the registry was read before it waited
        [need] = needed(waiting, tried, **known)
        assert (need.tone, need.commands) == ("warn", commands)
        assert re.search(r"^Version 2 .*: better by a point$", need.message)
    answered = [*waiting, line(3, 20, "promote", 1, 2, "verdict-2")]
    assert needed(answered, tried) == []


def test_failures_in_a_row_are_one_need_with_the_last_reason():
    tried = [attempt(1, "failed"), attempt(2, "killed"), attempt(3, "failed", reason="no disk")]
    [need] = needed([], tried)
    assert (need.tone, need.commands[0]) == ("bad", "regraft doctor")
    assert re.search(r"\b3 .*2026-11-24 15:00 UTC\): no disk$", need.message)
    assert needed([], [*tried, attempt(4, "skip")]) == []
    [killed] = needed([], [attempt(1, "killed")])
    assert killed.tone == "warn"
    assert re.search(r"killed .*\(2026-11-24 13:00 UTC\)", killed.message)


def test_too_few_photos_are_no_proof_that_there_is_no_drift():
    past_checks = past([], [], [watch(5, True), watch(6, False), watch(7, None)])
    assert [event.what for event in past_checks.events] == ["drift", "no drift", "inconclusive"]
    assert len(drift_plot(past_checks).points) == 2


def test_drift_waits_until_somebody_looks_again_or_another_model_serves():
    first = [line(1, 0, "promote", None, 1)]
    [need] = needed(first, [], [watch(5, True, page="/r/a.html")])
    assert need.message.endswith("(2026-11-24 17:00 UTC): darker")
    assert need.commands == ("regraft watch '/new photos'",)
    assert need.page == "/r/a.html"
    assert needed(first, [], [watch(5, True), watch(6, False)]) == []
    assert len(needed(first, [], [watch(5, True), watch(6, None)])) == 1
    assert needed([*first, line(2, 7, "promote", 1, 2)], [], [watch(5, True)]) == []
    by_itself = [trained(5, "keep", 2, 1, advice=advice(True))]
    assert "darker photos" in needed(first, by_itself)[0].message
    assert needed(first, [trained(5, "keep", 2, 1, advice=advice(False))]) == []


def test_ledger_that_was_changed_and_an_alias_that_was_moved_are_told():
    lines = [line(1, 0, "promote", None, 1)]
    [changed] = needed(lines, faults=("Entry 1 was changed.",))
    assert (changed.tone, changed.commands) == ("bad", ("regraft ledger verify clothes",))
    assert "Entry 1 was changed." in changed.message
    [moved] = needed(lines, champion=4)
    assert re.search(r"\bv1 .*\bv4\b", moved.message)


HOURLY = ScheduleEntry("nightly", "0 * * * *", "UTC", "doctor", "/", at(0))


def test_schedule_that_nobody_runs_is_told(state):
    assert service_of(state, NOON).needs == ()
    add(state, HOURLY)
    stands = service_of(state, NOON)
    assert (stands.next, stands.is_alive) == (("nightly", NOON + timedelta(hours=1)), False)
    [dead] = stands.needs
    assert (dead.tone, dead.commands) == ("bad", ("regraft schedule run",))
    for hours, n_needs in ((0.5, 0), (1.5, 1)):
        write_heartbeat(state, Heartbeat(at(hours), at(0), 1, "engine", "running"))
        stands = service_of(state, NOON + timedelta(hours=hours))
        assert stands.is_alive
        assert len(stands.needs) == n_needs
    assert re.search(r"\bnightly .*2026-11-24 13:00 UTC", stands.needs[0].message)


@pytest.mark.parametrize(
    ("outcome", "code", "message"),
    [("failed", 2, "exit code 2$"), ("timeout", 130, "exit code 130$"), ("killed", None, "")],
)
def test_scheduled_run_that_did_not_do_is_told_with_its_log(state, outcome, code, message):
    add(state, HOURLY)
    write_heartbeat(state, Heartbeat(at(0), at(0), 1, "engine", "running"))
    log = str(state.schedule / "a log")
    for ended in ("done", "skip", "running", outcome):
        made = Record(at(0), at(0), at(0), at(0), ended, code, log=log)
        write_record(state, "nightly", made)
        needs = service_of(state, NOON).needs
        assert (ended == outcome) == bool(needs)
    assert re.search(rf"\bnightly .*2026-11-24 12:00 UTC .*{message}", needs[0].message)
    assert ("exit code" in needs[0].message) == (code is not None)
    assert needs[0].commands == (f"tail '{log}'",)


def test_broken_schedule_entry_is_reported_and_hides_no_other(state):
    add(state, HOURLY)
    (state.schedule / "entries" / "bad.json").write_text("{", encoding="utf-8")
    stands = service_of(state, NOON)
    assert "/bad.json" in stands.needs[0].message
    assert stands.next == ("nightly", NOON + timedelta(hours=1))


def year() -> Past:
    lines = [line(1, 0, "promote", None, 1)]
    tried = []
    for week in range(1, 53):
        version, hours = week + 1, 168.0 * week
        wins = week % 8 == 0
        champion = version if wins else (week // 8) * 8 + 1
        tried.append(
            trained(
                hours,
                "promote" if wins else "keep",
                version,
                champion,
                accuracy=0.8 + week / 1000,
                accuracy_low=0.75,
                accuracy_high=0.9,
                n_test=200 if week < 30 else 260,
            )
        )
        if wins:
            verdict = f"verdict-{version}"
            before = lines[-1].after
            lines.append(line(version, hours - 0.1, "promote", before, version, verdict))
    tried.append(attempt(168.0 * 52 + 1, "skip", n_photos=1053))
    return past(lines, tried, [watch(700, False), watch(1400, True)])


def span_of(records: Past, days: float = 366) -> TimeSpan:
    return time_span([event.moment for event in records.events], NOON + timedelta(days=days))


def test_accuracy_has_its_intervals_and_the_champions_line():
    plot = accuracy_plot(year(), span_of(year()))
    assert len(plot.points) == 52
    champions = [point for point in plot.points if point.kind == "champion"]
    assert len(champions) == 6
    assert all(point.low < point.value < point.high for point in plot.points)
    assert plot.points[-1].moment > plot.points[0].moment
    assert len(plot.breaks) == 1
    assert champions[-1].label == "v49"
    assert plot.line[-1][1] == champions[-1].value


def test_photos_drift_and_retrainings_are_plotted():
    span = span_of(year())
    photos = photos_plot(year(), span)
    assert photos.points[0].label == count(1053)
    assert photos.line[0][1] < photos.line[-1][1]
    drift = drift_plot(year())
    assert [(point.kind, point.value) for point in drift.points] == [
        ("stable", 0.5),
        ("drifted", 0.001),
    ]
    outcomes = [mark.outcome for mark in retraining_marks(year(), span)]
    assert outcomes.count("promote") == 6
    nothing = past([], [])
    assert accuracy_plot(nothing, span) is None
    assert photos_plot(nothing, span) is None
    assert drift_plot(nothing) is None


def test_labels_of_versions_do_not_overlap_and_the_last_one_stays():
    lines = [line(1, 0, "promote", None, 1), line(2, 100, "promote", 1, 2)]
    tried = [trained(0.1, "promote", 1, 1), trained(100.1, "promote", 2, 2)]
    records = past(lines, tried)
    labels = [point.label for point in accuracy_plot(records, span_of(records)).points]
    assert labels == ["", "v2"]
    near = [point.label for point in accuracy_plot(records, span_of(records, 5)).points]
    assert near == ["v1", "v2"]


def test_retraining_that_failed_is_seen_among_many_that_overlap():
    many = [attempt(hours / 10, "skip") for hours in range(3000)]
    many[1500] = attempt(150, "failed")
    records = past([], many)
    marks = retraining_marks(records, span_of(records, 13))
    assert len(marks) < 410
    assert [mark.outcome for mark in marks].count("failed") == 1


def test_figure_is_the_same_bytes_each_time_and_has_texts_for_all(state):
    records = past([line(1, 0, "promote", None, 1)], [trained(0.1, "promote", 1, 1)])
    span = span_of(records, 9)
    plot = accuracy_plot(records, span)
    svg = draw_accuracy(plot, span, "model-1")
    assert svg == draw_accuracy(plot, span, "model-1")
    assert "<dc:date>" not in svg
    for text in (">accuracy</text>", ">date (UTC)</text>", ">v1</text>", 'aria-label="Accuracy '):
        assert text in svg
    assert "2026-11-24 v1: 90.0% of 200 test photos</title>" in svg
    assert "var(--good)" in svg
    assert not re.search(r"#0(\d)(?:0\1){2}", svg)  # every drawn colour became one of the page


def test_detection_without_a_p_value_is_drawn_below_the_scale():
    tried = [trained(5, "keep", 2, 1, advice=advice(True))]
    records = past([line(1, 0, "promote", None, 1)], tried, [watch(9, False, photos="<b>")])
    plot = drift_plot(records)
    assert [point.value for point in plot.points] == [0.5, None]
    svg = draw_drift(plot, span_of(records, 2), "model-1")
    low, high = (
        float(y)
        for y in re.findall(r'<use [^>]* y="([\d.]+)" style="fill: var\(--(?:card|bad)\)', svg)
    )
    assert high > low
    assert "darker photos</title>" in svg


def test_version_that_no_attempt_tells_of_is_measured_by_the_registry():
    known = (MeasuredVersion(1, at(-5), 0.8, 100), MeasuredVersion(2, at(5), 0.7, 0))
    found = past([line(1, 0, "promote", None, 1)], [trained(10, "keep", 2, 1)], measured=known)
    first, second = scores(found)
    assert (first.version, first.accuracy, first.n_test) == (1, 0.8, 100)
    assert first.low == pytest.approx(0.7112, abs=1e-4)
    assert first.high == pytest.approx(0.8666, abs=1e-4)
    assert (second.version, second.accuracy) == (2, 0.9)


def test_quiet_events_in_a_row_are_told_once():
    tried = [trained(1, "keep", 2, 1), *[attempt(2 + n, "skip") for n in range(30)]]
    view = view_of(past([line(1, 0, "promote", None, 1)], tried), 1, NOON + timedelta(days=3))
    assert [(row.event.what, row.n_before) for row in view.decisions] == [
        ("skip", 29),
        ("keep", 0),
        ("promote", 0),
    ]
    assert len(view_of(year(), 1, NOON + timedelta(days=366)).decisions) == N_DECISIONS
    assert (view.champion, view.days) == (1, 3)


@pytest.mark.parametrize("days", [0.1, 2, 20, 80, 365, 2000])
def test_time_axis_has_a_few_ticks_whatever_its_length(days):
    span = time_span([NOON - timedelta(days=days)], NOON)
    mark = Mark(NOON, "skip", "")
    svg = draw_retrainings((mark,), span, "model-1")
    texts = re.findall(r">([^<>]+)</text>", svg)
    assert texts.pop() == "date (UTC)"
    assert 2 <= len(texts) <= 7


@pytest.fixture
def state(tmp_path) -> State:
    return open_state(tmp_path / "state")


def fill(state: State, found: Past, read: str = ""):
    for record in (*found.attempts, *found.watches):
        journal.write_record(str(state.journal), record)
    if found.snapshot:
        save_snapshot(state.reports / SNAPSHOT, RegistrySnapshot(read or at(0), (found.snapshot,)))


class Page(HTMLParser):
    """The tags that are open, and every address."""

    def __init__(self, text: str):
        super().__init__()
        self.open, self.links, self.ids = [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        named = dict(attrs)
        self.links += [named[key] for key in ("href", "src") if key in named]
        self.ids += [named["id"]] if "id" in named else []
        if tag not in ("meta", "br", "line", "circle", "polyline", "polygon"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in ("meta", "br", "line", "circle", "polyline", "polygon"):
            assert self.open.pop() == tag


def test_page_is_whole_and_brings_all_with_it(state):
    fill(state, year())
    built = refresh(state, NOON + timedelta(days=366))
    text = built.path.read_text(encoding="utf-8")
    assert built.path == state.reports / "status.html"
    page = Page(text)
    assert set(page.links) <= {f"#{one}" for one in page.ids}
    assert "<script" not in text
    assert "http" not in text.replace("http-equiv", "")
    assert "v49" in text
    assert "1 time before" not in text


def test_page_tells_what_is_to_do_and_names_from_outside_stay_text(state):
    evil = replace(attempt(3, "failed"), name="<b>a & b</b>", reason="<script>alert(1)</script>")
    fill(state, past([], [evil], []))
    text = refresh(state, NOON).path.read_text(encoding="utf-8")
    Page(text)
    assert "<script" not in text
    assert "&lt;b&gt;a &amp; b&lt;/b&gt;" in text
    assert "1 open task<" in text
    assert "retraining failed" in text


def test_page_without_any_model_says_how_to_begin(state):
    text = rebuild(state, NOON).path.read_text(encoding="utf-8")
    Page(text)
    assert "No model yet" in text
    assert not state.mlflow_database.exists()


def test_page_shows_every_model_of_the_folder(state):
    fill(state, past([line(1, 0, "promote", None, 1)], [attempt(3, "skip")]))
    other = replace(attempt(4, "keep"), name="solar cells", version=2)
    journal.write_record(str(state.journal), other)
    built = refresh(state, NOON + timedelta(days=1))
    assert [view.name for view in built.views] == ["clothes", "solar cells"]
    page = Page(built.path.read_text(encoding="utf-8"))
    assert {"#model-1", "#model-2"} <= set(page.links)


def test_report_of_a_watch_is_linked_from_where_the_page_lies(state, tmp_path):
    seen = watch(5, True, page=str(state.reports / "drift 1.html"))
    fill(state, past([line(1, 0, "promote", None, 1)], [], [seen]))
    assert "drift%201.html" in Page(refresh(state, NOON).path.read_text(encoding="utf-8")).links
    assert link("javascript:alert(1)", tmp_path) == ""


def test_memory_that_is_none_is_nothing_known(state):
    path = state.reports / SNAPSHOT
    assert load_snapshot(path) == RegistrySnapshot()
    path.write_text('{"models": 3}', encoding="utf-8")
    assert load_snapshot(path) == RegistrySnapshot()
    fill(state, year())
    assert load_snapshot(path).models == (year().snapshot,)


def test_page_after_a_run_without_work_needs_neither_mlflow_nor_torch(state):
    fill(state, year())
    code = (
        "import sys\nfrom pathlib import Path\nfrom datetime import UTC, datetime\n"
        "from regraft.core.state import open_state\nfrom regraft.operations.status import refresh\n"
        "refresh(open_state(Path(sys.argv[1])), datetime.now(UTC))\nprint(*sys.modules)\n"
    )
    command = [sys.executable, "-c", code, str(state.root)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    heavy = {"torch", "mlflow", "zenml", "pandas", "scipy"}
    assert not heavy & set(done.stdout.split())


def run(*words: str):
    return CliRunner().invoke(app, list(words))


def test_history_of_a_model_that_was_never_registered_is_told_from_the_journal(state):
    fill(state, past([], [attempt(1, "failed", reason="no photos"), attempt(2, "killed")]))
    told = run("history", "--state", str(state.root))
    lines = told.output.splitlines()
    assert lines[0].split() == ["when", "who", "action", "champion", "verdict", "reason"]
    assert "failed" in lines[1]
    assert lines[-1] == "Champion now: clothes none"
    only = run("history", "clothes", "--limit", "1", "--state", str(state.root)).output
    assert "failed" not in only
    assert "killed" in only
    answer = json.loads(run("history", "--json", "--state", str(state.root)).output)
    assert list(answer) == ["model", "as_of", "champion", "entries", "faults", "events"]
    assert [event["what"] for event in answer["events"]] == ["failed", "killed"]
    assert answer["events"][0] == json.loads(json.dumps(asdict(timeline([], _two(state), [])[0])))


def _two(state: State) -> list[Attempt]:
    return journal.read_attempts(str(state.journal))


def test_history_of_nothing_says_what_there_is(state):
    told = run("history", "--state", str(state.root)).exception
    assert isinstance(told, RegraftError)
    assert re.search(rf"{re.escape(str(state.root))}.*`regraft train`", str(told))
    fill(state, past([], [attempt(1, "failed")]))
    told = run("history", "socks", "--state", str(state.root)).exception
    assert isinstance(told, RegraftError)
    assert re.search(rf"\bsocks\b.*{re.escape(str(state.root))}.*\bclothes\b", str(told))


def test_history_as_of_a_time_leaves_out_what_came_later(state):
    fill(state, past([], [attempt(1, "failed"), trained(30, "promote", 1, 1)]))
    told = run("history", "--as-of", "2026-11-24", "--state", str(state.root)).output
    assert "promoted" not in told
    assert re.search(r"2026-11-24 23:59:59 UTC: clothes none$", told.strip())
    assert "clothes v1" in run("history", "--state", str(state.root)).output


def test_status_command_says_it_in_a_few_lines(state, tmp_path, monkeypatch):
    fill(state, past([], [replace(trained(1, "pending", 3, 0, reason="better"), champion=None)]))
    out = tmp_path / "page.html"
    # It chooses the state folder of the process, which is put back afterwards.
    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.delitem(sys.modules, "zenml", raising=False)
    done = run("status", "--out", str(out), "--state", str(state.root))
    assert (done.exit_code, done.exception) == (0, None)
    assert os.environ["ZENML_CONFIG_PATH"] == str(state.zenml)
    told = done.stdout
    assert told.startswith("clothes: no champion\n")
    assert re.search(r"^  > Version 3 .*: better$", told, re.MULTILINE)
    assert "      regraft approve clothes/3\n" in told
    assert told.splitlines()[-1].endswith(f" {out}")
    assert out.exists()


def test_notify_command_sends_to_every_target(tmp_path):
    file = tmp_path / "said"
    config = tmp_path / "c.yaml"
    config.write_text(
        "notify:\n  targets:\n"
        f"  - {{kind: command, to: \"sh -c 'cat > {file}'\", of: [failed]}}\n"
        "  - {kind: command, to: 'false'}\n",
        encoding="utf-8",
    )
    told = run("notify", "test", "--config", str(config), "--model", "clothes")
    assert told.exit_code == 2
    first, second = told.stdout.splitlines()  # not the log, which another test may have let out
    assert first == "command: sent"
    assert re.match(r"command false .*\b1$", second)
    assert json.loads(file.read_bytes())["title"] == "clothes: a test message"
    nobody = run("notify", "test").exception
    assert isinstance(nobody, ConfigError)
    assert "notify" in str(nobody)


def test_templates_travel_with_the_package():
    root = Path(__file__).resolve().parents[2]
    assert '"regraft.operations.status" = ["templates/*"]' in (root / "pyproject.toml").read_text()
