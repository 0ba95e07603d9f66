"""A ZenML and MLflow store of its own for every test, for the price of a copied folder."""

import gc
import os
import shutil
import sqlite3
import sys
from contextlib import closing, contextmanager, suppress
from functools import cache
from pathlib import Path

import pytest
import torch

from regraft.core.state import State, environment, open_state
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


@cache
def spare_zenml():
    """Makes ZenML remember for a whole process what its runs would ask again: a second for each.

    The installed packages, the integrations, and which database schema is the newest. A new
    interpreter, as a user's, asks.
    """
    from zenml.environment import Environment
    from zenml.integrations.registry import integration_registry
    from zenml.zen_stores.sql_zen_store import SqlZenStore

    Environment.get_python_packages = staticmethod(cache(Environment.get_python_packages))
    integration_registry.activate_integrations = cache(integration_registry.activate_integrations)
    migrate, newest = SqlZenStore.migrate_database, set()

    def migrate_old(store: SqlZenStore):
        if schema_of(store) not in newest:
            migrate(store)
            newest.add(schema_of(store))

    def schema_of(store: SqlZenStore) -> str:
        path = Path(store.config.database)
        if not path.exists():
            return ""
        with closing(sqlite3.connect(path)) as database, suppress(sqlite3.OperationalError):
            return str(database.execute("SELECT version_num FROM alembic_version").fetchall())
        return ""

    SqlZenStore.migrate_database = migrate_old


def enter(state: State, monkeypatch: pytest.MonkeyPatch):
    """What activate() does, for a process that goes from one state folder to the next."""
    for name, value in environment(state, debug=False).items():
        monkeypatch.setenv(name, value)
    reset_zenml()


@pytest.fixture(scope="session")
def template(tmp_path_factory):
    """One bootstrapped state folder, to be copied."""
    from regraft.orchestration.stack import bootstrap

    with pytest.MonkeyPatch.context() as monkeypatch:
        state = open_state(tmp_path_factory.mktemp("template") / "state")
        enter(state, monkeypatch)
        bootstrap(state)
        spare_zenml()
        reset_zenml()
    gc.freeze()  # a collection would look at a million objects of the libraries each time
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
    paths = [os.environ.get("PYTHONPATH", ""), str(REPOSITORY)]  # a forced precision comes by it
    return variables | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}


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


@pytest.fixture(scope="module")
def shared_world(_first, tmp_path_factory):
    """One world for a whole file, whose tests ask about it or add what no other asks about.

    A file takes either this one or `world`.
    """
    world, backup = _first
    world.restore(backup)
    with pytest.MonkeyPatch.context() as patched, one_thread():
        enter(world.state, patched)
        patched.chdir(tmp_path_factory.mktemp("working directory"))
        yield world
    reset_zenml()
