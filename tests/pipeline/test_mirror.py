"""ZenML's Model Control Plane shows what MLflow's aliases say, and is mended when it does not."""

import shutil

import pytest
import typer
from tiny_registry import NAME, add_version, crown, two_versions
from typer.testing import CliRunner

from commands.doctor import doctor
from pipelines.doctor import check_mirror
from pipelines.stack import bootstrap
from regraft.config import TrackingConfig
from regraft.tracking import connect

pytestmark = pytest.mark.pipeline


@pytest.fixture
def tracking(state):
    """A registry in which version 1 serves and version 2 is the challenger; no mirror yet."""
    bootstrap(state)
    return two_versions(TrackingConfig(uri=state.tracking_uri))


def mended(tracking):
    from steps.mirror import differences, repair

    found = differences(tracking)
    assert repair(tracking) == found
    assert differences(tracking) == ()
    return list(found)


def shown():
    """{version: stage} as ZenML has it."""
    from zenml.client import Client

    model = Client().get_model(NAME)
    return {one.name: one.stage for one in Client().list_model_versions(model=model.id).items}


def zenml_version(name):
    from zenml.client import Client

    return Client().get_model_version(NAME, name)


def call_doctor(state, *arguments):
    app = typer.Typer()
    app.command()(doctor)
    return CliRunner().invoke(app, ["--state", str(state.root), *arguments])


def test_mirror_follows_champion_and_challenger(tracking):
    assert mended(tracking) == [f"{NAME} v2 is missing", f"{NAME} v1 is missing"]
    assert shown() == {"v1": "production", "v2": "staging"}
    crown(tracking, 2, 1)
    assert len(mended(tracking)) == 2
    assert shown() == {"v1": "archived", "v2": "production"}
    crown(tracking, 1, 2)
    assert len(mended(tracking)) == 2
    assert shown() == {"v1": "production", "v2": "staging"}
    add_version(tracking, 0.5)
    assert mended(tracking) == [
        f"{NAME} v3 is missing",
        f"{NAME} v2 is in the stage staging, not archived",
    ]
    assert shown() == {"v1": "production", "v2": "archived", "v3": "staging"}


def test_mirror_says_what_a_version_is_and_where_it_lies(tracking):
    mended(tracking)
    assert zenml_version("v2").run_metadata == {
        "registry": tracking.uri,
        "content_hash": "hash of 0.875",
        "bundle_url": "regraft:/nothing/artifacts/bundle",
        "mlflow_run_id": "",
        "test_accuracy": 0.875,
    }
    connect(tracking).set_model_version_tag(NAME, "2", "test_accuracy", "0.5")
    assert mended(tracking) == [f"{NAME} v2 tells other facts than the registry"]
    assert zenml_version("v2").run_metadata["test_accuracy"] == 0.5


def test_stage_moved_by_hand_is_found_and_mended_by_doctor(state, tracking):
    mended(tracking)
    zenml_version("v2").set_stage("production", force=True)
    said = call_doctor(state)
    assert said.exit_code == 7
    assert "FAIL  mirror" in said.output
    assert f"{NAME} v2 is in the stage production, not staging (and 1 more)" in said.output
    assert "regraft doctor --fix" in said.output
    assert shown()["v2"] == "production"  # looking changes nothing
    said = call_doctor(state, "--fix")
    assert said.exit_code == 0, said.output
    assert f"mended  mirror: {NAME} v2 is in the stage production, not staging" in said.output
    assert shown() == {"v1": "production", "v2": "staging"}
    assert "mended" not in call_doctor(state, "--fix").output


def test_mirrored_version_that_was_deleted_is_made_again(tracking):
    from zenml.client import Client

    mended(tracking)
    Client().delete_model_version(zenml_version("v1").id)
    assert check_mirror(tracking).detail == f"{NAME} v1 is missing"
    mended(tracking)
    assert shown() == {"v1": "production", "v2": "staging"}


def test_version_that_left_the_registry_leaves_the_mirror_and_others_stay(tracking):
    from zenml.client import Client

    mended(tracking)
    Client().create_model_version(NAME, "v9")
    Client().create_model_version(NAME, "by hand")
    connect(tracking).delete_model_version(NAME, "2")
    assert mended(tracking) == [f"{NAME} v2 is no longer in the registry"]
    assert set(shown()) == {"v1", "v9", "by hand"}


def test_model_that_left_the_registry_leaves_the_mirror(tracking):
    mended(tracking)
    connect(tracking).delete_registered_model(NAME)
    assert len(mended(tracking)) == 2
    assert shown() == {}


def test_another_registry_s_versions_are_left_alone(tracking, template, tmp_path):
    from steps.mirror import differences

    mended(tracking)
    shutil.copyfile(template / "mlflow.db", tmp_path / "other.db")
    other = TrackingConfig(uri=f"sqlite:///{tmp_path / 'other.db'}")
    assert differences(other) == ()
    assert shown() == {"v1": "production", "v2": "staging"}


def test_version_whose_registration_was_interrupted_is_not_shown(tracking):
    connect(tracking).delete_model_version_tag(NAME, "2", "content_hash")
    assert mended(tracking) == [f"{NAME} v1 is missing"]
    assert shown() == {"v1": "production"}


def test_version_that_another_process_made_first_is_taken(tracking):
    from zenml.client import Client

    Client().create_model(NAME)
    Client().create_model_version(NAME, "v1")  # killed before it said what it is
    assert f"{NAME} v1 tells other facts than the registry" in mended(tracking)
    assert shown() == {"v1": "production", "v2": "staging"}


def test_ledger_of_a_model_is_no_model(tracking):
    from zenml.client import Client

    mended(tracking)
    assert [model.name for model in Client().list_models().items] == [NAME]
