"""A schedule entry as a ZenML schedule, where the active orchestrator can schedule."""

import json
import re
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from tiny_store import state_folder
from typer.testing import CliRunner

from regraft.core.errors import ScheduleError
from regraft.operations.schedule import ScheduleEntry, find
from tests.pipeline.conftest import reset_zenml

pytestmark = pytest.mark.pipeline

ADDED = datetime(2026, 1, 5, 12, tzinfo=UTC).isoformat()
MONDAYS = ScheduleEntry("weekly", "0 3 * * 1", "UTC", "retrain photos", "/", ADDED)


@pytest.fixture(scope="module")
def folder(template, tmp_path_factory):
    """A state folder, saved with its own stack and with one whose orchestrator can schedule."""
    with state_folder(template, tmp_path_factory.mktemp("schedules")) as folder:
        activate_scheduling_stack(folder.root / "scheduled")
        folder.save("can schedule")
        yield folder


def activate_scheduling_stack(place):
    from zenml.client import Client
    from zenml.enums import StackComponentType

    place.mkdir()
    client = Client()
    kind = StackComponentType.ORCHESTRATOR
    client.create_flavor("tests.pipeline.tiny_orchestrator.SchedulingFlavor", kind)
    made = client.create_stack_component("tiny", "tiny_scheduling", kind, {"folder": str(place)})
    store = client.active_stack_model.components[StackComponentType.ARTIFACT_STORE][0]
    client.create_stack("tiny", {kind: made.id, StackComponentType.ARTIFACT_STORE: store.id})
    client.activate_stack("tiny")


@pytest.fixture
def state(folder):
    """With the local orchestrator; a test that takes `scheduled_calls` too has the other one."""
    folder.restore("bootstrapped")
    reset_zenml()  # it remembers which stack is active
    return folder.state


@pytest.fixture
def scheduled_calls(state, folder):
    """What a stack with an orchestrator that can schedule was given, by name."""
    folder.restore("can schedule")
    reset_zenml()

    def given():
        places = (folder.root / "scheduled").glob("*.json")
        return {path.stem: json.loads(path.read_text()) for path in places}

    return given


def schedules():
    from zenml.client import Client

    found = Client().list_schedules(is_archived=False).items
    return {each.name: each.cron_expression for each in found}


def test_the_local_orchestrator_cannot_schedule_and_is_told_apart(state):
    from regraft.orchestration.schedules import can_schedule, hand_over
    from tests.pipeline.tiny_pipeline import tiny

    assert not can_schedule()
    with pytest.raises(ScheduleError, match=r"regraft \(local\).*regraft schedule run"):
        hand_over(MONDAYS, tiny, 5)


def test_an_entry_becomes_a_schedule_with_the_same_cron(scheduled_calls):
    from regraft.orchestration.schedules import can_schedule, hand_over, take_back
    from tests.pipeline.tiny_pipeline import tiny

    assert can_schedule()
    assert hand_over(MONDAYS, tiny, 5)
    assert schedules() == {"weekly": "0 3 * * 1"}
    given = scheduled_calls()["weekly"]
    assert (given["cron"], given["pipeline"]) == ("0 3 * * 1", "tiny")
    assert given["parameters"] == {"n_rows": 5}
    with pytest.raises(ScheduleError, match=r"'weekly'.*zenml pipeline schedule delete weekly"):
        hand_over(MONDAYS, tiny, 5)
    assert take_back("weekly")
    assert not take_back("weekly")
    assert (schedules(), scheduled_calls()) == ({}, {})


@pytest.mark.parametrize(
    ("zone", "cron", "expected"),
    [
        ("Asia/Tokyo", "0 3 * * 1", "0 18 * * 0"),
        *(
            pytest.param(*case, marks=pytest.mark.slow)  # a year of moments takes a second each
            for case in (
                ("UTC", "30 2 1 * *", "30 2 1 * *"),
                ("Europe/Berlin", "*/5 * * * *", "*/5 * * * *"),
                ("Asia/Tokyo", "0 12 * * 1", "0 3 * * 1"),
                ("Asia/Tokyo", "0 3,12 * * *", "0 3,18 * * *"),
                ("America/Phoenix", "15 20 * * 6", "15 3 * * 0"),
            )
        ),
    ],
)
def test_a_time_is_said_in_utc_where_it_is_the_same_all_year(zone, cron, expected):
    from regraft.orchestration.schedules import utc_cron

    assert utc_cron(replace(MONDAYS, timezone=zone, cron=cron)) == expected


@pytest.mark.parametrize(
    ("zone", "cron"),
    [
        ("Europe/Berlin", "0 3 * * 1"),  # an hour apart in summer
        ("Europe/Berlin", "*/5 3 * * *"),  # of which 500 are over before the clocks are set
        ("Asia/Tokyo", "0 3 1 * *"),  # the last day of another month
        ("Asia/Kolkata", "0 3 * * *"),  # half an hour
        ("Asia/Tokyo", "0 3,12 * * 1"),  # on two days
    ],
)
def test_a_time_that_utc_cannot_say_is_refused(zone, cron):
    from regraft.orchestration.schedules import utc_cron

    with pytest.raises(ScheduleError, match=rf"{re.escape(repr(cron))} in {zone}.*backend=local"):
        utc_cron(replace(MONDAYS, timezone=zone, cron=cron))


def command(state, *arguments):
    from regraft.cli import app

    done = CliRunner().invoke(
        app, ["schedule", *arguments, "--state", str(state.root)], catch_exceptions=False
    )
    assert done.exit_code == 0
    return done.output


def test_what_is_no_pipeline_stays_here_and_is_said_so(scheduled_calls, state):
    said = command(state, "add", "--cron", "0 3 * * 1", "--command", "doctor", "--timezone", "UTC")
    assert "`regraft schedule run` must run" in said
    assert find(state, "doctor").backend == "local"
    with pytest.raises(ScheduleError, match=r"\bfix .*ZenML.* doctor "):
        command(
            *(state, "add", "--cron", "0 3 * * 1", "--command", "doctor --fix", "--name", "fix"),
            *("--set", "backend=zenml"),
        )
    assert schedules() == {}


def test_a_retraining_is_handed_over_and_taken_back_by_the_same_commands(
    scheduled_calls, state, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    words = ("--cron", "0 3 * * 1", "--timezone", "UTC", "--command", "retrain photos")
    said = command(state, "add", *words)
    assert re.match(r"retrain-photos: regraft retrain photos, .*\bMon .*ZenML", said)
    assert schedules() == {"retrain-photos": "0 3 * * 1"}
    given = scheduled_calls()["retrain-photos"]
    assert given["pipeline"] == "retrain"
    assert str(tmp_path / "photos") in json.dumps(given["parameters"])
    assert "by ZenML" in command(state, "list")
    command(state, "remove", "retrain-photos")
    assert (schedules(), scheduled_calls()) == ({}, {})


def test_a_retraining_whose_targets_have_addresses_stays_here(scheduled_calls, state, tmp_path):
    config = tmp_path / "prod.yaml"
    config.write_text("notify: {targets: [{kind: webhook, to: 'https://h/T0ken'}]}")
    words = ("--cron", "0 3 * * 1", "--timezone", "UTC")
    words += ("--command", f"retrain photos --config {config}", "--name", "weekly")
    command(state, "add", *words)
    assert find(state, "weekly").backend == "local"
    assert (schedules(), scheduled_calls()) == ({}, {})
    with pytest.raises(ScheduleError, match=r"would store the addresses of its notif") as refused:
        command(state, "add", *words[:-1], "again", "--set", "backend=zenml")
    assert "T0ken" not in str(refused.value)


def test_a_retraining_stays_here_where_it_was_told_to(scheduled_calls, state):
    words = ("--cron", "0 3 * * 1", "--timezone", "UTC", "--command", "retrain photos")
    command(state, "add", *words, "--set", "backend=local")
    assert find(state, "retrain-photos").backend == "local"
    assert (schedules(), scheduled_calls()) == ({}, {})


def test_the_local_orchestrator_is_no_backend(state):
    words = ("--cron", "0 3 * * 1", "--timezone", "UTC", "--command", "retrain photos")
    with pytest.raises(ScheduleError, match=r"retrain-photos.*ZenML.*orchestrator"):
        command(state, "add", *words, "--set", "backend=zenml")
    assert "`regraft schedule run` must run" in command(state, "add", *words)
