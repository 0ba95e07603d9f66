"""A ZenML and MLflow store of its own for every test, for the price of a copied folder."""

import os
import shutil
import sys
from pathlib import Path

import pytest

from regraft.state import State, environment, open_state

REPOSITORY = Path(__file__).resolve().parents[2]


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
