"""A verdict that waits for a person: in this process, in another, killed and answered twice."""

import shutil
import subprocess
import sys
from datetime import UTC, datetime

import pytest
import typer
from tiny_train import NAME, SETTINGS, command
from typer.testing import CliRunner

from commands.approve import approve, reject
from regraft import registry
from regraft.config import TrackingConfig, load_config
from regraft.errors import ChampionMoved, NothingWaits
from regraft.promote import load_verdict
from regraft.state import marked_runs, open_state, who_am_i
from regraft.tracking import connect
from tests.pipeline.conftest import copy_of, enter, one_thread, reset_zenml

pytestmark = pytest.mark.pipeline

NOW = datetime.now(UTC)
# A challenger that passes against a champion which has every photo right, and waits.
HUMAN = (
    *("promote.approval=human", "promote.rule=not_inferior", "promote.max_loss=1"),
    *("promote.max_recall_drop=1", "promote.max_slice_drop=1", "promote.max_calibration_rise=1"),
    *("promote.min_photos=1", "promote.smoke_test=false", "tune.head_l2=[0.5]"),
)
KILLED = """
import os, signal, sys
from datetime import UTC, datetime
from pathlib import Path
from regraft.state import activate, open_state
from pipelines.stack import bootstrap
state = open_state(Path(sys.argv[1]))
activate(state)
bootstrap(state)
from pipelines.approval import start_approval
from regraft import registry
from regraft.config import TrackingConfig, load_config
from regraft.promote import load_verdict
from zenml.zen_stores.sql_zen_store import SqlZenStore
def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)
SqlZenStore.update_run_wait_condition_lease = die  # the next call after the question is asked
tracking = TrackingConfig(uri=state.tracking_uri)
verdict = load_verdict(tracking, registry.find(tracking, "colours", "2"))
start_approval(verdict, tracking, state, datetime.now(UTC))
"""


@pytest.fixture(scope="module")
def waiting_template(_first, tmp_path_factory):
    """A state folder in which version 1 serves and the verdict about version 2 waits."""
    world, backup = _first
    world.restore(backup)
    with pytest.MonkeyPatch.context() as monkeypatch, one_thread():
        enter(world.state, monkeypatch)
        world.train(*HUMAN)
        stop_waiting_runs()
        reset_zenml()
    root = shutil.copytree(world.state.root, tmp_path_factory.mktemp("waiting") / "state")
    return open_state(root).root


def stop_waiting_runs():
    """Each test begins its own."""
    from zenml.client import Client
    from zenml.enums import RunWaitConditionResolution

    for asked in Client().list_run_wait_conditions(status="pending").items:
        Client().resolve_run_wait_condition(asked.id, RunWaitConditionResolution.ABORT)


@pytest.fixture
def state(waiting_template, tmp_path, monkeypatch):
    from pipelines.stack import bootstrap

    copied = copy_of(waiting_template, tmp_path / "state folder", monkeypatch)
    bootstrap(copied)
    yield copied
    reset_zenml()


@pytest.fixture
def tracking(state):
    return TrackingConfig(uri=state.tracking_uri)


def begin(state, tracking):
    """The waiting run, made in this process."""
    from pipelines.approval import start_approval

    verdict = load_verdict(tracking, registry.find(tracking, NAME, "2"))
    return start_approval(verdict, tracking, state, NOW)


def call(act, state, *arguments):
    app = typer.Typer()
    app.command()(act)
    return CliRunner().invoke(app, [*arguments, "--state", str(state.root)])


def run_called(name):
    from zenml.client import Client

    return Client().get_pipeline_run(name)


def approval_runs():
    """{name: status} of every run of the pipeline."""
    from zenml.client import Client

    found = Client().list_pipeline_runs(pipeline_name="approval", size=100).items
    return {run.name: run.status.value for run in found}


def stages():
    """{version: stage} as ZenML shows it."""
    from zenml.client import Client

    model = Client().get_model(NAME)
    return {one.name: one.stage for one in Client().list_model_versions(model=model.id).items}


def tags(tracking):
    return registry.tags(tracking, registry.find(tracking, NAME, "2"))


def test_waiting_ends_at_once_and_moves_nothing(state, tracking):
    assert run_called(begin(state, tracking).name).status == "paused"
    assert registry.aliases(tracking, NAME) == {"champion": 1, "challenger": 2}
    assert tags(tracking)["approval"] == "waiting"
    assert marked_runs(state) == {}


def test_approve_in_another_process_moves_the_champion_and_says_who(state, tracking, shell):
    waiting = begin(state, tracking)
    arguments = ("approve", f"{NAME}/2", "--reason", "seen by me", "--state", str(state.root))
    said = subprocess.run(
        command(*arguments), env=shell, capture_output=True, text=True, timeout=120
    )
    assert said.returncode == 0, said.stderr
    assert said.stdout.startswith(f"{NAME} v2 serves now; approved by {who_am_i()} (seen by me)")
    assert registry.aliases(tracking, NAME) == {"champion": 2, "challenger": 2, "previous": 1}
    entry = registry.entries(tracking, NAME)[-1]
    assert (entry.action, entry.before, entry.after, entry.who) == ("promote", 1, 2, who_am_i())
    assert tags(tracking)["approval"] == "approved"
    assert run_called(waiting.name).status == "completed"
    assert stages() == {"v1": "archived", "v2": "production"}


def test_reject_is_written_down_and_moves_nothing(state, tracking):
    waiting = begin(state, tracking)
    said = call(reject, state, "--reason", "too dark")
    assert said.exit_code == 0, said.output
    assert f"{NAME} v1 serves on; version 2 rejected by {who_am_i()} (too dark)" in said.output
    assert registry.aliases(tracking, NAME) == {"champion": 1, "challenger": 2}
    entry = registry.entries(tracking, NAME)[-1]
    assert (entry.action, entry.before, entry.after, entry.who) == ("reject", 1, 1, who_am_i())
    assert tags(tracking)["approval"] == "rejected"
    assert run_called(waiting.name).status == "completed"
    assert stages() == {"v1": "production", "v2": "staging"}


def test_approve_works_after_the_waiting_process_was_killed(state, tracking, shell):
    script = [sys.executable, "-c", KILLED, str(state.root)]
    done = subprocess.run(script, env=shell, capture_output=True, text=True, timeout=120)
    assert done.returncode == -9, done.stderr
    [killed] = [name for name, status in approval_runs().items() if status == "running"]
    assert call(approve, state).exit_code == 0
    assert registry.aliases(tracking, NAME)["champion"] == 2
    runs = approval_runs()
    assert runs.pop(killed) == "failed"
    assert "completed" in runs.values()


def test_answer_that_was_given_but_not_carried_out_is_asked_for_again(state, tracking):
    from zenml.client import Client

    lost = begin(state, tracking)
    decision = {"approved": True, "who": "me", "why": ""}
    Client().resolve_run_wait_condition(lost.condition, result=decision)
    assert call(reject, state).exit_code == 0
    assert run_called(lost.name).status == "stopped"
    assert registry.aliases(tracking, NAME)["champion"] == 1
    assert tags(tracking)["approval"] == "rejected"


def test_version_waits_once(state, tracking):
    from pipelines.approval import waiting_runs

    assert begin(state, tracking) == begin(state, tracking)
    assert len(waiting_runs(NAME, 2)) == 1


def test_run_that_no_answer_can_resume_is_stopped(state, tracking):
    from pipelines.approval import sweep_approvals

    waiting = begin(state, tracking)
    assert sweep_approvals(tracking, state) == []
    registry.set_tags(tracking, registry.find(tracking, NAME, "2"), {"approval": ""})
    assert sweep_approvals(tracking, state) == [waiting.name]
    assert run_called(waiting.name).status == "stopped"


def test_champion_that_moved_meanwhile_is_not_overwritten(state, tracking):
    waiting = begin(state, tracking)
    connect(tracking).delete_registered_model_alias(NAME, "champion")
    error = call(approve, state).exception
    assert isinstance(error, ChampionMoved)
    assert str(error) == (
        f"Expected v1 to be the champion of {NAME}, as it was when v2 was judged, but none is. "
        f"Nothing has moved. Judge it again, against the one that serves: regraft promote {NAME}/2"
    )
    assert "champion" not in registry.aliases(tracking, NAME)
    assert run_called(waiting.name).status == "failed"
    assert tags(tracking)["approval"] == "waiting"


def test_version_is_judged_again_and_the_mirror_follows(world):
    from commands.train import completed
    from pipelines.promote import promote
    from regraft.ingest import fingerprint

    wanted = load_config(None, (f"backbone.source=file:{world.weights}", *SETTINGS))
    config = completed(wanted, str(world.photos), NAME, world.state)
    run = promote(config, fingerprint(config.ingest), NAME)
    done = dict.fromkeys(("ingest", "split"), "cached")
    done |= dict.fromkeys(("find_version", "promote", "mirror"), "completed")
    assert {step.name: step.status.value for step in run.steps.values()} == done
    assert run.steps["promote"].output.load().reason == "version 1 is already the champion"
    assert stages() == {"v1": "production"}


def test_second_answer_comes_too_late(state, tracking):
    from pipelines.approval import answer
    from steps.carry_out import Decision

    waiting, decision = begin(state, tracking), Decision(approved=True, who="me", why="")
    answer(waiting, decision, state)
    with pytest.raises(NothingWaits, match="to wait for an answer, but somebody else has just"):
        answer(waiting, decision, state)
    assert [entry.who for entry in registry.entries(tracking, NAME)].count("me") == 1


def test_what_waits_is_listed_where_another_was_meant(state, tracking):
    error = call(approve, state, f"{NAME}/7").exception
    assert isinstance(error, NothingWaits)
    assert str(error) == (
        f"Expected a verdict about {NAME}/7 to wait for approval, found {NAME}/2. "
        "Name one of these."
    )
    assert call(reject, state, NAME).exit_code == 0
    assert str(call(approve, state).exception) == (
        "Expected one verdict to wait for approval, found none. See `regraft models`."
    )
