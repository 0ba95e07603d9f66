"""`regraft train` as a user's shell starts it: two at once, killed, failing, from anywhere."""

import json
import os
import shutil
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from mlflow import MlflowClient
from tiny_challenger import draw_photos, weights_file
from tiny_train import NAME, SETTINGS, begin, last_run, output, write_dull_weights
from typer.testing import CliRunner

from commands import app
from commands.train import run_training
from pipelines.stack import bootstrap
from regraft import registry
from regraft.config import TrackingConfig, load_config
from regraft.state import marked_runs, open_state
from tests.pipeline.conftest import enter, reset_zenml

pytestmark = pytest.mark.pipeline

LONG = (
    *("freeze.policy=all", "freeze.layer_decay=1", "tune.epochs=4", "tune.lr=0.03"),
    *("tune.batch_size=8", "tune.ema_decay=0.5", "tune.patience=0"),
)
TIMEOUT_S = 200
STAGES = [
    *("ingest", "split", "choose_backbone", "load_pretrained", "freeze"),
    *("fine_tune", "measure_transfer", "evaluate", "register", "promote", "mirror"),
]


@dataclass(frozen=True)
class Shell:
    """A user's home, working directory and photos, all empty or new."""

    home: Path
    cwd: Path
    photos: Path
    weights: Path
    variables: dict[str, str]

    def train(self, state: Path, *settings: str):
        chosen = (f"backbone.source=file:{self.weights}", *SETTINGS, *settings)
        options = [part for setting in chosen for part in ("--set", setting)]
        where = os.path.relpath(self.photos, self.cwd)
        arguments = ["train", where, "--name", NAME, "--state", str(state), *options]
        return begin(arguments, self.variables, self.cwd)


def finish(process) -> tuple[str, str]:
    out, err = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0, err
    return out, err


def tracking_of(root: Path) -> TrackingConfig:
    return TrackingConfig(uri=open_state(root).tracking_uri, name=NAME)


@pytest.fixture(scope="module")
def user(tmp_path_factory, shell):
    folder = tmp_path_factory.mktemp("a user")
    home, cwd, photos = folder / "home", folder / "somewhere else", folder / "mes photos, été"
    home.mkdir()
    cwd.mkdir()
    draw_photos(photos, 20)
    start = weights_file(folder / "start.safetensors")
    weights = write_dull_weights(start, folder / "dull.safetensors")
    elsewhere = {"XDG_CACHE_HOME", "XDG_CONFIG_HOME", "MPLCONFIGDIR", "UV_CACHE_DIR"}
    variables = {key: value for key, value in shell.items() if key not in elsewhere}
    # Many threads only wait for each other on a network as tiny as this one.
    variables |= {"HOME": str(home), "OMP_NUM_THREADS": "1"}
    return Shell(home, cwd, photos, weights, variables)


@pytest.fixture(scope="module")
def twins(user, tmp_path_factory):
    """Two runs that were started at once on one state folder that was not there yet."""
    root = tmp_path_factory.mktemp("twins") / "state"
    both = [user.train(root, *LONG) for _ in range(2)]
    return root, [finish(process) for process in both]


def test_two_runs_at_once_on_a_fresh_state_make_one_champion(twins):
    root, said = twins
    versions = registry.list_versions(tracking_of(root))
    assert versions.aliases.str.contains("champion").sum() == 1
    [version] = versions.version  # both made the same weights; whoever sealed its own first stays
    for out, err in said:
        assert f"colours v{version} @champion" in out, out + err


def test_nothing_is_written_outside_the_state_folder(twins, user):
    assert list(user.cwd.iterdir()) == []
    assert [path for path in user.home.rglob("*") if not path.is_dir()] == []


def stages_of(lines) -> list[str]:
    """The stages that have a line, in order; those that embed photos also say how many were new."""
    words = [line.partition(":")[0] for line in lines]
    names = {"transfer": "measure_transfer"}
    named = [names.get(word, word) for word in words if word != "embed"]
    return list(dict.fromkeys(named))


def test_screen_has_a_line_a_stage_and_no_progress_bars(twins):
    _, said = twins
    spoken = [stages_of(err.splitlines()) for _, err in said]
    lines = [*STAGES[:-2], "behaviour", *STAGES[-2:]]
    assert max(spoken, key=len) == lines  # what the other one found in the cache has no line
    assert all(set(stages) <= set(lines) for stages in spoken)
    assert "\r" not in "".join(out + err for out, err in said)


@pytest.fixture
def moved(twins, tmp_path, monkeypatch):
    """That state folder under another name, with a space in it."""
    root = shutil.copytree(twins[0], tmp_path / "copy")
    state = open_state(Path(shutil.move(root, tmp_path / "moved state")))
    enter(state, monkeypatch)
    monkeypatch.chdir(tmp_path)
    yield state
    reset_zenml()


def test_moved_state_answers_trains_and_predicts(moved, user):
    models = CliRunner().invoke(app, ["models", "--json", "--state", "moved state"])
    assert [row["aliases"] for row in json.loads(models.output)] == ["challenger, champion"]
    photo = str(sorted(user.photos.rglob("*.png"))[0])
    said = CliRunner().invoke(app, ["predict", photo, "--state", "moved state"])
    assert said.exit_code == 0, said.output
    assert "amber" in said.output
    settings = (f"backbone.source=file:{user.weights}", *SETTINGS, "freeze.policy=probe")
    run_training(load_config(None, settings), str(user.photos), NAME, Path("moved state"))
    assert output(last_run(), "split").digest == digest_of_version_1(moved)
    assert len(registry.list_versions(tracking_of(moved.root))) == 2


def digest_of_version_1(state) -> str:
    client = MlflowClient(tracking_uri=state.tracking_uri)
    return client.get_model_version(NAME, "1").tags["dataset_digest"]


@pytest.fixture(scope="module")
def killed(user, template, tmp_path_factory):
    """A state in which a run was killed -9 in the middle of its training."""
    root = shutil.copytree(template, tmp_path_factory.mktemp("killed") / "state")
    process = user.train(root, *LONG)
    deadline = time.monotonic() + TIMEOUT_S
    while not list((root / "checkpoints").glob("*-tune.pt")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    return root


@pytest.fixture
def resumed(killed, user, tmp_path, monkeypatch):
    """The same command again, on that state."""
    finish(user.train(killed, *LONG))
    state = open_state(killed)
    enter(state, monkeypatch)
    bootstrap(state)
    yield state
    reset_zenml()


def test_killed_run_ends_with_the_weights_of_one_never_killed(resumed, twins):
    ours, theirs = (registry.find(tracking_of(root), NAME) for root in (resumed.root, twins[0]))
    assert output(last_run(), "fine_tune").kept_phase == "tune"
    assert ours.content_hash == theirs.content_hash
    assert_only_the_killed_run_failed(resumed)
    assert not [path for path in resumed.checkpoints.iterdir() if path.suffix == ".pt"]


def assert_only_the_killed_run_failed(state):
    """In ZenML's books and in MLflow's."""
    from zenml.client import Client

    runs = {run.name: run.status for run in Client().list_pipeline_runs().items}
    assert sorted(runs.values()) == ["completed", "failed"]
    assert marked_runs(state) == {}
    client = MlflowClient(tracking_uri=state.tracking_uri)
    experiment = client.get_experiment_by_name(NAME)
    tracked = client.search_runs([experiment.experiment_id])
    ended = {run.info.run_name: run.info.status for run in tracked}
    wanted = {"completed": "FINISHED", "failed": "KILLED"}
    assert ended == {name: wanted[status] for name, status in runs.items()}


def test_failing_step_says_one_sentence_and_its_exit_code(user, template, tmp_path):
    root = shutil.copytree(template, tmp_path / "state")
    process = user.train(root, *LONG, "tune.lr=1e30", "tune.epochs=1")
    out, err = process.communicate(timeout=TIMEOUT_S)
    assert (process.returncode, out) == (5, ""), err
    *stages, last = err.splitlines()
    assert stages_of(stages) == STAGES[:6]  # the last said how it trains
    assert last.startswith("TrainingDiverged: Expected a finite loss and gradient, got")
