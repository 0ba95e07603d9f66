"""ZenML's Model Control Plane shows what MLflow's aliases say, and is mended when it does not."""

import re
import shutil

import pytest
import typer
from tiny_registry import NAME, add_version, set_champion, two_versions
from tiny_store import state_folder
from typer.testing import CliRunner

from regraft.cli.doctor import doctor
from regraft.core.config import TrackingConfig
from regraft.orchestration.doctor import check_mirror
from regraft.registry.tracking import connect

pytestmark = pytest.mark.pipeline


@pytest.fixture(scope="module")
def folder(template, tmp_path_factory):
    with state_folder(template, tmp_path_factory.mktemp("mirror")) as folder:
        two_versions(folder.tracking)
        folder.save("two versions")
        mended(folder.tracking)
        folder.save("mirrored")
        yield folder


@pytest.fixture
def tracking(folder):
    """A registry in which version 1 serves and version 2 is the challenger; no mirror yet."""
    folder.restore("two versions")
    return folder.tracking


@pytest.fixture
def mirrored(folder):
    """The same, with its mirror."""
    folder.restore("mirrored")
    return folder.tracking


def versions_of(sentences):
    """The version that each sentence names after the model."""
    return [re.match(rf"{NAME} (v\d+)\b", sentence)[1] for sentence in sentences]


def mended(tracking):
    from regraft.orchestration.mirror import differences, repair

    found = set(versions_of(differences(tracking)))
    changed = repair(tracking)
    assert set(versions_of(changed)) == found
    assert differences(tracking) == ()
    return list(changed)


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
    assert mended(tracking) == [
        f"{NAME} v1 added, stage production",
        f"{NAME} v2 added, stage staging",
    ]
    assert shown() == {"v1": "production", "v2": "staging"}
    set_champion(tracking, 2, 1)
    assert len(mended(tracking)) == 2
    assert shown() == {"v1": "archived", "v2": "production"}
    set_champion(tracking, 1, 2)
    assert len(mended(tracking)) == 2
    assert shown() == {"v1": "production", "v2": "staging"}
    add_version(tracking, 0.5)
    moved, added = mended(tracking)
    assert versions_of([moved, added]) == ["v2", "v3"]
    assert re.search("staging.*archived", moved)
    assert shown() == {"v1": "production", "v2": "archived", "v3": "staging"}


def test_mirror_says_what_a_version_is_and_where_it_lies(mirrored):
    assert zenml_version("v2").run_metadata == {
        "registry": mirrored.uri,
        "content_hash": "hash of 0.875",
        "bundle_url": "regraft:/nothing/artifacts/bundle",
        "mlflow_run_id": "",
        "test_accuracy": 0.875,
    }
    connect(mirrored).set_model_version_tag(NAME, "2", "test_accuracy", "0.5")
    assert versions_of(mended(mirrored)) == ["v2"]
    assert zenml_version("v2").run_metadata["test_accuracy"] == 0.5


def test_stage_moved_by_hand_is_found_and_mended_by_doctor(folder, mirrored):
    state = folder.state
    zenml_version("v2").set_stage("production", force=True)
    said = call_doctor(state)
    assert said.exit_code == 7
    assert "FAIL  mirror" in said.output
    assert re.search(rf"{NAME} v2 .*production.*staging.* 1 more", said.output)
    assert "regraft doctor --fix" in said.output
    assert shown()["v2"] == "production"  # looking changes nothing
    said = call_doctor(state, "--fix")
    assert said.exit_code == 0, said.output
    assert re.search(rf"repaired  mirror: {NAME} v2 .*production.*staging", said.output)
    assert shown() == {"v1": "production", "v2": "staging"}
    assert "mended" not in call_doctor(state, "--fix").output


def test_mirrored_version_that_was_deleted_is_made_again(mirrored):
    from zenml.client import Client

    Client().delete_model_version(zenml_version("v1").id)
    assert versions_of([check_mirror(mirrored).detail]) == ["v1"]
    mended(mirrored)
    assert shown() == {"v1": "production", "v2": "staging"}


def test_version_that_left_the_registry_leaves_the_mirror_and_others_stay(mirrored):
    from zenml.client import Client

    Client().create_model_version(NAME, "v9")
    Client().create_model_version(NAME, "by hand")
    connect(mirrored).delete_model_version(NAME, "2")
    assert versions_of(mended(mirrored)) == ["v2"]
    assert set(shown()) == {"v1", "v9", "by hand"}


def test_model_that_left_the_registry_leaves_the_mirror(mirrored):
    connect(mirrored).delete_registered_model(NAME)
    assert len(mended(mirrored)) == 2
    assert shown() == {}


def test_another_registry_s_versions_are_left_alone(mirrored, template, tmp_path):
    from regraft.orchestration.mirror import differences

    shutil.copyfile(template / "mlflow.db", tmp_path / "other.db")
    other = TrackingConfig(uri=f"sqlite:///{tmp_path / 'other.db'}")
    assert differences(other) == ()
    assert shown() == {"v1": "production", "v2": "staging"}


def test_version_whose_registration_was_interrupted_is_not_shown(tracking):
    connect(tracking).delete_model_version_tag(NAME, "2", "content_hash")
    assert versions_of(mended(tracking)) == ["v1"]
    assert shown() == {"v1": "production"}


def test_version_that_another_process_made_first_is_taken(tracking):
    from zenml.client import Client

    Client().create_model(NAME)
    Client().create_model_version(NAME, "v1")  # killed before it said what it is
    assert "v1" in versions_of(mended(tracking))
    assert shown() == {"v1": "production", "v2": "staging"}


def test_ledger_of_a_model_is_no_model(mirrored):
    from zenml.client import Client

    assert [model.name for model in Client().list_models().items] == [NAME]
