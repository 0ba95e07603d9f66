"""A ZenML and MLflow store of its own for every test, for the price of a copied folder."""

import os
import shutil
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from regraft.state import State, environment, open_state
from tests.pipeline.tiny_train import World

REPOSITORY = Path(__file__).resolve().parents[2]
# MLflow reads it when it is imported, which test modules do when they are collected.
os.environ["MLFLOW_LOGGING_LEVEL"] = "WARNING"


def reset_zenml():
    """Makes ZenML forget the store it has read, so that it reads the environment again."""
    if "zenml" not in sys.modules:
        return
    from zenml.client import Client
    from zenml.config.global_config import GlobalConfiguration
    from zenml.login.credentials_store import CredentialsStore
    from zenml.stack.stack import _STACK_CACHE

    config = GlobalConfiguration.get_instance()
    if config and config._zen_store:
        config._zen_store._engine.dispose()
    GlobalConfiguration._reset_instance()
    Client._reset_instance()
    CredentialsStore.reset_instance()
    _STACK_CACHE.clear()  # keyed by stack id, which all copies of the template share


def enter(state: State, monkeypatch: pytest.MonkeyPatch):
    """What activate() does, for a process that goes from one state folder to the next."""
    for name, value in environment(state, debug=False).items():
        monkeypatch.setenv(name, value)
    reset_zenml()


@pytest.fixture(scope="session")
def template(tmp_path_factory):
    """One bootstrapped state folder, to be copied."""
    from pipelines.stack import bootstrap

    with pytest.MonkeyPatch.context() as monkeypatch:
        state = open_state(tmp_path_factory.mktemp("template") / "state")
        enter(state, monkeypatch)
        bootstrap(state)
        reset_zenml()
    return state.root


def copy_of(template: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> State:
    """A copy of a state folder, which open_state repairs, as the one that ZenML uses."""
    shutil.copytree(template, root)
    copied = open_state(root)
    assert copied.moved_from == template
    enter(copied, monkeypatch)
    monkeypatch.syspath_prepend(str(REPOSITORY))
    return copied


@pytest.fixture
def state(template, tmp_path, monkeypatch):
    """A bootstrapped state folder of its own, with a space in its path."""
    yield copy_of(template, tmp_path / "state folder", monkeypatch)
    reset_zenml()


@pytest.fixture(scope="session")
def shell():
    """Variables for a new process: this one's, without what points ZenML anywhere."""
    variables = {key: value for key, value in os.environ.items() if not key.startswith("ZENML_")}
    return variables | {"PYTHONPATH": str(REPOSITORY)}


@contextmanager
def one_thread():
    """Many threads only wait for each other on a network as tiny as these."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def calm():
    """A test on one thread."""
    with one_thread():
        yield


@pytest.fixture(scope="session")
def _first(template, tmp_path_factory):
    """The world after its first run, and a copy of it to be restored from."""
    from tests.pipeline.tiny_challenger import draw_photos, weights_file

    folder = tmp_path_factory.mktemp("a world")
    world = World(folder)
    draw_photos(world.photos, 20)
    weights_file(world.weights)
    with pytest.MonkeyPatch.context() as monkeypatch:
        copy_of(template, folder / "state", monkeypatch)
        with one_thread():
            world.train()
        reset_zenml()
    return world, shutil.copytree(folder, tmp_path_factory.mktemp("backup") / "world")


@pytest.fixture
def world(_first, monkeypatch, tmp_path):
    """Photos, weights and a state as one run of `regraft train` left them."""
    world, backup = _first
    world.restore(backup)
    enter(world.state, monkeypatch)
    monkeypatch.chdir(tmp_path)
    with one_thread():
        yield world
    reset_zenml()
