"""`regraft retrain` with a real pipeline: the trainings and their records.

The decisions alone are tested in tests/unit/test_retrain_decisions.py.
"""

import json
import os
import re
import threading
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
import time_machine
from tiny_retrain import add_photos, past
from tiny_train import NAME, SETTINGS, last_run, stages
from typer.testing import CliRunner

from regraft import registry
from regraft.cli import app
from regraft.core.config import load_config
from regraft.core.errors import AlreadyRunning, ConfigError, NoPhotos, NothingToDo, RegraftError
from regraft.core.state import exclusive_lock, make_marker
from regraft.operations import journal
from regraft.operations.journal import Attempt
from regraft.registry.champion import serving_version
from regraft.registry.tracking import connect

pytestmark = pytest.mark.pipeline


def test_photos_that_a_training_has_seen_are_no_reason(world):
    attempt = world.retrain()
    assert (attempt.outcome, attempt.version) == ("skip", None)
    assert (attempt.advice.delta.since, attempt.advice.delta.n_changed) == (1, 0)
    assert list(stages(last_run())) == ["begin", "ingest", "split", "advise", "conclude"]
    assert past(world) == [attempt]


@pytest.mark.slow
def test_the_second_time_nothing_runs_at_all(world):
    first = world.retrain()
    run = last_run().name
    again = world.retrain()
    assert (again.outcome, again.advice) == ("skip", None)
    assert first.ended[:16] in again.reason
    assert last_run().name == run
    assert world.retrain().reason == again.reason
    assert len(past(world)) == 3


@pytest.mark.slow
def test_new_photos_are_trained_on_and_the_model_is_judged(world):
    add_photos(world, 6)
    attempt = world.retrain()
    assert attempt.was_trained
    assert attempt.version == 2
    assert attempt.advice.decision == "retrain"
    assert attempt.advice.delta.since == 1
    in_training = attempt.advice.delta
    assert 9 <= in_training.n_added <= 18  # the rest of the 18 judges
    assert (in_training.n_removed, in_training.n_relabelled) == (0, 0)
    assert attempt.n_photos == 78
    assert attempt.accuracy_low <= attempt.accuracy <= attempt.accuracy_high
    assert attempt.champion == serving_version(world.tracking, NAME)
    assert (attempt.outcome == "promote") == (attempt.champion == 2)
    assert past(world)[-1] == attempt
    assert world.retrain().outcome == "skip"


@pytest.mark.slow
def test_too_few_new_photos_wait_for_more(world):
    add_photos(world, 1)
    attempt = world.retrain("retrain.min_changed_fraction=0.5")
    assert attempt.outcome == "skip"
    assert "retrain.min_changed_fraction=50.0%" in attempt.reason
    add_photos(world, 20, seed=8)
    assert world.retrain("retrain.min_changed_fraction=0.5").was_trained


@pytest.mark.slow
def test_a_champion_grown_old_is_trained_again_for_a_single_photo(world):
    add_photos(world, 1)
    rule = ("retrain.min_changed_fraction=0.5", "retrain.max_age_days=30")
    assert world.retrain(*rule).outcome == "skip"
    with time_machine.travel(datetime.now(UTC) + timedelta(days=31)):
        attempt = world.retrain(*rule)
    assert attempt.was_trained
    assert re.search(r"\b31\b.*retrain\.max_age_days=30", attempt.advice.reason)


@pytest.mark.slow
def test_a_training_over_the_budget_is_put_off_until_the_week_is_over(world):
    add_photos(world, 6)
    assert world.retrain().was_trained
    add_photos(world, 6, seed=8)
    attempt = world.retrain("retrain.budget_h=0.0001")
    assert (attempt.outcome, attempt.advice.decision) == ("postpone", "postpone")
    assert "retrain.budget_h=0.0001" in attempt.reason
    assert world.retrain("retrain.budget_h=0.0001").outcome == "postpone"  # decided anew each time
    assert world.retrain("retrain.budget_h=10").was_trained


@pytest.mark.slow
def test_another_configuration_is_no_skip_without_a_thought(world):
    world.retrain()
    attempt = world.retrain("tune.seed=5")
    assert attempt.advice is not None


@pytest.mark.slow
def test_a_retraining_that_fails_is_written_down_and_tried_again(world):
    world.retrain()
    hidden = world.photos.rename(world.folder / "away")
    with pytest.raises(NoPhotos):
        world.retrain()
    hidden.rename(world.photos)
    failed = past(world)[-1]
    assert failed.outcome == "failed"
    assert failed.reason.startswith("NoPhotos: ")
    assert str(world.photos) in failed.reason
    again = world.retrain()
    assert again.advice is not None  # it is not skipped without an advice
    assert again.outcome == "skip"  # but the photos are those that were trained on


@pytest.mark.slow
def test_a_version_that_was_never_judged_is_judged(world):
    version = registry.find(world.tracking, NAME, "1")
    client = connect(world.tracking)
    client.delete_model_version_tag(NAME, "1", "verdict")
    assert "verdict" not in registry.get_tags(world.tracking, version)
    attempt = world.retrain()
    wished = [line.name for line in attempt.advice.reasons if line.weight == "for"]
    assert wished == ["interrupted"]
    assert attempt.version == 1
    assert world.retrain().outcome == "skip"


@pytest.mark.slow
def test_what_somebody_did_to_the_registry_is_not_skipped(world):
    world.retrain()
    assert world.retrain().advice is None
    connect(world.tracking).delete_registered_model_alias(NAME, "challenger")
    assert world.retrain().advice is not None
    assert world.retrain().advice is None


@pytest.mark.slow
def test_the_photos_that_are_named_are_the_ones_that_are_read(world):
    from regraft.operations.workflows.retrain import RetrainRequest, retrain_config

    other = world.folder / "other"
    for _ in range(2):  # the model's card knows its own folder; later the journal knows none
        config = retrain_config(RetrainRequest(str(other), name=NAME), world.state)
        assert config.ingest.photos == str(other)
        assert config.freeze.policy == "last_block"
        world.retrain()


def test_remote_places_are_remembered_and_local_ones_are_not(world):
    from regraft.operations.retrain.conclude import changed_settings
    from regraft.operations.workflows.retrain import RetrainRequest, retrain_config

    places = ("embed.store_url=s3://b/e", f"tune.checkpoint_url={world.folder}/c")
    said = changed_settings(load_config(None, (*SETTINGS, *places)))
    assert said["embed.store_url"] == "s3://b/e"
    assert "tune.checkpoint_url" not in said
    assert retrain_config(RetrainRequest("x", name=NAME), world.state).embed.store_url == str(
        world.state.embeddings
    )


@pytest.mark.slow
def test_settings_of_a_failed_attempt_are_not_remembered(world):
    from regraft.operations.workflows.retrain import RetrainRequest, retrain_config

    world.retrain()
    with pytest.raises(NoPhotos):
        world.retrain(f"ingest.inbox={world.folder}/typo")
    assert retrain_config(RetrainRequest("x", name=NAME), world.state).ingest.inbox == ""


def earlier(world, **settings: str):
    """An attempt that was judged, in the journal."""
    now = datetime.now(UTC).isoformat()
    made = Attempt(NAME, now, now, "ada@engine", "keep", "a tie", version=1, settings=settings)
    journal.write_record(str(world.state.journal), made)


def test_settings_that_are_refused_leave_a_row(world):
    """The stored settings may be from an older Regraft, and nobody reads a schedule's output."""
    earlier(world, **{"tune.epochs": "many"})
    where = ["retrain", str(world.photos), "--model", NAME, "--state", str(world.state.root)]
    for words in ([], ["--plan"], ["--set", "tune.epochs=none"]):
        assert isinstance(CliRunner().invoke(app, where + words).exception, ConfigError)
    failed = past(world)[1:]
    assert [attempt.outcome for attempt in failed] == ["failed"] * 2  # a plan is no attempt
    assert "tune.epochs" in failed[0].reason


def test_a_file_that_is_refused_is_told_to_whom_it_names(world, tmp_path):
    earlier(world)
    config, said = tmp_path / "prod.yaml", tmp_path / "said"
    config.write_text(
        f"tracking: {{name: {NAME}}}\n"
        f'notify: {{targets: [{{kind: command, to: "tee {said}", of: [failed]}}]}}\n'
    )
    words = ["retrain", str(world.photos), "--state", str(world.state.root)]
    refused = ["--config", str(config), "--set", "tune.epochs=many"]
    assert isinstance(CliRunner().invoke(app, words + refused).exception, ConfigError)
    assert [attempt.outcome for attempt in past(world)] == ["keep", "failed"]
    assert "tune.epochs" in said.read_text()
    mistyped = [*words, "--model", "colour", "--set", "tune.epochs=many"]
    assert isinstance(CliRunner().invoke(app, mistyped).exception, ConfigError)
    assert {one.name for one in journal.read_attempts(str(world.state.journal))} == {NAME}


def test_who_is_refused_says_nothing_of_the_one_that_runs(world):
    """A record would make a later kill of the running attempt look like a finished attempt."""
    earlier(world)
    words = ["retrain", str(world.photos), "--model", NAME, "--state", str(world.state.root)]
    with exclusive_lock(world.state, f"retrain {NAME}", datetime.now(UTC)):
        done = CliRunner().invoke(app, [*words, "--set", "tune.epochs=many"])
    assert isinstance(done.exception, ConfigError)
    assert len(past(world)) == 1


def left_by_a_kill(world, started: datetime, pid: int = 1) -> Path:
    """The marker of a retraining that was killed."""
    marker = make_marker(f"retrain {NAME}", pid, started)
    path = world.state.locks / f"retrain {NAME}.json"
    path.write_text(json.dumps(asdict(marker)), encoding="utf-8")
    return path


@pytest.mark.slow
@pytest.mark.parametrize("is_its_own", [True, False])
def test_a_verdict_that_nobody_wrote_down_is_told_by_the_next(world, is_its_own):
    """Killed after the verdict and before the record in the journal.

    A verdict of another process does not belong to the killed attempt.
    """
    add_photos(world, 6)
    first = world.retrain()
    [record] = (world.state.journal / "attempts").iterdir()
    record.unlink()
    started = datetime.fromisoformat(first.started) - timedelta(seconds=1)
    left_by_a_kill(world, started, os.getpid() if is_its_own else 1)
    world.retrain("evaluate.n_gallery=1")
    told, last = past(world)
    assert first.outcome in ("promote", "keep")
    assert last.outcome == "skip"
    if not is_its_own:
        assert (told.outcome, told.verdict) == ("killed", "")
        return
    for field in ("outcome", "version", "verdict", "champion", "flips", "settings"):
        assert getattr(told, field) == getattr(first, field)
    assert told.reason.startswith(first.reason)
    assert f"process {os.getpid()} " in told.reason


def test_one_retraining_at_a_time(world):
    told = rf"retrain {NAME} .*\b{os.getpid()}\b"
    here = exclusive_lock(world.state, f"retrain {NAME}", datetime.now(UTC))
    with here, pytest.raises(AlreadyRunning, match=told):
        world.retrain()
    assert past(world) == []  # a refused process writes no attempt


@pytest.mark.slow
def test_a_killed_retraining_is_found_and_named(world):
    left = left_by_a_kill(world, datetime.now(UTC))
    attempt = world.retrain()
    killed, last = past(world)
    assert (killed.outcome, last) == ("killed", attempt)
    assert killed.reason.startswith("process 1 on ")
    assert not left.exists()


def call(world, *options: str):
    """`regraft retrain PHOTOS OPTIONS`, in this process."""
    where = ["retrain", str(world.photos), "--model", NAME, "--state", str(world.state.root)]
    return CliRunner().invoke(app, [*where, *options])


def test_a_plan_says_what_would_be_done_and_does_nothing(world):
    add_photos(world, 6)
    before = {path for path in world.folder.rglob("*.parquet") if "photos" not in path.parts}
    planned = call(world, "--plan")
    assert planned.exit_code == 0, planned.exception
    assert "retrain: " in planned.output
    assert past(world) == []
    after = {path for path in world.folder.rglob("*.parquet") if "photos" not in path.parts}
    assert after == before


def test_the_command_ends_with_a_code_of_its_own_when_there_is_nothing_to_do(world):
    for _ in range(2):
        answer = call(world)
        assert isinstance(answer.exception, NothingToDo)
        assert "skip" in str(answer.exception)
    assert NothingToDo.exit_code == 8
    first, second = past(world)
    assert first.advice.delta.n_changed == 0
    assert (second.advice, second.run) == (None, "")
    # Without --set, the settings are those that the model was trained with.
    assert first.settings["freeze.policy"] == "last_block"


@pytest.mark.slow
def test_what_is_told_goes_to_the_configured_target(world, tmp_path):
    told = Path(tmp_path) / "told.json"
    target = f'notify.targets=[{{kind: command, to: "tee {told}", of: [skip]}}]'
    world.retrain(target)
    message = json.loads(told.read_text(encoding="utf-8"))
    assert (message["event"], message["model"]) == ("skip", NAME)
    assert message["text"] == past(world)[-1].reason


@pytest.mark.slow
def test_a_target_that_fails_fails_nothing(world):
    target = 'notify.targets=[{kind: command, to: "false", of: [skip]}]'
    assert world.retrain(target).outcome == "skip"


class _Hook(BaseHTTPRequestHandler):
    """Remembers the paths of the messages that arrive."""

    paths: ClassVar[list[str]] = []

    def do_POST(self):
        self.paths.append(self.path)
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *arguments):
        pass


@pytest.mark.slow
def test_the_address_of_a_target_is_used_and_stored_nowhere(world):
    """An address is often the only secret of a chat's webhook."""
    secret = "T0pSecretToken9f3"
    add_photos(world, 6)
    with ThreadingHTTPServer(("127.0.0.1", 0), _Hook) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/{secret}"
        events = "[promote, keep, pending, skip, failed]"
        target = f"notify.targets=[{{kind: webhook, to: '{url}', of: {events}}}]"
        assert world.retrain(target).was_trained
        assert world.retrain(target).outcome == "skip"
        with pytest.raises(RegraftError):
            world.retrain(target, "ingest.inbox=/none")
        server.shutdown()
    assert _Hook.paths == [f"/{secret}"] * 3
    files = [path for path in world.folder.rglob("*") if path.is_file()]
    assert world.state.zenml_database in files
    holding = [path for path in files if secret.encode() in path.read_bytes()]
    assert holding == []
