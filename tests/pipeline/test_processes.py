"""`regraft` as a user's shell starts it: two at once, killed, interrupted, failing, from anywhere.

Each test runs twice: in the fast tier with processes that are forked from this one and signal
themselves at a chosen call, in the slow tier with new interpreters on a fresh state folder, which
are signalled from outside.
"""

import ast
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NamedTuple

import pytest
from mlflow import MlflowClient
from test_predict_batch import add, call, n_shards_ran, state_of, table, words
from tiny_challenger import draw_photos, weights_file
from tiny_process import fork
from tiny_train import (
    NAME,
    SETTINGS,
    Interruption,
    World,
    begin,
    last_run,
    output,
    write_dull_weights,
)
from typer.testing import CliRunner

from regraft import registry
from regraft.cli import app
from regraft.cli.train import run_training
from regraft.core.config import TrackingConfig, load_config
from regraft.core.state import marked_runs, open_state, places
from regraft.operations import journal
from regraft.orchestration.stack import bootstrap
from tests.pipeline.conftest import REPOSITORY, enter, reset_zenml

pytestmark = [pytest.mark.pipeline, pytest.mark.usefixtures("calm")]

THAWED = (
    *("freeze.policy=all", "freeze.layer_decay=1", "tune.lr=0.03"),
    *("tune.batch_size=8", "tune.ema_decay=0.5", "tune.patience=0"),
)
TIMEOUT_S = 200
STAGES = [
    *("ingest", "split", "choose_backbone", "load_pretrained", "freeze"),
    *("fine_tune", "measure_transfer", "evaluate", "register", "promote", "mirror"),
]
UNWANTED = {"matplotlib.pyplot", "torch._inductor.compile_fx", "transformers"}
SOURCES = sorted(
    path
    for folder in ("pipelines", "steps", "materializers", "regraft")
    for path in (REPOSITORY / folder).rglob("*.py")
)
ELSEWHERE = ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "MPLCONFIGDIR", "UV_CACHE_DIR")
SHARDS_OF_TWO = ("batch.shard_photos=2",)


class Ended(NamedTuple):
    """How a process ended.

    code: exit code, or minus the signal.
    modules: what a forked one has imported, and the test process had not.
    """

    code: int
    out: str
    err: str
    modules: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Forked:
    """A running process that was forked from this one; it interrupts itself."""

    process: BaseProcess
    output: Path

    def wait(self) -> Ended:
        self.process.join(TIMEOUT_S)
        assert self.process.exitcode is not None
        out, err = ((self.output / name).read_text() for name in ("stdout", "stderr"))
        modules = self.output / "modules"
        names = json.loads(modules.read_text()) if modules.exists() else ()
        return Ended(self.process.exitcode, out, err, frozenset(names))


@dataclass(frozen=True)
class Started:
    """A running process with an interpreter of its own; it is interrupted from outside."""

    process: subprocess.Popen[str]
    interruption: Interruption | None

    def wait(self) -> Ended:
        if self.interruption:
            until(self.interruption, self.process)
            for number in self.interruption.signals:
                self.process.send_signal(number)
                time.sleep(0.05)  # until it is handled, which cannot be seen from here
        out, err = self.process.communicate(timeout=TIMEOUT_S)
        return Ended(self.process.returncode, out, err)


def until(interruption: Interruption, process: subprocess.Popen[str]):
    """Waits, for long where others want the cores too; a process that is in vain is ended."""
    deadline = time.monotonic() + TIMEOUT_S
    while not interruption.is_due:
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            raise AssertionError(process.communicate())
        time.sleep(0.02)


@dataclass(frozen=True)
class User:
    """A home, a working directory and photos, all empty or new.

    is_forking: whether a process is forked from this one, or is a new interpreter.
    """

    home: Path
    cwd: Path
    world: World
    variables: dict[str, str]
    is_forking: bool

    @property
    def n_shards(self) -> int:
        """Shards of a call of predict-batch; a signal from outside needs some more of them."""
        return 4 if self.is_forking else 12

    def start(self, arguments: list[str], interruption: Interruption | None = None):
        """`regraft ARGUMENTS`, running."""
        if not self.is_forking:
            return Started(begin(arguments, self.variables, self.cwd), interruption)
        outputs = self.home.parent / "outputs"
        outputs.mkdir(exist_ok=True)
        output = outputs / str(len(list(outputs.iterdir())))
        output.mkdir()
        return Forked(fork(arguments, self.home, self.cwd, output, interruption), output)

    def train(
        self,
        root: Path,
        *settings: str,
        command: str = "train",
        interruption: Interruption | None = None,
    ):
        """A training that is all the longer for new interpreters."""
        epochs = "tune.epochs=2" if self.is_forking else "tune.epochs=4"
        start = f"backbone.source=file:{self.world.weights}"
        chosen = (start, *SETTINGS, *THAWED, epochs, *settings)
        options = [part for setting in chosen for part in ("--set", setting)]
        where = os.path.relpath(self.world.photos, self.cwd)
        arguments = [command, where, "--model", NAME, "--state", str(root), *options]
        return self.start(arguments, interruption)


def finish(process) -> Ended:
    ended = process.wait()
    assert ended.code == 0, ended.err
    return ended


@pytest.fixture(
    scope="module",
    params=["forked", pytest.param("new interpreter", marks=pytest.mark.slow)],
)
def user(request, shell, tmp_path_factory):
    folder = tmp_path_factory.mktemp("a user")
    home, cwd, world = folder / "home", folder / "somewhere else", World(folder)
    home.mkdir()
    cwd.mkdir()
    draw_photos(world.photos, 20)
    write_dull_weights(weights_file(folder / "start.safetensors"), world.weights)
    variables = {key: value for key, value in shell.items() if key not in ELSEWHERE}
    # Many threads only wait for each other on a network as tiny as this one.
    variables |= {"HOME": str(home), "OMP_NUM_THREADS": "1"}
    if request.param == "forked":
        request.getfixturevalue("_first")  # a run in this process, so that a fork finds all caches
    return User(home, cwd, world, variables, request.param == "forked")


def tracking_of(root: Path) -> TrackingConfig:
    return TrackingConfig(uri=places(open_state(root)).tracking.uri, name=NAME)


@pytest.fixture(scope="module")
def twins(user, template):
    """Two runs that were started at once on one state folder; that of new interpreters is fresh."""
    root = user.world.folder / "state"
    if user.is_forking:
        open_state(shutil.copytree(template, root))
    both = [user.train(root) for _ in range(2)]
    return root, [finish(process) for process in both]


def test_two_runs_at_once_on_a_fresh_state_make_one_champion(twins):
    root, ended = twins
    versions = registry.list_versions(tracking_of(root))
    assert versions.aliases.str.contains("champion").sum() == 1
    [version] = versions.version  # both made the same weights; whoever sealed its own first stays
    for process in ended:
        assert f"{NAME} v{version} @champion" in process.out, process


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
    _, ended = twins
    spoken = [stages_of(process.err.splitlines()) for process in ended]
    lines = [*STAGES[:-2], "behaviour", *STAGES[-2:]]
    assert set().union(*spoken) == set(lines)  # what one found in the cache has no line there
    assert all(stages == [line for line in lines if line in stages] for stages in spoken)
    assert "\r" not in "".join(process.out + process.err for process in ended)


def test_a_run_imports_nothing_that_it_does_not_need(twins):
    """What this process had imported before a fork, another test counts in a new interpreter."""
    for process in twins[1]:
        assert not UNWANTED & process.modules
    imported = {name for path in SOURCES for name in imports_of(path)}
    assert {"torch", "zenml", "mlflow", "matplotlib.figure"} <= imported
    assert not {name for name in imported if name.startswith(tuple(UNWANTED))}


def imports_of(path: Path) -> Iterator[str]:
    """The modules that a source file imports anywhere in it; "from a import b" is a.b too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.fixture
def moved(twins, tmp_path, monkeypatch):
    """That state folder under another name, with a space in it."""
    root = shutil.copytree(twins[0], tmp_path / "copy")
    state = open_state(Path(shutil.move(root, tmp_path / "moved state")))
    enter(state, monkeypatch)
    monkeypatch.chdir(tmp_path)
    yield state
    reset_zenml()


def test_moved_state_answers_and_predicts(moved, user):
    models = CliRunner().invoke(app, ["models", "--json", "--state", "moved state"])
    assert [row["aliases"] for row in json.loads(models.output)] == ["challenger, champion"]
    photo = str(sorted(user.world.photos.rglob("*.png"))[0])
    said = CliRunner().invoke(app, ["predict", photo, "--state", "moved state"])
    assert said.exit_code == 0, said.output
    assert "amber" in said.output


@pytest.mark.slow
def test_moved_state_trains(moved, user):
    before = registry.list_versions(tracking_of(moved.root))
    settings = (f"backbone.source=file:{user.world.weights}", *SETTINGS, "freeze.policy=probe")
    run_training(load_config(None, settings), str(user.world.photos), NAME, Path("moved state"))
    assert output(last_run(), "split").digest == digest_of(moved, before.version.min())
    assert len(registry.list_versions(tracking_of(moved.root))) == len(before) + 1


def digest_of(state, version: int) -> str:
    client = MlflowClient(tracking_uri=places(state).tracking.uri)
    return client.get_model_version(NAME, str(version)).tags["dataset_digest"]


@pytest.fixture(scope="module")
def killed(user, template, tmp_path_factory):
    """A state in which a run was killed -9 in the middle of its training."""
    root = tmp_path_factory.mktemp("killed") / "state"
    open_state(shutil.copytree(template, root))
    in_training = Interruption(
        *("regraft.training.tune.loop._train_epoch", 2),
        *(root / "checkpoints", "*-tune.pt", 1),
        signals=(signal.SIGKILL,),
    )
    assert user.train(root, interruption=in_training).wait().code == -signal.SIGKILL
    assert list((root / "checkpoints").glob("*-tune.pt"))
    return root


@pytest.fixture
def resumed(killed, user, tmp_path, monkeypatch):
    """The same command again, on that state."""
    finish(user.train(killed))
    state = open_state(killed)
    enter(state, monkeypatch)
    bootstrap(state)
    yield state
    reset_zenml()


@pytest.mark.slow  # in the unit tier: test_a_training_killed_within_an_epoch_ends_with_the_same_...
def test_killed_run_ends_with_the_weights_of_one_never_killed(resumed, twins):
    ours, theirs = (registry.find(tracking_of(root), NAME) for root in (resumed.root, twins[0]))
    assert output(last_run(), "fine_tune").selected_phase == "tune"
    assert ours.content_hash == theirs.content_hash
    assert_only_the_killed_run_failed(resumed)
    assert not [path for path in resumed.checkpoints.iterdir() if path.suffix == ".pt"]


def assert_only_the_killed_run_failed(state):
    """In ZenML's books and in MLflow's."""
    from zenml.client import Client

    runs = {run.name: run.status for run in Client().list_pipeline_runs().items}
    assert sorted(runs.values()) == ["completed", "failed"]
    assert marked_runs(state) == {}
    client = MlflowClient(tracking_uri=places(state).tracking.uri)
    experiment = client.get_experiment_by_name(NAME)
    tracked = client.search_runs([experiment.experiment_id])
    ended = {run.info.run_name: run.info.status for run in tracked}
    wanted = {"completed": "FINISHED", "failed": "KILLED"}
    assert ended == {name: wanted[status] for name, status in runs.items()}


def test_sigterm_is_an_interruption_and_the_same_command_resumes(user, template, tmp_path):
    from zenml.client import Client

    root = tmp_path / "state"
    open_state(shutil.copytree(template, root))
    begun = Interruption(
        *("regraft.training.tune.loop._train_epoch", 2),
        *(root / "checkpoints", "*-tune.pt", 1),
        signals=(signal.SIGTERM,),
    )
    ended = user.train(root, command="retrain", interruption=begun).wait()
    assert (ended.code, ended.out) == (143, ""), ended.err
    assert "Interrupted by SIGTERM: " in ended.err
    assert "internal error" not in ended.err
    [attempt] = journal.read_attempts(str(root / "journal"))
    assert (attempt.outcome, attempt.reason) == ("failed", "it was interrupted by SIGTERM")
    assert list((root / "checkpoints").glob("*-tune.pt"))
    finish(user.train(root, command="retrain"))
    last = journal.read_attempts(str(root / "journal"))[-1]
    assert last.outcome == "promote"
    with pytest.MonkeyPatch.context() as patched:
        enter(open_state(root), patched)
        statuses = {run.status.value for run in Client().list_pipeline_runs().items}
    reset_zenml()
    assert statuses == {"completed", "failed"}


def test_failing_step_says_one_sentence_and_its_exit_code(user, twins, template, tmp_path):
    root, began = twins[0], [STAGES[2], STAGES[5]]  # the others are in the cache, without a line
    if not user.is_forking:
        root, began = tmp_path / "state", [*STAGES[:6]]
        open_state(shutil.copytree(template, root))
    ended = user.train(root, "tune.lr=1e30", "tune.epochs=1").wait()
    assert (ended.code, ended.out) == (5, ""), ended.err
    *stages, last = ended.err.splitlines()
    assert [*stages_of(stages)] == began  # the last said how it trains
    assert re.match(r"TrainingDiverged: .*(nan|inf).*epoch 1", last)


@pytest.fixture
def album(shared_world, user, tmp_path) -> Path:
    """Photos for the shards, two a shard."""
    add(shared_world, tmp_path / "Ein Album", range(2 * user.n_shards))
    return tmp_path / "Ein Album"


def batch(world: World, album: Path) -> list[str]:
    return words(world, album, out=album.parent / "out", settings=SHARDS_OF_TWO)


def interrupted(user: User, world: World, album: Path, *signals: signal.Signals) -> Ended:
    """A call of predict-batch that got the signals while it wrote the third shard."""
    interruption = Interruption(
        *("regraft.operations.batch.folder.write_atomic", 3),
        *(album.parent / "out", "name=*/**/*.parquet", 2),
        signals=signals,
    )
    return user.start(batch(world, album), interruption).wait()


def assert_goes_on(world: World, album: Path, n_shards: int):
    """Some shards are answered whole; the same call again answers the others, and them alone."""
    from zenml.client import Client

    out = album.parent / "out"
    before = {path: file for path, file in state_of(out).items() if "/name=" in path}
    assert 2 <= len(before) < n_shards
    assert len(table(out)) == 2 * len(before)
    call(world, album, out=out, settings=SHARDS_OF_TWO)
    assert n_shards_ran() == n_shards - len(before)
    assert {path: state_of(out)[path] for path in before} == before
    assert table(out).path.tolist() == sorted(map(str, album.iterdir()))
    assert not Client().list_pipeline_runs(status="running").items


def test_a_killed_call_leaves_whole_answers_and_the_next_one_goes_on(shared_world, user, album):
    assert interrupted(user, shared_world, album, signal.SIGKILL).code == -signal.SIGKILL
    assert_goes_on(shared_world, album, user.n_shards)


@pytest.mark.parametrize("n_times", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_ctrl_c_ends_it_and_the_same_command_goes_on(shared_world, user, album, n_times):
    ended = interrupted(user, shared_world, album, *(signal.SIGINT,) * n_times)
    assert ended.code == 130, ended
    assert "Ctrl-C" in ended.err
    assert_goes_on(shared_world, album, user.n_shards)


def test_two_calls_at_once_leave_every_answer_once(shared_world, user, album, tmp_path):
    both = [user.start(batch(shared_world, album)) for _ in range(2)]
    for process in both:
        assert finish(process).out.startswith(f"{2 * user.n_shards} ")
    out = tmp_path / "out"
    assert table(out).path.tolist() == sorted(map(str, album.iterdir()))
    assert not list((out / "_writing").iterdir())
