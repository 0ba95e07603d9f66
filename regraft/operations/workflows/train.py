"""The workflow train: photos to a judged model."""

import logging
import shlex
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from regraft.core.config import Config
from regraft.core.errors import JournalBroken
from regraft.core.pages.facts import facts_html, format_interval
from regraft.core.state import State, fix_places
from regraft.core.text import format_count
from regraft.operations.workflows.runner import Dag, FinishedRun, PipelineRunner, StageTime
from regraft.operations.workflows.settings import pin_backbone

if TYPE_CHECKING:
    from regraft.evaluation.evaluate import EvaluationReport
    from regraft.promotion import Verdict
    from regraft.registry import RegisteredVersion


logger = logging.getLogger("regraft.train")


@dataclass(frozen=True)
class TrainedModel:
    """The result of a training.

    report: the evaluation on the test photos.
    version: the registered version; created is False if the same model was registered before.
    verdict: whether the version replaces the champion.
    page: path or URL of the report page.
    stages: the time of each stage.
    weakened: the guards that are weaker than for the model before, as text; "" if none is.
    """

    report: "EvaluationReport"
    version: "RegisteredVersion"
    verdict: "Verdict"
    page: str
    stages: tuple[StageTime, ...]
    weakened: str = ""

    @property
    def accuracy(self) -> float:
        """The share of correct labels on the test photos, in [0, 1]."""
        return self.report.accuracy.value

    @property
    def reference(self) -> str:
        """The model as "name/version"."""
        return f"{self.version.name}/{self.version.version}"

    @property
    def notes(self) -> tuple[str, ...]:
        """The decisions that the user did not make, a sentence each; the report has them too."""
        return self.report.notes

    def __str__(self) -> str:
        accuracy = format_interval(self.report.accuracy)
        measured = f"{self.reference}: {accuracy} of {format_count(self.report.n, 'photo')}"
        text = f"{measured}; {self.verdict.reason}"
        return f"{text}; {self.weakened}" if self.weakened else text

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        facts = {
            "model": self.reference,
            "test accuracy": (
                f"{format_interval(self.report.accuracy)}, {format_count(self.report.n, 'photo')}"
            ),
            "majority class": format_interval(self.report.baseline),
            "verdict": f"{self.verdict.status}: {self.verdict.reason}",
            "report": self.page,
        }
        optional = {"guards": self.weakened, "notes": " ".join(self.notes)}
        facts |= {name: text for name, text in optional.items() if text}
        return facts_html(facts) + str(self.report.per_class.to_html(index=False))


def train(config: Config, state: State, runner: PipelineRunner) -> TrainedModel:
    """Train, evaluate and register a model, and promote it only if it proves better.

    If only class names differ from the champion's training, nothing is trained: the champion's
    weights are registered under the new names.

    Args:
        config: complete, see settings.complete_config().
        state: opened and activated.

    Raises:
        RegraftError: a stage failed.
    """
    from regraft.data.ingest import fingerprint

    listing = fingerprint(config.ingest)  # refuses photos before anything slow is imported
    from regraft.operations.retrain.rename import is_pure_rename, outdated_names
    from regraft.operations.status import rebuild

    pinned, weakened = pin_backbone(config), ""
    dag: Dag = "train"
    if fix_places(config, state).has_registry:
        runner.prepare()  # before anything reads a store that an older MLflow made
        weakened = _weaker_guards(config)
        dag = "revise" if is_pure_rename(pinned) else "train"
    run = runner.run(dag, config.tracking, pinned, listing)
    model = trained_model(run, config, weakened)
    if names := outdated_names(config):
        renamed = f"classes.renamed={config.flat()['classes.renamed']}"
        photos, name = config.ingest.photos, config.tracking.name
        command = shlex.join(["regraft", "retrain", photos, "--model", name, "--set", renamed])
        logger.warning("train: the champion still answers %s. %s", ", ".join(names), command)
    request_pending_approval(model.verdict, config, runner)
    rebuild(state, datetime.now(UTC))
    return model


def _weaker_guards(config: Config) -> str:
    """Return the guards that are weaker than for the model before, as text, and log them."""
    from regraft.operations.retrain.guards import describe_weakened, find_weakened

    try:
        weakened = describe_weakened(find_weakened(config), config.flat())
    except JournalBroken as error:  # a training does not depend on the journal
        logger.warning("train: cannot compare with the guards before: %s", error)
        return ""
    if weakened:
        logger.warning("train: %s", weakened)
    return weakened


def trained_model(run: FinishedRun, config: Config, weakened: str) -> TrainedModel:
    """Return the result of a run that trained a model.

    Args:
        weakened: result of describe_weakened().
    """
    version = run.load("register")
    return TrainedModel(
        report=run.load("evaluate"),
        version=version,
        verdict=run.load("promote"),
        page=f"{config.promote.reports_url}/{version.name}-v{version.version}.html",
        stages=run.stage_times(),
        weakened=weakened,
    )


def request_pending_approval(verdict: "Verdict", config: Config, runner: PipelineRunner) -> None:
    """Start the run that waits for a person's answer, if the verdict is pending."""
    if verdict.is_pending:
        runner.request_approval(verdict, config.tracking)
