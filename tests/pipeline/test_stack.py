"""What the stack in ZenML is made of, and that it follows a state folder that moves."""

import base64
import multiprocessing
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing, suppress
from functools import partial

import pytest
from tiny_store import in_children, state_folder

from regraft.core.state import activate, environment, open_state, places
from regraft.orchestration.stack import bootstrap
from tests.pipeline.conftest import enter, reset_zenml

pytestmark = pytest.mark.pipeline

BOOTSTRAP = """
import sys
from pathlib import Path
from regraft.core.state import activate, open_state
from regraft.orchestration.stack import bootstrap
state = open_state(Path(sys.argv[1]))
activate(state)
bootstrap(state)
from zenml.client import Client
print(Client().active_stack_model.name)
"""


@pytest.fixture(scope="module")
def folder(template, tmp_path_factory):
    """A state folder, saved as it was set up, and after a run and a file in MLflow."""
    with state_folder(template, tmp_path_factory.mktemp("stack")) as folder:
        run_tiny()
        log_to_mlflow(folder.state)
        folder.save("ran")
        yield folder


@pytest.fixture
def state(folder):
    folder.restore("bootstrapped")
    reset_zenml()  # it remembers the components of the stack
    return folder.state


@pytest.fixture
def ran(folder, tmp_path, monkeypatch):
    """A copy to be moved, after a run."""
    copied = open_state(shutil.copytree(folder.saves / "ran", tmp_path / "state folder"))
    assert copied.moved_from == folder.root
    assert_nowhere(folder.root, copied)  # else what is found below may be found there
    enter(copied, monkeypatch)
    yield copied
    reset_zenml()


def values(database):
    """Every text in an SQLite file, base64 undone."""
    with closing(sqlite3.connect(database)) as connection:
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        for (table,) in tables.fetchall():
            for row in connection.execute(f'SELECT * FROM "{table}"'):
                yield from (text for value in row for text in readings(value))


def readings(value):
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    yield text
    with suppress(ValueError):
        yield base64.b64decode(text, validate=True).decode("utf-8")


def assert_nowhere(path, state):
    for database in (state.zenml_database, state.mlflow_database):
        assert not [text for text in values(database) if f"{path}/" in text or text == str(path)]
    assert str(path) not in (state.zenml / "config.yaml").read_text().replace("\n", " ")


def run_tiny():
    from tests.pipeline.tiny_pipeline import tiny

    return tiny()


def artifact_of_last_run():
    from zenml.client import Client

    run = Client().get_pipeline("tiny").last_run
    return run.steps["make_table"].outputs["table"][0]


def test_two_processes_may_create_one_fresh_state_at_the_same_moment(folder, tmp_path):
    start = multiprocessing.get_context("fork").Barrier(2)

    def create(out):
        from zenml.client import Client

        start.wait()
        state = open_state(tmp_path / "fresh state")
        os.environ.update(environment(state, debug=False))
        reset_zenml()
        activate(state)
        bootstrap(state)
        out.write_text(Client().active_stack_model.name)

    outs = tmp_path / "first", tmp_path / "second"
    assert in_children(*(partial(create, out) for out in outs)) == [0, 0]
    assert [out.read_text() for out in outs] == ["regraft", "regraft"]


@pytest.mark.slow
def test_two_new_processes_may_create_one_fresh_state_and_say_nothing(tmp_path, shell):
    command = [sys.executable, "-c", BOOTSTRAP, str(tmp_path / "fresh state")]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    both = [subprocess.Popen(command, env=shell, cwd=tmp_path, **pipes) for _ in range(2)]
    for process in both:
        out, err = process.communicate(timeout=120)
        assert (process.returncode, out, err) == (0, "regraft\n", "")


def test_a_zenml_repository_around_the_working_directory_does_not_win(state, tmp_path, monkeypatch):
    from zenml.client import Client

    (tmp_path / ".zen").mkdir()
    monkeypatch.chdir(tmp_path)
    bootstrap(state)
    assert Client().active_stack_model.name == "regraft"
    assert Client().root is None


def test_bootstrap_done_twice_changes_nothing(state):
    from zenml.client import Client

    before = list(values(state.zenml_database))
    bootstrap(state)
    assert list(values(state.zenml_database)) == before
    assert Client().active_stack_model.name == "regraft"


def test_bootstrap_points_every_component_into_the_state_folder(state):
    from zenml.client import Client

    stack = Client().active_stack
    assert stack.artifact_store.path == str(state.artifacts)
    assert stack.experiment_tracker.config.tracking_uri == places(state).tracking.uri
    assert stack.model_registry is not None
    assert stack.orchestrator.flavor == "local"


def test_bootstrap_repairs_a_component_that_points_elsewhere(state, tmp_path):
    from zenml.client import Client
    from zenml.enums import StackComponentType

    Client().update_stack_component(
        "regraft", StackComponentType.ARTIFACT_STORE, configuration={"path": str(tmp_path)}
    )
    bootstrap(state)
    assert Client().active_stack.artifact_store.path == str(state.artifacts)


def test_mlflow_tables_of_another_version_are_brought_up_to_date(state, capfd):
    from mlflow import MlflowClient

    (state.root / "mlflow.version").write_text("3.0.0")
    bootstrap(state)
    assert (
        MlflowClient(tracking_uri=places(state).tracking.uri).get_experiment("0").name == "Default"
    )
    assert (state.root / "mlflow.version").read_text() != "3.0.0"
    assert capfd.readouterr() == ("", "")


def test_mlflow_keeps_its_default_experiment_in_the_state_folder(state):
    from mlflow import MlflowClient

    experiment = MlflowClient(tracking_uri=places(state).tracking.uri).get_experiment("0")
    assert str(state.mlflow_artifacts) in experiment.artifact_location.replace("%20", " ")


def test_a_moved_state_loads_its_artifacts_and_forgets_the_old_place(ran, tmp_path, monkeypatch):
    artifact = artifact_of_last_run()
    moved = open_state(ran.root.rename(tmp_path / "elsewhere ü"))
    assert moved.moved_from == ran.root
    assert_nowhere(ran.root, moved)
    enter(moved, monkeypatch)
    bootstrap(moved)
    assert len(load(artifact.id)) == 3
    assert read_from_mlflow(moved) == "weights"
    assert run_tiny().status == "completed"
    assert not ran.root.exists()


def test_a_copied_state_points_to_itself(ran, tmp_path, monkeypatch):
    artifact = artifact_of_last_run()
    copy = shutil.copytree(ran.root, tmp_path / "copy")
    copied = open_state(copy.rename(ran.root / "reports" / "copy"))
    assert_nowhere(ran.artifacts, copied)
    enter(copied, monkeypatch)
    bootstrap(copied)
    shutil.rmtree(ran.artifacts)
    assert len(load(artifact.id)) == 3


def load(artifact_id):
    from zenml.client import Client

    return Client().get_artifact_version(artifact_id).load()


def log_to_mlflow(state):
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=places(state).tracking.uri)
    name = client.create_experiment("photos", artifact_location=str(state.mlflow_artifacts))
    client.log_text(client.create_run(name).info.run_id, "weights", "weights.txt")


def read_from_mlflow(state):
    from mlflow import MlflowClient, artifacts

    client = MlflowClient(tracking_uri=places(state).tracking.uri)
    experiment = client.get_experiment_by_name("photos")
    run = client.search_runs([experiment.experiment_id])[0]
    return artifacts.load_text(f"{run.info.artifact_uri}/weights.txt")
