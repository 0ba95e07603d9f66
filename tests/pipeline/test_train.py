"""What one run of `regraft train` leaves behind."""

import json
import re
from pathlib import Path

import pytest
from mlflow import MlflowClient
from tiny_train import NAME, last_run, output, stages

from regraft import registry
from regraft.registry.versions import describe_version

pytestmark = pytest.mark.pipeline

STAGES = [
    *("ingest", "split", "choose_backbone", "load_pretrained", "freeze"),
    *("fine_tune", "measure_transfer", "evaluate", "register", "promote", "mirror"),
]


@pytest.fixture(scope="module")
def world(shared_world):
    return shared_world


@pytest.fixture(scope="module")
def run(world):
    return last_run()


def mlflow_run(world):
    [run] = MlflowClient(world.tracking.uri).search_runs(
        [MlflowClient(world.tracking.uri).get_experiment_by_name(NAME).experiment_id]
    )
    return run


def files_of(world) -> Path:
    return world.state.mlflow_artifacts / mlflow_run(world).info.run_id / "artifacts"


def outputs(run):
    return [step.output for step in run.steps.values()]


def test_eleven_steps_run_in_the_order_of_the_house(run):
    assert list(stages(run)) == STAGES
    assert set(stages(run).values()) == {"completed"}
    assert run.status == "completed"


def test_no_artifact_is_a_pickle(run):
    for artifact in outputs(run):
        assert "pickle" not in artifact.materializer.import_path.lower(), artifact.name
        for path in Path(artifact.uri).rglob("*"):
            assert path.suffix in (".json", ".parquet", ".safetensors", ".html"), path


def test_report_is_shown_as_html_in_zenml(run):
    [shown] = [
        picture for picture in run.steps["evaluate"].output.visualizations if picture.type == "html"
    ]
    assert Path(shown.uri).read_text(encoding="utf-8").startswith("<!doctype html>")


def test_mlflow_pages_describe_the_model_and_open_as_classic_machine_learning(world, run):
    client = MlflowClient(world.tracking.uri)
    assert "image classifier" in client.get_registered_model(NAME).description
    description = client.get_model_version(NAME, "1").description
    accuracy = f"{100 * output(run, 'evaluate').accuracy.value:.1f}"
    expected = rf"on \d+-.* classes .*Trained on \d+ .*accuracy {accuracy}"
    assert re.search(expected, description)
    kind = client.get_experiment_by_name(NAME).tags["mlflow.experimentKind"]
    assert kind == "custom_model_development"
    version = registry.find(world.tracking, NAME, "1")
    describe_version(world.tracking, version, "Test")
    assert client.get_model_version(NAME, "1").description.endswith(". Test")
    client.update_model_version(NAME, "1", "Mine.")
    describe_version(world.tracking, version, "Test")
    assert client.get_model_version(NAME, "1").description == "Mine."
    client.update_model_version(NAME, "1", description)


def test_mlflow_run_is_called_as_the_pipeline_run_and_finished(world, run):
    tracked = mlflow_run(world)
    assert tracked.info.run_name == run.name
    assert tracked.info.status == "FINISHED"
    assert output(run, "fine_tune").run_id == tracked.info.run_id


def test_mlflow_run_holds_the_curves_an_epoch(world, run):
    client, tracked = MlflowClient(world.tracking.uri), mlflow_run(world)
    points = client.get_metric_history(tracked.info.run_id, "tune/validation_loss")
    history = output(run, "fine_tune").history
    expected = history[history.phase == "tune"]
    assert [point.step for point in points] == expected.epoch.tolist() == [1, 2]
    assert [point.value for point in points] == expected.validation_loss.tolist()


def test_mlflow_run_holds_the_settings_and_the_data_set(world, run):
    tracked, digest = mlflow_run(world), output(run, "split").digest
    assert tracked.data.params["tune.epochs"] == "2"
    assert tracked.data.params["freeze.policy"] == "last_block"
    assert tracked.data.tags["dataset_digest"] == digest
    assert digest.startswith(tracked.inputs.dataset_inputs[0].dataset.digest)


def test_mlflow_run_holds_the_plan_the_plots_and_the_report(world, run):
    files = files_of(world)
    plan = json.loads((files / "freeze_plan.json").read_text())
    assert len(plan["data"]) == len(output(run, "freeze").table())
    assert len(list((files / "plots").glob("*.png"))) == 3
    assert "<!doctype html>" in (files / "report.html").read_text(encoding="utf-8")[:100]


def test_first_model_is_version_1_challenger_and_champion(world, run):
    assert registry.get_aliases(world.tracking, NAME) == {"challenger": 1, "champion": 1}
    verdict = output(run, "promote")
    assert (verdict.decision, verdict.champion) == ("promote", None)
    tags = MlflowClient(world.tracking.uri).get_model_version(NAME, "1").tags
    assert tags["zenml_run"] == run.name
    assert tags["mlflow_run_id"] == mlflow_run(world).info.run_id
    assert tags["dataset_digest"] == output(run, "split").digest
    assert tags["content_hash"] == registry.find(world.tracking, NAME).content_hash
    assert {"git_sha", "test_accuracy", "n_test", "why"} <= set(tags)
