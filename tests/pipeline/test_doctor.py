import json
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import typer
from tiny_registry import NAME, two_versions
from typer.testing import CliRunner

from commands.doctor import doctor
from pipelines.doctor import diagnose, stuck_runs, sweep_missing, sweep_stuck
from pipelines.stack import bootstrap
from regraft import registry
from regraft.config import TrackingConfig
from regraft.registry.ledger import ENTRY, Draft, append
from regraft.state import marked_runs
from regraft.tracking import connect
from tests.pipeline.conftest import copy_of, reset_zenml

pytestmark = pytest.mark.pipeline

NOW = datetime.now(UTC)
KILLED = """
import sys
from pathlib import Path
from regraft.state import activate, open_state, run_marker
from pipelines.stack import bootstrap
state = open_state(Path(sys.argv[1]))
activate(state)
bootstrap(state)
from tests.pipeline.tiny_pipeline import deadly
with run_marker(state, "killed"):
    deadly.with_options(run_name="killed")()
"""


@pytest.fixture(scope="module")
def killed_template(template, tmp_path_factory, shell):
    """A state folder in which a run was killed -9 in its second step."""
    root = shutil.copytree(template, tmp_path_factory.mktemp("killed") / "state")
    command = [sys.executable, "-c", KILLED, str(root)]
    done = subprocess.run(command, env=shell, capture_output=True, text=True, timeout=120)
    assert done.returncode == -9, done.stderr
    return root


@pytest.fixture
def killed(killed_template, tmp_path, monkeypatch):
    state = copy_of(killed_template, tmp_path / "state folder", monkeypatch)
    bootstrap(state)
    yield state
    reset_zenml()


def finding(state, check):
    return next(finding for finding in diagnose(state) if finding.check == check)


def run_tiny():
    from tests.pipeline.tiny_pipeline import tiny

    return tiny()


def delete_table(run):
    uri = Path(run.steps["make_table"].outputs["table"][0].uri)
    shutil.rmtree(uri)
    return uri


def test_a_healthy_state_has_nothing_to_report(state):
    bootstrap(state)
    run_tiny()
    assert [finding for finding in diagnose(state) if not finding.ok] == []


def test_a_full_disk_and_absent_weights_come_with_a_remedy(state, monkeypatch):
    monkeypatch.setattr("pipelines.doctor._MIN_FREE_BYTES", 2**80)
    monkeypatch.setattr("pipelines.doctor.WEIGHTS", ("no_such_weights",))
    assert finding(state, "disk").remedy.startswith("Free some space: a run may need")
    assert finding(state, "weights").detail == "not installed: no_such_weights"


def test_a_folder_that_cannot_be_written_is_named(state, monkeypatch):
    def refuse(dir):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    found = finding(state, "writable")
    assert (found.ok, found.detail) == (False, f"{state.root}: Permission denied")


def test_a_killed_run_is_found_by_its_dead_marker(killed):
    assert marked_runs(killed) == {"killed": False}
    found = finding(killed, "stuck runs")
    assert (found.ok, found.detail) == (False, "1: killed")


def test_a_swept_run_and_its_unfinished_steps_are_failed(killed):
    from zenml.client import Client

    assert sweep_stuck(killed, NOW) == ["killed"]
    run = Client().get_pipeline_run("killed")
    assert run.status == "failed"
    assert {name: step.status for name, step in run.steps.items()} == {
        "make_table": "completed",
        "die": "failed",
    }
    assert finding(killed, "stuck runs").ok
    assert marked_runs(killed) == {}


def test_a_run_without_a_marker_is_reported_and_spared_for_a_day(killed):
    for path in killed.runs.iterdir():
        path.unlink()
    assert [run.marked for run in stuck_runs(killed)] == [False]
    assert sweep_stuck(killed, NOW) == []
    assert sweep_stuck(killed, NOW + timedelta(days=2)) == ["killed"]


def test_zenml_reuses_a_step_whose_artifact_is_there(state):
    bootstrap(state)
    run_tiny()
    assert sweep_missing() == []
    assert run_tiny().steps["make_table"].status == "cached"


def test_a_step_whose_artifact_is_gone_is_found_and_run_again(state):
    bootstrap(state)
    uri = delete_table(run_tiny())
    found = finding(state, "missing artifacts")
    assert not found.ok
    assert str(uri) in found.detail
    assert [artifact.uri for artifact in sweep_missing()] == [str(uri)]
    assert finding(state, "missing artifacts").ok
    assert run_tiny().steps["make_table"].status == "completed"


def test_the_command_prints_a_table_and_ends_with_7_when_something_is_wrong(killed):
    app = typer.Typer()
    app.command()(doctor)
    table = CliRunner().invoke(app, ["--state", str(killed.root)])
    assert table.exit_code == 7
    assert "FAIL  stuck runs         1: killed" in table.output
    sweep_stuck(killed, NOW)
    answer = CliRunner().invoke(app, ["--state", str(killed.root), "--json"])
    assert answer.exit_code == 0
    assert {row["check"] for row in json.loads(answer.output)} >= {"stuck runs", "moved"}


@pytest.fixture
def tracking(state):
    """A registry in which version 1 serves and version 2 is the challenger."""
    bootstrap(state)
    return two_versions(TrackingConfig(uri=state.tracking_uri))


def call_doctor(state, *arguments):
    app = typer.Typer()
    app.command()(doctor)
    return CliRunner().invoke(app, ["--state", str(state.root), *arguments])


def test_promotion_that_was_killed_is_found_and_carried_out(state, tracking):
    head = registry.entries(tracking, NAME)[-1].hash
    append(tracking, Draft(NOW.isoformat(), "me", "promote", NAME, 1, 2, "", "better"), head)
    found = finding(state, "promotions")
    assert (found.ok, found.remedy) == (False, "regraft doctor --fix")
    assert found.detail == f"{NAME}: entry 2 of the ledger was not carried out."
    assert registry.aliases(tracking, NAME)["champion"] == 1  # looking changes nothing
    said = call_doctor(state, "--fix")
    assert said.exit_code == 0, said.output
    assert f"mended  promotion: {NAME}: entry 2 of the ledger was not carried out." in said.output
    assert registry.aliases(tracking, NAME) == {"champion": 2, "challenger": 2, "previous": 1}


def test_champion_moved_by_hand_is_found_and_written_down(state, tracking):
    registry.set_alias(tracking, registry.find(tracking, NAME, "2"), "champion")
    assert finding(state, "promotions").detail == f"{NAME}: v2 serves, the ledger says v1."
    assert call_doctor(state, "--fix").exit_code == 0
    assert registry.aliases(tracking, NAME)["champion"] == 2
    assert registry.entries(tracking, NAME)[-1].action == "outside"


def test_changed_ledger_is_found_and_nothing_is_mended_on_it(state, tracking):
    client = connect(tracking)
    said = client.get_model_version(f"{NAME}.ledger", "1").tags[ENTRY]
    client.set_model_version_tag(f"{NAME}.ledger", "1", ENTRY, said.replace("better", "worse"))
    registry.set_alias(tracking, registry.find(tracking, NAME, "2"), "champion")
    told = call_doctor(state, "--fix")
    assert told.exit_code == 7
    assert "FAIL  ledger" in told.output
    assert f"{NAME}: Entry 1 was changed" in told.output
    assert registry.aliases(tracking, NAME)["champion"] == 2
    assert len(registry.entries(tracking, NAME)) == 1


def test_fix_marks_a_killed_run_failed_and_leaves_json_readable(killed):
    app = typer.Typer()
    app.command()(doctor)
    said = CliRunner().invoke(app, ["--state", str(killed.root), "--fix", "--json"])
    assert said.exit_code == 0, said.output
    assert {row["ok"] for row in json.loads(said.stdout)} == {True}
    assert "mended  stuck run killed: marked failed" in said.stderr


def test_fix_lets_a_step_be_run_again_whose_artifact_is_gone(state):
    bootstrap(state)
    uri = delete_table(run_tiny())
    said = call_doctor(state, "--fix")
    assert said.exit_code == 0, said.output
    assert f"mended  artifact table: not used again, {uri} is gone" in said.output
