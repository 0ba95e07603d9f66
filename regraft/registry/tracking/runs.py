"""Log a training run to MLflow: parameters, live metrics, the freeze plan, plots, the report.

Every call uses a client with an explicit URI. MLflow's process-wide tracking URI is not used and
not changed, because other code in the same process sets it.
"""

import logging
import math
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from ssl import SSLError
from typing import TYPE_CHECKING, Literal
from urllib.error import HTTPError
from urllib.request import urlopen

from filelock import FileLock
from mlflow import MlflowClient
from mlflow.entities import (
    Dataset,
    DatasetInput,
    Experiment,
    InputTag,
    LifecycleStage,
    Metric,
    Param,
)
from mlflow.exceptions import MlflowException

from regraft.core.config import Config, TrackingConfig
from regraft.core.errors import ConfigError, ModelNotFound, RegistryError
from regraft.core.spreadsheet import csv_text
from regraft.core.state import require_mlflow_database

if TYPE_CHECKING:
    from regraft.evaluation.evaluate import EvaluationReport
    from regraft.training.tune import Challenger, EpochRecord

SQLITE = "sqlite:///"
REPORT_FILE = "report.html"
# MLflow's pages open an experiment without a kind as one of generative AI (seen in 3.17).
EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}
MAX_PARAMETER_LENGTH = 6000  # characters; MLflow's limit for the value of a parameter
MAX_BATCH = 100  # MLflow's limit for the parameters in one call
_ANSWER_TIMEOUT_S = 10.0  # guess
MAX_DIGEST_LENGTH = 36  # MLflow's limit for a digest; a tag stores the whole digest


@dataclass(frozen=True)
class Run:
    """An MLflow run: its id and the tracking URI of its store."""

    run_id: str
    uri: str

    @property
    def client(self) -> MlflowClient:
        """A client of the run's store."""
        return MlflowClient(tracking_uri=self.uri)


def connect(tracking: TrackingConfig) -> MlflowClient:
    """Return a client of the store, for tracking and registry.

    Raises:
        ConfigError: tracking.uri is empty. MLflow would create a store in the working directory.
        DatabaseDamaged: the SQLite file of the store is damaged, or was emptied.
        RegistryError: the server does not answer.
    """
    if not tracking.uri:
        raise ConfigError("Expected the URI of an MLflow store in tracking.uri, got none. Set it.")
    _prepare_store(tracking.uri)
    return MlflowClient(tracking_uri=tracking.uri, registry_uri=tracking.uri)


@cache
def _prepare_store(uri: str) -> None:
    """Create the tables of a new SQLite store under a lock; check that a server answers.

    Two processes at once would damage a new store. MLflow's own lock does not prevent this (seen in
    3.17).

    Raises:
        DatabaseDamaged: the file is damaged, or was emptied.
        ModelNotFound: the file does not exist, and cannot be created.
        RegistryError: no server answers.
    """
    if os.environ.get("MLFLOW_LOGGING_LEVEL") != "DEBUG":
        # It logs the traceback of each error that it raises, too.
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    if uri.startswith(("http://", "https://")):
        _require_answer(uri)
    if not uri.startswith(SQLITE):
        return
    path = Path(uri.removeprefix(SQLITE))
    require_mlflow_database(path)
    if path.parent.exists() and not os.access(path.parent, os.W_OK):  # for commands that read
        if path.exists():
            return
        raise ModelNotFound(
            f"Expected MLflow's database in {path}, got none, and its folder is write-protected. "
            "Run `regraft train PHOTOS` first, as a user who may write there."
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):
        client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        client.search_experiments(max_results=1)
        client.search_registered_models(max_results=1)


def _require_answer(uri: str) -> None:
    """Raise an error at once if no server answers; MLflow would try again for minutes.

    Raises:
        RegistryError: the connection fails.
    """
    try:
        with urlopen(f"{uri}/health", timeout=_ANSWER_TIMEOUT_S):
            pass
    except HTTPError:
        pass  # a server that wants a password, for example
    except OSError as error:
        if not isinstance(getattr(error, "reason", None), SSLError):  # MLflow may be told to trust
            raise RegistryError(
                f"Expected an MLflow server at {uri}, got: {error}. Start it, or correct the "
                "network of this machine, then run the same command again."
            ) from None


def open_experiment(tracking: TrackingConfig) -> str:
    """Return the id of the experiment; create it if it does not exist.

    Two processes may call this at the same time.

    Raises:
        ConfigError: tracking.uri or tracking.name is empty.
        RegistryError: the experiment was deleted, and its name is still in use.
    """
    client = connect(tracking)
    if not tracking.name:
        raise ConfigError("Expected a name for the model in tracking.name, got none. Set it.")
    experiment: Experiment | None = client.get_experiment_by_name(tracking.name)
    if experiment is None:
        return _create_experiment(client, tracking)
    if experiment.lifecycle_stage == LifecycleStage.DELETED:
        raise RegistryError(
            f"The MLflow experiment {tracking.name!r} was deleted, and its name is still in use. "
            f"Run `mlflow experiments restore -x {experiment.experiment_id}`, or choose another "
            "tracking.name."
        )
    return str(experiment.experiment_id)


def _create_experiment(client: MlflowClient, tracking: TrackingConfig) -> str:
    # Without an explicit location, a database store writes files into the working directory.
    location = tracking.artifacts_url or None
    try:
        return str(client.create_experiment(tracking.name, location, EXPERIMENT_TAGS))
    except MlflowException as error:
        experiment = client.get_experiment_by_name(tracking.name)
        if error.error_code != "RESOURCE_ALREADY_EXISTS" or experiment is None:
            raise
        return str(experiment.experiment_id)


def start_run(tracking: TrackingConfig, run_name: str) -> Run:
    """Start a new run in the experiment and return it; end it with end_run().

    Raises:
        ConfigError, RegistryError: as connect() and open_experiment().
    """
    created = connect(tracking).create_run(open_experiment(tracking), run_name=run_name)
    return Run(created.info.run_id, tracking.uri)


def end_run(run: Run, status: Literal["FINISHED", "FAILED", "KILLED"]) -> None:
    """End the run with a status."""
    run.client.set_terminated(run.run_id, status)


@contextmanager
def running(tracking: TrackingConfig, run_name: str) -> Iterator[Run]:
    """Start a new run and end it at block exit; its status is FAILED if the block raises."""
    run = start_run(tracking, run_name)
    status: Literal["FINISHED", "FAILED"] = "FAILED"
    try:
        yield run
        status = "FINISHED"
    finally:
        end_run(run, status)


def end_dead_runs(tracking: TrackingConfig, is_alive: Callable[[str], bool]) -> list[str]:
    """Mark running runs without a process as killed and return their names.

    Args:
        is_alive: returns whether a process still executes the run of this name.
    """
    client = connect(tracking)
    running = client.search_runs([open_experiment(tracking)], "attributes.status = 'RUNNING'")
    dead = [run for run in running if not is_alive(run.info.run_name)]
    for run in dead:
        client.set_terminated(run.info.run_id, "KILLED")
    return [run.info.run_name for run in dead]


def log_epoch(run: Run, record: "EpochRecord") -> None:
    """Log the numbers of an epoch as metrics "PHASE/NAME"; the step is the epoch."""
    values = {
        f"{record.phase}/{name}": value
        for name, value in asdict(record).items()
        if name not in ("phase", "epoch")
    }
    _log_metrics(run, values, step=record.epoch)


def log_config(run: Run, config: Config) -> None:
    """Log every value as a parameter "section.field"; a repeated call changes nothing."""
    _log_parameters(run, config.flat())


def has_other_settings(run: Run, config: Config) -> bool:
    """Return whether the run has a parameter with another value than log_config() would write."""
    logged = run.client.get_run(run.run_id).data.params
    return any(
        logged.get(name, value) != value
        for name, value in ((name, _cut(text)) for name, text in config.flat().items())
    )


def log_training(run: Run, challenger: "Challenger") -> None:
    """Log the training: parameters, data set, freeze plan, history and freeze audit."""
    card = challenger.classifier.card
    backbone = {"architecture": card.backbone.architecture, "n_classes": str(len(card.classes))}
    _log_parameters(run, card.config | backbone)
    client = run.client
    client.log_inputs(run.run_id, datasets=[_dataset(challenger)])
    client.set_tag(run.run_id, "dataset_digest", card.dataset_digest)
    client.set_tag(run.run_id, "selected_phase", challenger.selected_phase)
    client.set_tag(run.run_id, "stopped", challenger.stopped)
    client.set_tag(run.run_id, "trained_as", challenger.trained_as)
    client.log_table(run.run_id, challenger.plan.table(), "freeze_plan.json")
    client.log_table(run.run_id, challenger.history, "history.json")
    client.log_dict(run.run_id, asdict(challenger.audit), "freeze_audit.json")


def log_report(run: Run, report: "EvaluationReport", page: str) -> None:
    """Log the final metrics, the plots, the report page and the full tables behind the page."""
    from regraft.registry.tracking.plots import confusion_plot, history_plot, reliability_plot

    _log_metrics(run, dict(_numbers(report)), step=0)
    run.client.log_figure(run.run_id, confusion_plot(report), "plots/confusion.png")
    run.client.log_figure(run.run_id, reliability_plot(report), "plots/reliability.png")
    run.client.log_figure(run.run_id, history_plot(report), "plots/history.png")
    run.client.log_text(run.run_id, csv_text(report.predictions), "predictions.csv")
    run.client.log_text(run.run_id, csv_text(report.quarantine), "quarantine.csv")
    attach_files(run, "", {REPORT_FILE: page.encode()})


def attach_files(run: Run, folder: str, files: Mapping[str, bytes]) -> None:
    """Write files into a folder of the run's artifacts, replacing files of the same name."""
    with tempfile.TemporaryDirectory() as scratch:
        for name, content in files.items():
            (Path(scratch) / name).write_bytes(content)
        run.client.log_artifacts(run.run_id, scratch, folder)


def load_attachments(run: Run, folder: str) -> dict[str, bytes]:
    """Return {name: content} of a folder of the run's artifacts, empty if it does not exist."""
    if not run.client.list_artifacts(run.run_id, folder):
        return {}
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(run.client.download_artifacts(run.run_id, folder, scratch))
        return {file.name: file.read_bytes() for file in path.iterdir()}


def _log_parameters(run: Run, values: Mapping[str, str]) -> None:
    parameters = [Param(name, _cut(value)) for name, value in values.items()]
    for start in range(0, len(parameters), MAX_BATCH):
        run.client.log_batch(run.run_id, params=parameters[start : start + MAX_BATCH])


def _cut(value: str) -> str:
    return value[:MAX_PARAMETER_LENGTH]


def _log_metrics(run: Run, values: Mapping[str, float], step: int) -> None:
    now_ms = time.time_ns() // 1_000_000  # log_batch() requires a time, unlike log_metric()
    finite = {name: value for name, value in values.items() if math.isfinite(value)}
    metrics = [Metric(name, float(value), now_ms, step) for name, value in finite.items()]
    run.client.log_batch(run.run_id, metrics=metrics)


def _dataset(challenger: "Challenger") -> DatasetInput:
    digest = challenger.classifier.card.dataset_digest
    profile = f'{{"n_photos": {len(challenger.manifest)}}}'
    dataset = Dataset("photos", digest[:MAX_DIGEST_LENGTH], "local", "{}", profile=profile)
    return DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])


def _numbers(report: "EvaluationReport") -> Iterator[tuple[str, float]]:
    yield "n_test", report.n
    for name, interval in (("test_accuracy", report.accuracy), ("baseline", report.baseline)):
        yield name, interval.value
        yield f"{name}_low", interval.low
        yield f"{name}_high", interval.high
    if report.top_k:
        yield f"top_{report.top_k}_accuracy", report.top_k_accuracy.value
    yield "macro_f1", report.macro_f1
    yield "transfer_gain", report.transfer.gain
    yield "random_accuracy", report.transfer.random_accuracy
    yield "temperature", report.temperature
    yield "ece_before", report.ece_before
    yield "ece_after", report.ece_after
    yield "nll_before", report.nll_before
    yield "nll_after", report.nll_after
