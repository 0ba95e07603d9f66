"""A damaged file of a state folder is named with a remedy, and hides nothing else."""

import json
import os
import re
import sqlite3
import sys
from contextlib import closing
from datetime import UTC, datetime

import pytest

from regraft.cli import main
from regraft.core.config import TrackingConfig
from regraft.core.errors import DatabaseDamaged
from regraft.core.state import (
    open_state,
    places,
    reported_faults,
    require_mlflow_database,
    require_zenml_database,
)
from regraft.operations.journal import Attempt, write_record
from regraft.operations.schedule import ScheduleEntry, add
from regraft.operations.status import rebuild
from regraft.orchestration.doctor import diagnose

NOW = datetime(2026, 11, 24, tzinfo=UTC)


@pytest.fixture
def state(tmp_path):
    """A folder with a record in the journal, a schedule entry, and both databases in use."""
    state = open_state(tmp_path / "state")
    write_record(str(state.journal), attempt("first"))
    add(state, entry("weekly"))
    for path in (state.mlflow_database, state.zenml_database):
        fill(path)
    state.mlflow_database.with_suffix(".version").write_text("3")
    (state.artifacts / "table").mkdir()
    return state


def attempt(reason: str) -> Attempt:
    when = NOW.isoformat()
    return Attempt("cats", when, when, "me", "skip", reason)


def entry(name: str) -> ScheduleEntry:
    return ScheduleEntry(name, "0 3 * * 1", "UTC", "doctor", "/", NOW.isoformat())


def fill(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE t (x)")
        database.executemany("INSERT INTO t VALUES (?)", [("x" * 500,)] * 100)
        database.commit()


def overwrite(path):
    path.write_bytes(b"not a database, and longer than the header of one" * 10)


def empty(path):
    path.write_bytes(b"")


def remove(path):
    path.unlink()


def drop_tables(path):
    with closing(sqlite3.connect(path)) as database:
        database.execute("DROP TABLE t")
        database.commit()


DAMAGES = (overwrite, empty, remove, drop_tables)


@pytest.fixture
def call(state, monkeypatch, capsys):
    """Run `regraft ARGUMENTS --state ...` in this process: exit code, stdout, stderr."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    before = dict(os.environ)  # a command changes the variables of its process
    os.environ["ZENML_CONFIG_PATH"] = str(state.zenml)  # other tests of this process use ZenML

    def called(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["regraft", *arguments, "--state", str(state.root)])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    yield called
    os.environ.clear()
    os.environ.update(before)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_database_is_named_with_what_to_do(state, damage):
    require_mlflow_database(state.mlflow_database)
    require_zenml_database(state)
    damage(state.mlflow_database)
    with pytest.raises(DatabaseDamaged, match=rf"{state.root}/mlflow\.db, got .*backup.*mlflow\.v"):
        require_mlflow_database(state.mlflow_database)
    damage(state.zenml_database)
    with pytest.raises(DatabaseDamaged, match=rf"{state.zenml_database}, got .*backup.*artifacts"):
        require_zenml_database(state)


def test_a_database_that_is_not_there_yet_is_no_damage(tmp_path):
    fresh = open_state(tmp_path / "fresh")
    require_mlflow_database(fresh.mlflow_database)
    require_zenml_database(fresh)
    empty(fresh.mlflow_database)  # another process is creating it
    require_mlflow_database(fresh.mlflow_database)


def test_damage_inside_a_file_is_found_by_the_thorough_check_alone(state):
    with state.mlflow_database.open("r+b") as file:
        file.seek(4096 * 3)
        file.write(b"\xff" * 4096)
    require_mlflow_database(state.mlflow_database)
    with pytest.raises(DatabaseDamaged):
        require_mlflow_database(state.mlflow_database, thorough=True)


def test_an_error_of_a_library_about_damage_becomes_the_file_and_the_remedy(state, monkeypatch):
    monkeypatch.setenv("ZENML_CONFIG_PATH", str(state.zenml))
    overwrite(state.zenml_database)
    with pytest.raises(DatabaseDamaged, match=str(state.zenml_database)), reported_faults():
        raise RuntimeError("(sqlite3.DatabaseError) file is not a database")


def test_a_registry_that_is_damaged_is_not_created_anew(state):
    from regraft.registry.tracking import connect

    empty(state.mlflow_database)
    with pytest.raises(DatabaseDamaged, match="mlflow"):
        connect(TrackingConfig(uri=places(state).tracking.uri))
    assert state.mlflow_database.read_bytes() == b""


def test_a_registry_that_was_deleted_is_told_by_every_reader(state, call):
    state.mlflow_database.unlink()
    for command in ("models", "history", "explain"):
        code, out, err = call(command)
        assert (code, out) == (7, "")
        assert re.search(rf"^DatabaseDamaged: .*{state.root}/mlflow\.db, got no such file", err)


def break_all(state):
    overwrite(state.mlflow_database)
    empty(state.zenml_database)
    (state.journal / "attempts" / "notes.json").write_text("{")
    (state.schedule / "entries" / "broken.json").write_text("{")


def test_the_doctor_finds_each_damaged_file(state):
    break_all(state)
    failed = {result.check: result for result in diagnose(state) if not result.ok}
    files = {
        "MLflow's database": state.mlflow_database,
        "ZenML's database": state.zenml_database,
        "journal": state.journal / "attempts" / "notes.json",
        "schedule": state.schedule / "entries" / "broken.json",
    }
    assert failed.keys() - {"disk", "weights"} == files.keys()
    for check, path in files.items():
        assert str(path) in failed[check].detail
        assert failed[check].remedy


def test_the_doctor_command_ends_with_7_and_repairs_nothing_blindly(state, call):
    break_all(state)
    code, out, err = call("doctor", "--fix", "--json")
    assert (code, err) == (7, "")
    assert len([row for row in json.loads(out) if not row["ok"]]) >= 4


def test_one_broken_record_hides_no_other(state, call):
    (state.journal / "attempts" / "notes.json").write_text("{")
    state.mlflow_database.unlink()
    state.mlflow_database.with_suffix(".version").unlink()
    code, out, err = call("history")
    assert code == 0
    assert "first" in out
    assert "notes.json" in err
    write_record(str(state.journal), attempt("after the broken one"))
    assert "after the broken one" in call("history")[1]
    built = rebuild(state, NOW)
    assert [view.name for view in built.views] == ["cats"]
    assert "notes.json" in built.service.needs[0].message


def test_a_damaged_registry_hides_no_record_from_the_status_page(state, call):
    overwrite(state.mlflow_database)
    code, out, _ = call("status")
    assert code == 0
    assert "cats: no champion" in out
    assert f"! Expected MLflow's database, with all models and decisions, in {state.root}" in out
    assert call("models")[0] == 7


def test_one_broken_schedule_entry_hides_no_other(state, call):
    broken = state.schedule / "entries" / "broken.json"
    broken.write_text("{")
    code, out, err = call("schedule", "list")
    assert code == 0
    assert "weekly" in out
    assert str(broken) in err
    assert call("schedule", "remove", "weekly")[0] == 0
