"""`regraft train` on coloured noise: the whole road in seconds, in this process or another."""

import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from regraft.core.config import TrackingConfig, load_config
from regraft.core.state import State, open_state, places

NAME = "colours"
SETTINGS = (
    *("backbone.architecture=timm:test_efficientnet", "split.near_duplicate_bits=0"),
    *("freeze.policy=last_block", "tune.epochs=2", "tune.augment=none"),
    *("registry.n_parity=3", "evaluate.n_gallery=2"),
    # Nine test photos; networks so tiny change their minds. One test tries a server, elsewhere.
    *("promote.min_photos=1", "promote.smoke_test=false", "behaviour.n_photos=3"),
    *("behaviour.min_flip=0", "behaviour.min_jpeg=0"),
    *("behaviour.min_brightness=0", "behaviour.min_rotation=0"),
)
# What a run writes, next to the two databases.
FOLDERS = (
    "artifacts",
    "mlflow",
    "checkpoints",
    "embeddings",
    "photos",
    "splits",
    "reports",
    "runs",
    "journal",
)


@dataclass(frozen=True)
class World:
    """A folder with photos, weights and a state, and what one run of `regraft train` made of it."""

    folder: Path

    @property
    def photos(self) -> Path:
        return self.folder / "Fotos für drei Farben"

    @property
    def weights(self) -> Path:
        return self.folder / "weights.safetensors"

    @property
    def state(self) -> State:
        return open_state(self.folder / "state")

    @property
    def tracking(self) -> TrackingConfig:
        return TrackingConfig(uri=places(self.state).tracking.uri, name=NAME)

    def train(self, *settings: str, photos: Path | None = None, called: str = NAME):
        """The pipeline run that `regraft train` makes."""
        from regraft.cli.train import run_training

        source = f"backbone.source=file:{self.weights}"
        config = load_config(None, (source, *SETTINGS, *settings))
        run_training(config, str(photos or self.photos), called, self.state.root)
        return last_run()

    def retrain(self, *settings: str):
        """The attempt that `regraft retrain` makes, as its last record in the journal says it."""
        from regraft.cli.session import runner_for
        from regraft.core.state import activate
        from regraft.operations.workflows.retrain import attempt
        from regraft.operations.workflows.settings import complete_config

        source = f"backbone.source=file:{self.weights}"
        config = load_config(None, (source, *SETTINGS, *settings))
        state = self.state
        activate(state)
        config = complete_config(config, str(self.photos), NAME, state)
        return attempt(config, state, runner_for(state)).attempt

    def restore(self, backup: Path):
        """Puts everything back as it was, in the same place: a moved state would cache nothing.

        The databases keep their files: ZenML and MLflow hold them open.
        """
        for path in (self.photos, *(self.folder / "state" / name for name in FOLDERS)):
            shutil.rmtree(path)
            shutil.copytree(backup / path.relative_to(self.folder), path)
        kept = World(backup).state_databases()
        for source, target in zip(kept, self.state_databases(), strict=True):
            with closing(sqlite3.connect(source)) as old, closing(sqlite3.connect(target)) as new:
                old.backup(new)

    def state_databases(self) -> tuple[Path, Path]:
        here = State(self.folder / "state")
        return here.zenml_database, here.mlflow_database


def last_run():
    from zenml.client import Client

    newest = Client().list_pipeline_runs(sort_by="desc:created", size=1).items[0]
    return Client().get_pipeline_run(newest.id)


def stages(run) -> dict[str, str]:
    """{"ingest": "completed", ...} in the order in which the steps began."""
    ran = sorted(run.steps.values(), key=lambda step: step.start_time)
    return {step.name: step.status.value for step in ran}


def made_anew(run) -> set[str]:
    """The steps whose results were not taken from the cache, but for the three that never are."""
    return {name for name, status in stages(run).items() if status != "cached"} - {
        *("register", "promote", "mirror"),
    }


def output(run, stage: str):
    return run.steps[stage].output.load()


def write_dull_weights(start: Path, path: Path) -> Path:
    """A backbone that sees the same in every photo: its head learns nothing, its training does.

    So the weights that are kept in the end are those of the phase that can be interrupted.
    """
    weights = load_file(start)
    weights["bn2.weight"] = torch.zeros_like(weights["bn2.weight"])
    weights["bn2.bias"] = torch.full_like(weights["bn2.bias"], 0.5)
    save_file(weights, path)
    return path


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "regraft.cli", *arguments]


def begin(arguments: list[str], variables: dict[str, str], cwd: Path) -> subprocess.Popen[str]:
    """`regraft ARGUMENTS` in a process of its own, as a user calls it."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command(*arguments), env=variables, cwd=cwd, **pipes)


@dataclass(frozen=True)
class Interruption:
    """When a process gets which signals.

    function: dotted name, in the module that calls it. call: the n-th, counted from 1; a forked
        process sends the signals to itself right after it.
    place, pattern: a new process gets them from outside, once that many files are there (n_files).
    signals: each is sent after the one before has been handled.
    """

    function: str
    call: int
    place: Path
    pattern: str
    n_files: int
    signals: tuple[signal.Signals, ...]

    @property
    def is_due(self) -> bool:
        return len(list(self.place.rglob(self.pattern))) >= self.n_files
