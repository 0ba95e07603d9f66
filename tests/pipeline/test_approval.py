"""Approval of a pending verdict: in this process, in another, after a kill, and twice."""

import os
import re
import signal
import subprocess
from datetime import UTC, datetime

import pytest
import typer
from tiny_store import adopt, in_children, state_folder, waiting_pair
from tiny_train import NAME as WORLD_NAME
from tiny_train import SETTINGS, command
from typer.testing import CliRunner

from regraft import registry
from regraft.cli.approve import approve, reject
from regraft.core.config import load_config
from regraft.core.errors import ChampionMoved, NothingPendingApproval
from regraft.core.state import current_user, marked_runs
from regraft.promotion import load_verdict, reject_verdict
from regraft.registry.tracking import connect
from tests.pipeline.conftest import one_thread

pytestmark = pytest.mark.pipeline

NAME = "tiny"
NOW = datetime.now(UTC)


@pytest.fixture(scope="module")
def folder(template, tmp_path_factory):
    """Version 1 is champion, the verdict about version 2 is pending; without and with a run."""
    from regraft.orchestration.mirror import repair

    with one_thread(), state_folder(template, tmp_path_factory.mktemp("approval")) as folder:
        adopt(waiting_pair(), folder.root)
        repair(folder.tracking)
        folder.save("no run")
        begin(folder.state, folder.tracking)
        folder.save("a run waits")
        yield folder


@pytest.fixture
def state(folder):
    folder.restore("no run")
    return folder.state


@pytest.fixture
def tracking(folder):
    return folder.tracking


@pytest.fixture
def waiting(folder):
    """The run that waits."""
    from regraft.orchestration.approval import waiting_runs

    folder.restore("a run waits")
    [run] = waiting_runs(NAME, 2)
    return run


def begin(state, tracking):
    """The waiting run, made in this process."""
    from pipelines.approval import approval
    from regraft.orchestration.approval import start_approval

    verdict = load_verdict(tracking, registry.find(tracking, NAME, "2"))
    return start_approval(approval, verdict, tracking, state, NOW)


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


def stages(name=NAME):
    """{version: stage} as ZenML shows it."""
    from zenml.client import Client

    model = Client().get_model(name)
    return {one.name: one.stage for one in Client().list_model_versions(model=model.id).items}


def tags(tracking):
    return registry.get_tags(tracking, registry.find(tracking, NAME, "2"))


def test_waiting_ends_at_once_and_moves_nothing(folder, waiting, tracking):
    assert run_called(waiting.name).status == "paused"
    assert registry.get_aliases(tracking, NAME) == {"champion": 1, "challenger": 2}
    assert tags(tracking)["approval"] == "pending"
    assert marked_runs(folder.state) == {}


def in_this_process(folder, shell):
    """The output of `regraft approve`."""
    said = call(approve, folder.state, f"{NAME}/2", "--reason", "seen by me")
    assert said.exit_code == 0, said.output
    return said.output


def in_another_process(folder, shell):
    arguments = ("approve", f"{NAME}/2", "--reason", "seen by me", "--state", str(folder.root))
    said = subprocess.run(
        command(*arguments), env=shell, capture_output=True, text=True, timeout=120
    )
    assert said.returncode == 0, said.stderr
    return said.stdout


@pytest.mark.parametrize(
    "answered", [in_this_process, pytest.param(in_another_process, marks=pytest.mark.slow)]
)
def test_approve_moves_the_champion_and_prints_who_approved(
    folder, waiting, tracking, shell, answered
):
    told = answered(folder, shell)
    assert re.match(rf"{NAME} v2 .*{re.escape(current_user())} \(seen by me\)", told)
    assert registry.get_aliases(tracking, NAME) == {"champion": 2, "challenger": 2, "previous": 1}
    entry = registry.list_entries(tracking, NAME)[-1]
    assert (entry.action, entry.before, entry.after, entry.who) == ("promote", 1, 2, current_user())
    assert tags(tracking)["approval"] == "approved"
    assert run_called(waiting.name).status == "completed"
    assert stages() == {"v1": "archived", "v2": "production"}


def test_reject_is_recorded_and_moves_nothing(folder, waiting, tracking):
    said = call(reject, folder.state, "--reason", "too dark")
    assert said.exit_code == 0, said.output
    assert re.match(rf"{NAME} v1 .*\b2 .*{re.escape(current_user())} \(too dark\)", said.output)
    assert registry.get_aliases(tracking, NAME) == {"champion": 1, "challenger": 2}
    entry = registry.list_entries(tracking, NAME)[-1]
    assert (entry.action, entry.before, entry.after, entry.who) == ("reject", 1, 1, current_user())
    assert tags(tracking)["approval"] == "rejected"
    assert run_called(waiting.name).status == "completed"
    assert stages() == {"v1": "production", "v2": "staging"}


def test_approve_works_after_the_waiting_process_was_killed(state, tracking):
    def begin_and_die():
        from zenml.zen_stores.sql_zen_store import SqlZenStore

        def die(*_, **__):
            os.kill(os.getpid(), signal.SIGKILL)

        SqlZenStore.update_run_wait_condition_lease = die  # called once the question is asked
        begin(state, tracking)

    assert in_children(begin_and_die) == [-signal.SIGKILL]
    [killed] = [name for name, status in approval_runs().items() if status == "running"]
    assert call(approve, state).exit_code == 0
    assert registry.get_aliases(tracking, NAME)["champion"] == 2
    runs = approval_runs()
    assert runs.pop(killed) == "failed"
    assert "completed" in runs.values()


def test_answer_that_was_given_but_not_carried_out_can_be_given_again(folder, waiting, tracking):
    from zenml.client import Client

    decision = {"approved": True, "who": "me", "why": ""}
    Client().resolve_run_wait_condition(waiting.condition, result=decision)
    assert call(reject, folder.state).exit_code == 0
    assert run_called(waiting.name).status == "stopped"
    assert registry.get_aliases(tracking, NAME)["champion"] == 1
    assert tags(tracking)["approval"] == "rejected"


def test_version_waits_once(folder, waiting, tracking):
    from regraft.orchestration.approval import waiting_runs

    assert begin(folder.state, tracking) == waiting
    assert len(waiting_runs(NAME, 2)) == 1


def test_run_that_no_answer_can_resume_is_stopped(folder, waiting, tracking):
    from regraft.orchestration.approval import sweep_approvals

    assert sweep_approvals(tracking, folder.state) == []
    registry.set_tags(tracking, registry.find(tracking, NAME, "2"), {"approval": ""})
    assert sweep_approvals(tracking, folder.state) == [waiting.name]
    assert run_called(waiting.name).status == "stopped"


def test_champion_that_moved_meanwhile_is_not_overwritten(folder, waiting, tracking):
    connect(tracking).delete_registered_model_alias(NAME, "champion")
    error = call(approve, folder.state).exception
    assert isinstance(error, ChampionMoved)
    assert re.search(rf"\bv1\b.* {NAME}, .*\bv2\b.* none\..*regraft promote {NAME}/2", str(error))
    assert "champion" not in registry.get_aliases(tracking, NAME)
    assert run_called(waiting.name).status == "failed"
    assert tags(tracking)["approval"] == "pending"


@pytest.mark.slow  # the fast tier has it as a command: test_version_is_judged_again_on_the_...
def test_version_is_judged_again_and_the_mirror_follows(world):
    from pipelines.promote import promote
    from regraft.data.ingest import fingerprint
    from regraft.operations.workflows.settings import complete_config

    wanted = load_config(None, (f"backbone.source=file:{world.weights}", *SETTINGS))
    config = complete_config(wanted, str(world.photos), WORLD_NAME, world.state)
    run = promote(config, fingerprint(config.ingest), WORLD_NAME)
    done = dict.fromkeys(("ingest", "split"), "cached")
    done |= dict.fromkeys(("find_version", "promote", "mirror"), "completed")
    assert {step.name: step.status.value for step in run.steps.values()} == done
    verdict = run.steps["promote"].output.load()
    assert (verdict.is_serving, verdict.champion, verdict.challenger) == (True, 1, 1)
    assert stages(WORLD_NAME) == {"v1": "production"}


def test_second_answer_comes_too_late(folder, waiting, tracking):
    from regraft.orchestration.approval import answer
    from regraft.promotion.answer import ApprovalDecision

    decision = ApprovalDecision(approved=True, who="me", why="")
    answer(waiting, decision, folder.state)
    with pytest.raises(NothingPendingApproval, match=waiting.name):
        answer(waiting, decision, folder.state)
    assert [entry.who for entry in registry.list_entries(tracking, NAME)].count("me") == 1


def test_pending_versions_are_listed_if_another_version_is_named(state, tracking):
    error = call(approve, state, f"{NAME}/7").exception
    assert isinstance(error, NothingPendingApproval)
    assert re.search(rf" {NAME}/7, .* {NAME}/2\.", str(error))
    verdict = load_verdict(tracking, registry.find(tracking, NAME, "2"))
    reject_verdict(verdict, tracking, "me", "", NOW)
    error = call(approve, state).exception
    assert isinstance(error, NothingPendingApproval)
    assert re.search(r" none\. .*regraft models", str(error))
