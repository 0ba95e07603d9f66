"""What the doctor finds wrong with a state folder, what it mends, and what it leaves alone."""

import json
import re
import shutil
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import typer
from tiny_registry import NAME, two_versions
from tiny_store import in_children, state_folder
from typer.testing import CliRunner

from regraft import registry
from regraft.cli.doctor import doctor
from regraft.core.state import marked_runs, run_marker
from regraft.orchestration.doctor import diagnose
from regraft.orchestration.runs import stuck_runs, sweep_missing, sweep_stuck
from regraft.registry.ledger import ENTRY, Draft, append_entry
from regraft.registry.tracking import connect

pytestmark = pytest.mark.pipeline

NOW = datetime.now(UTC)


@pytest.fixture(scope="module")
def folder(template, tmp_path_factory):
    """A state folder, saved empty, after a run, with two registered versions, and after a kill."""
    with state_folder(template, tmp_path_factory.mktemp("doctor")) as folder:
        run_tiny()
        folder.save("ran")
        folder.restore("bootstrapped")
        two_versions(folder.tracking)
        folder.save("two versions")
        folder.restore("bootstrapped")
        assert in_children(lambda: run_deadly(folder.state)) == [-signal.SIGKILL]
        folder.save("killed")
        yield folder


def run_deadly(state):
    """A run that kills its own process in its second step."""
    from tests.pipeline.tiny_pipeline import deadly

    with run_marker(state, "killed"):
        deadly.with_options(run_name="killed")()


@pytest.fixture
def state(folder):
    """Without a run or a model."""
    folder.restore("bootstrapped")
    return folder.state


@pytest.fixture
def ran(folder):
    """After one run of tiny()."""
    folder.restore("ran")
    return folder.state


@pytest.fixture
def killed(folder):
    """In which a run was killed -9 in its second step."""
    folder.restore("killed")
    return folder.state


@pytest.fixture
def tracking(folder):
    """A registry in which version 1 serves and version 2 is the challenger."""
    folder.restore("two versions")
    return folder.tracking


def finding(state, check):
    return next(finding for finding in diagnose(state) if finding.check == check)


def run_tiny():
    from tests.pipeline.tiny_pipeline import tiny

    return tiny()


def last_run():
    from zenml.client import Client

    return Client().get_pipeline("tiny").last_run


def delete_table(run):
    uri = Path(run.steps["make_table"].outputs["table"][0].uri)
    shutil.rmtree(uri)
    return uri


def test_a_healthy_state_has_nothing_to_report(ran):
    assert [finding for finding in diagnose(ran) if not finding.ok] == []


def test_a_full_disk_and_absent_weights_come_with_a_remedy(state, monkeypatch):
    monkeypatch.setattr("regraft.orchestration.doctor.RUN_BYTES", 2**80)
    monkeypatch.setattr("regraft.orchestration.doctor.WEIGHTS", ("no_such_weights",))
    disk, weights = finding(state, "disk"), finding(state, "weights")
    assert (disk.ok, weights.ok) == (False, False)
    assert f"{2**50}.0 GiB" in disk.remedy
    assert "no_such_weights" in weights.detail
    assert "no_such_weights" in weights.remedy


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


def test_zenml_reuses_a_step_whose_artifact_is_there(ran):
    assert sweep_missing() == []
    assert run_tiny().steps["make_table"].status == "cached"


def test_a_step_whose_artifact_is_gone_is_found_and_run_again(ran):
    uri = delete_table(last_run())
    found = finding(ran, "missing artifacts")
    assert not found.ok
    assert str(uri) in found.detail
    assert [artifact.uri for artifact in sweep_missing()] == [str(uri)]
    assert finding(ran, "missing artifacts").ok
    assert run_tiny().steps["make_table"].status == "completed"


def test_the_command_prints_a_table_and_ends_with_7_when_something_is_wrong(killed):
    table = call_doctor(killed)
    assert table.exit_code == 7
    assert re.search("FAIL  stuck runs +1: killed", table.output)
    sweep_stuck(killed, NOW)
    answer = call_doctor(killed, "--json")
    assert answer.exit_code == 0
    assert {row["check"] for row in json.loads(answer.output)} >= {"stuck runs", "moved"}


def call_doctor(state, *arguments):
    app = typer.Typer()
    app.command()(doctor)
    return CliRunner().invoke(app, ["--state", str(state.root), *arguments])


def test_promotion_that_was_killed_is_found_and_carried_out(folder, tracking):
    state = folder.state
    head = registry.list_entries(tracking, NAME)[-1].hash
    append_entry(tracking, Draft(NOW.isoformat(), "me", "promote", NAME, 1, 2, "", "better"), head)
    found = finding(state, "promotions")
    assert (found.ok, found.remedy) == (False, "regraft doctor --fix")
    assert re.match(rf"{NAME}: entry 2 ", found.detail)
    assert registry.get_aliases(tracking, NAME)["champion"] == 1  # looking changes nothing
    said = call_doctor(state, "--fix")
    assert said.exit_code == 0, said.output
    assert f"repaired  promotion: {found.detail}" in said.output
    assert registry.get_aliases(tracking, NAME) == {"champion": 2, "challenger": 2, "previous": 1}


def test_champion_moved_by_hand_is_found_and_written_down(folder, tracking):
    state = folder.state
    registry.set_alias(tracking, registry.find(tracking, NAME, "2"), "champion")
    assert re.match(rf"{NAME}: v2 .* v1", finding(state, "promotions").detail)
    assert call_doctor(state, "--fix").exit_code == 0
    assert registry.get_aliases(tracking, NAME)["champion"] == 2
    assert registry.list_entries(tracking, NAME)[-1].action == "outside"


def test_changed_ledger_is_found_and_nothing_is_mended_on_it(folder, tracking):
    state = folder.state
    client = connect(tracking)
    said = client.get_model_version(f"{NAME}.ledger", "1").tags[ENTRY]
    client.set_model_version_tag(f"{NAME}.ledger", "1", ENTRY, said.replace("better", "worse"))
    registry.set_alias(tracking, registry.find(tracking, NAME, "2"), "champion")
    told = call_doctor(state, "--fix")
    assert told.exit_code == 7
    assert "FAIL  ledger" in told.output
    assert f"{NAME}: {registry.list_faults(tracking, NAME)[0]}" in told.output
    assert registry.get_aliases(tracking, NAME)["champion"] == 2
    assert len(registry.list_entries(tracking, NAME)) == 1


def test_fix_marks_a_killed_run_failed_and_leaves_json_readable(killed):
    said = call_doctor(killed, "--fix", "--json")
    assert said.exit_code == 0, said.output
    assert {row["ok"] for row in json.loads(said.stdout)} == {True}
    assert "repaired  stuck run killed: " in said.stderr


def test_fix_lets_a_step_be_run_again_whose_artifact_is_gone(ran):
    uri = delete_table(last_run())
    said = call_doctor(ran, "--fix")
    assert said.exit_code == 0, said.output
    assert re.search(rf"repaired  artifact table: .*{re.escape(str(uri))}", said.output)
