"""The content of a run in a real MLflow store; no other store is written."""

import json
import multiprocessing
from pathlib import Path

import pandas as pd
import pytest
from mlflow import MlflowClient
from tiny_challenger import tracking_in, trained

from regraft.core.config import Config, IngestConfig, TrackingConfig
from regraft.core.errors import ConfigError, RegistryError
from regraft.registry.tracking import (
    end_dead_runs,
    end_run,
    log_config,
    log_epoch,
    log_report,
    log_training,
    open_experiment,
    running,
    start_run,
)
from regraft.training.tune import EpochRecord

pytestmark = pytest.mark.pipeline


@pytest.fixture
def tracking(tmp_path, monkeypatch):
    """An empty store; the test fails if MLflow writes files into the working directory."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    yield tracking_in(tmp_path)
    assert not list(elsewhere.iterdir())


def epoch(number: int, loss: float) -> EpochRecord:
    return EpochRecord("tune", number, loss, 0.5, loss, 0.5, 1e-3, 0.0, 2.0)


def test_epochs_are_metrics_at_their_step(tracking):
    run = start_run(tracking, "curves")
    for number, loss in ((1, 0.9), (2, 0.4)):
        log_epoch(run, epoch(number, loss))
    history = run.client.get_metric_history(run.run_id, "tune/validation_loss")
    assert [(point.step, point.value) for point in history] == [(1, 0.9), (2, 0.4)]
    assert run.client.get_run(run.run_id).info.status == "RUNNING"


def test_whole_configuration_becomes_parameters(tracking):
    run = start_run(tracking, "parameters")
    long = "photos/" + "x" * 7000
    config = Config(ingest=IngestConfig(photos=long))
    log_config(run, config)
    log_config(run, config)  # a repeated call changes nothing
    params = run.client.get_run(run.run_id).data.params
    assert params["tune.lr"] == "0.001"
    assert params["freeze.policy"] == "probe"
    assert len(params["ingest.photos"]) == 6000


def test_training_logs_the_data_set_the_plan_and_the_history(tracking):
    run = start_run(tracking, "training")
    challenger = trained().challenger
    log_training(run, challenger)
    stored = run.client.get_run(run.run_id)
    assert stored.data.tags["dataset_digest"] == trained().splits.digest
    assert stored.data.params["architecture"] == "timm:test_efficientnet"
    assert stored.data.params["freeze.policy"] == "probe"
    [data] = stored.inputs.dataset_inputs
    assert trained().splits.digest.startswith(data.dataset.digest)
    files = Path(tracking.artifacts_url, run.run_id, "artifacts")
    plan = json.loads((files / "freeze_plan.json").read_text())
    table = challenger.plan.table()
    assert plan["columns"] == list(table.columns)
    assert [row[0] for row in plan["data"]] == table.block.tolist()
    assert json.loads((files / "freeze_audit.json").read_text())["n_drifted"] == 0
    assert len(json.loads((files / "history.json").read_text())["data"]) == len(challenger.history)


def test_report_is_attached_with_its_numbers_and_plots(tracking):
    run = start_run(tracking, "report")
    report = trained().report
    log_report(run, report, "<p>Größe</p>")
    metrics = run.client.get_run(run.run_id).data.metrics
    assert metrics["test_accuracy"] == report.accuracy.value
    assert metrics["test_accuracy_low"] == report.accuracy.low
    assert metrics["n_test"] == report.n
    assert metrics["ece_after"] == report.ece_after
    files = Path(tracking.artifacts_url, run.run_id, "artifacts")
    predictions = pd.read_csv(files / "predictions.csv")
    assert predictions.path.tolist() == trained().report.predictions.path.tolist()
    assert (files / "quarantine.csv").read_text().startswith("path,label,reason,detail")
    assert (files / "report.html").read_text(encoding="utf-8") == "<p>Größe</p>"
    assert {path.name for path in (files / "plots").iterdir()} == {
        *("confusion.png", "reliability.png", "history.png"),
    }


def test_run_ends_with_the_given_status(tracking):
    run = start_run(tracking, "ending")
    end_run(run, "FAILED")
    assert run.client.get_run(run.run_id).info.status == "FAILED"


def test_run_in_a_block_ends_with_the_block(tracking):
    with running(tracking, "good") as good:
        assert good.client.get_run(good.run_id).info.status == "RUNNING"
    with pytest.raises(KeyError), running(tracking, "bad") as failing:
        raise KeyError
    assert good.client.get_run(good.run_id).info.status == "FINISHED"
    assert failing.client.get_run(failing.run_id).info.status == "FAILED"


def test_runs_without_a_process_are_ended(tracking):
    dead, alive = start_run(tracking, "dead"), start_run(tracking, "alive")
    assert end_dead_runs(tracking, lambda name: name == "alive") == ["dead"]
    assert dead.client.get_run(dead.run_id).info.status == "KILLED"
    assert alive.client.get_run(alive.run_id).info.status == "RUNNING"


def test_uri_is_required():
    with pytest.raises(ConfigError, match=r"tracking\.uri"):
        start_run(TrackingConfig(), "nowhere")


def test_name_is_required(tracking):
    with pytest.raises(ConfigError, match=r"tracking\.name"):
        start_run(tracking.model_copy(update={"name": ""}), "nameless")


def test_deleted_experiment_names_the_command_to_restore_it(tracking):
    number = open_experiment(tracking)
    MlflowClient(tracking_uri=tracking.uri).delete_experiment(number)
    with pytest.raises(RegistryError, match=rf"mlflow experiments restore -x {number}`"):
        start_run(tracking, "late")


def test_two_processes_may_start_in_one_new_store_at_once(tmp_path):
    """Neither the tables nor the experiment exist yet."""
    uri = f"sqlite:///{tmp_path / 'new.db'}"
    where = TrackingConfig(uri=uri, artifacts_url=str(tmp_path), name="two")
    context = multiprocessing.get_context("fork")  # importing MLflow twice would take longer
    both = [context.Process(target=open_experiment, args=(where,)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(120)
    assert [process.exitcode for process in both] == [0, 0]
    assert open_experiment(where) == "1"


def test_process_wide_uri_is_not_changed(tracking):
    import mlflow

    before = mlflow.get_tracking_uri()
    run = start_run(tracking, "quiet")
    log_training(run, trained().challenger)
    assert mlflow.get_tracking_uri() == before
    assert mlflow.active_run() is None


def test_loss_that_is_not_a_number_is_not_logged(tracking):
    run = start_run(tracking, "nan")
    log_epoch(run, epoch(1, float("nan")))
    metrics = run.client.get_run(run.run_id).data.metrics
    assert "tune/train_loss" not in metrics
    assert metrics["tune/seconds"] == 2.0
