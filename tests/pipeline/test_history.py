"""History and status of a model in a real registry, with a journal."""

import json
import re
import sys
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta

import pytest
from mlflow import MlflowClient
from tiny_store import Store
from typer.testing import CliRunner

from regraft.cli import app
from regraft.core.config import TrackingConfig
from regraft.core.errors import ModelNotFound
from regraft.core.state import State, environment, open_state
from regraft.operations import journal
from regraft.operations.journal import Attempt
from regraft.operations.status import rebuild, refresh
from regraft.operations.status.page import SNAPSHOT
from regraft.operations.status.registry_snapshot import load_snapshot
from regraft.registry.champion import (
    ChampionChange,
    DecisionRecord,
    move_champion,
    record_decision,
    roll_back,
)
from regraft.registry.ledger import list_entries, list_faults

pytestmark = pytest.mark.pipeline

WHO = "ada@engine"
NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A state folder where version 2 was promoted after 1, by a retraining, and 3 kept back."""
    store = Store(tmp_path_factory.mktemp("history"))
    state, tracking = open_state(store.root), store.tracking
    client = client_of(tracking)
    client.create_registered_model("tiny")
    for number in range(1, 5):
        seal = {"content_hash": f"{number}", "test_accuracy": "0.8", "n_test": "50"}
        client.create_model_version("tiny", "regraft:/nothing", tags=seal)
    move_champion(
        tracking, "tiny", ChampionChange("promote", 1, "verdict-1", "first", WHO), None, NOON
    )
    move = ChampionChange("promote", 2, "verdict-2", "better", WHO)
    move_champion(tracking, "tiny", move, 1, NOON + timedelta(hours=1))
    note = DecisionRecord("keep", "verdict-3", "version 3 not promoted: a tie", WHO)
    record_decision(tracking, "tiny", note, NOON + timedelta(hours=2))
    for hours, outcome, version in ((1, "promote", 2), (2, "keep", 3)):
        journal.write_record(str(state.journal), attempt(hours, outcome, version))
    journal.write_record(str(state.journal), replace(attempt(3, "skip", None), verdict=""))
    store.save("there")
    return store


@pytest.fixture
def there(store, monkeypatch):
    store.restore("there")
    state = State(store.root)
    for name, value in environment(state, debug=False).items():
        monkeypatch.setenv(name, value)
    return state, store.tracking


def client_of(tracking: TrackingConfig) -> MlflowClient:
    return MlflowClient(tracking_uri=tracking.uri, registry_uri=tracking.uri)


def attempt(hours: float, outcome: str, version: int | None) -> Attempt:
    started = NOON + timedelta(hours=hours)
    measured = (0.9, 0.85, 0.94, 200) if version else (None, None, None, 0)
    accuracy, low, high, n_test = measured
    return Attempt(
        name="tiny",
        started=started.isoformat(),
        ended=(started + timedelta(minutes=5)).isoformat(),
        who=WHO,
        outcome=outcome,
        reason=f"because of {outcome}",
        version=version,
        verdict=f"verdict-{version}",
        champion=2,
        accuracy=accuracy,
        accuracy_low=low,
        accuracy_high=high,
        n_test=n_test,
        n_photos=1000,
    )


def run(*words: str, state: State):
    return CliRunner().invoke(app, [*words, "--state", str(state.root)])


def test_ledger_and_journal_are_one_timeline(there):
    state, tracking = there
    roll_back(tracking, "tiny", WHO, "it was worse", NOON + timedelta(hours=5))
    lines = run("history", state=state).output.splitlines()
    told = [(line[:16], line.split()[3]) for line in lines[1:-1]]
    assert told == [
        ("2026-11-24 12:00", "promoted"),
        ("2026-11-24 13:00", "promoted"),
        ("2026-11-24 14:00", "kept"),
        ("2026-11-24 15:05", "skipped"),
        ("2026-11-24 17:00", "rolled"),
    ]
    assert "v2 -> v1" in lines[5]
    assert lines[-1].endswith(" tiny v1")


def test_json_keeps_its_entries_and_adds_the_events(there):
    state, tracking = there
    answer = json.loads(run("history", "tiny", "--json", state=state).output)
    assert answer["entries"] == [asdict(entry) for entry in list_entries(tracking, "tiny")]
    assert answer["champion"] == 2
    assert [event["entry"] for event in answer["events"]] == [1, 2, 3, None]
    then = ("history", "--as-of", "2026-11-24T13:30", "--json")
    answer = json.loads(run(*then, state=state).output)
    assert (len(answer["entries"]), len(answer["events"]), answer["champion"]) == (2, 2, 2)
    limited = run("history", "--limit", "2", state=state).output.splitlines()
    assert len(limited) == 4


def test_model_that_only_the_journal_knows_has_a_history_beside_a_registry(there):
    state, _ = there
    journal.write_record(str(state.journal), replace(attempt(4, "failed", None), name="socks"))
    told = run("history", "socks", state=state).output
    assert "failed" in told
    assert " socks " in told.splitlines()[-1]
    wrong = run("history", "shoes", state=state).exception
    assert isinstance(wrong, ModelNotFound)
    assert re.search(r" shoes .* tiny\.", str(wrong))


def test_status_reads_the_registry_and_refresh_remembers_it(there):
    state, tracking = there
    built = rebuild(state, NOON + timedelta(days=1))
    [view] = built.views
    assert (view.champion, view.since) == (2, NOON + timedelta(hours=1))
    assert view.needs == ()
    assert [point.label for point in view.accuracy.points if point.label]
    memory = load_snapshot(state.reports / SNAPSHOT)
    [known] = memory.models
    assert [line.action for line in known.lines] == ["promote", "promote", "keep"]
    assert [one.version for one in known.measured] == [1, 4]
    journal.write_record(str(state.journal), attempt(30, "failed", None))
    [view] = refresh(state, NOON + timedelta(days=2)).views
    assert view.champion == 2
    assert "because of failed" in view.needs[0].message
    client_of(tracking).set_registered_model_alias("tiny", "champion", "4")
    [view] = rebuild(state, NOON + timedelta(days=3)).views
    assert view.champion == 4
    assert view.since is None
    assert any(re.search(r"\bv2\b.*\bv4\b", need.message) for need in view.needs)


def test_version_that_waits_and_a_broken_ledger_are_on_the_page(there):
    state, tracking = there
    client_of(tracking).set_model_version_tag("tiny", "4", "approval", "pending")
    client_of(tracking).delete_model_version("tiny.ledger", "2")
    told = run("status", state=state).output
    assert re.search(rf"  ! .*{list_faults(tracking, 'tiny')[0]}", told)
    assert re.search(r"  > .*\b4\b.*\n +regraft approve tiny/4\n", told)
    page = (state.reports / "status.html").read_text(encoding="utf-8")
    assert "regraft approve tiny/4" in page
    assert re.search(r"\b2 open tasks\b", page)


def test_page_of_a_real_training_is_complete(world, monkeypatch, capsys):
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    built = rebuild(world.state, datetime.now(UTC))
    [view] = built.views
    assert view.champion == 1
    assert view.score.n_test > 0
    assert view.score.low < view.score.accuracy <= view.score.high
    assert "v1" in built.path.read_text(encoding="utf-8")
