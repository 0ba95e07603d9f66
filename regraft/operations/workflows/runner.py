"""What the workflows need of an orchestrator: run a DAG, read its results, hold an approval."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from regraft.core.config import TrackingConfig

if TYPE_CHECKING:
    from regraft.promotion import Verdict
    from regraft.promotion.answer import ApprovalDecision
    from regraft.registry import Entry

Dag = Literal["train", "revise", "retrain", "promote", "predict"]


@dataclass(frozen=True)
class StageTime:
    """How long a stage took. seconds: of its own step; is_cached: an earlier result was used."""

    name: str
    seconds: float
    is_cached: bool


class FinishedRun(Protocol):
    """A run of a DAG that has ended without an error."""

    @property
    def name(self) -> str:
        """The run's name, unique in the state folder."""

    def load(self, stage: str) -> Any:  # noqa: ANN401 - of the stage's own type
        """Return the output of a stage that has one output."""

    def stage_times(self) -> tuple[StageTime, ...]:
        """Return the time of every stage, in the order in which they started."""


class PipelineRunner(Protocol):
    """Runs the DAGs of pipelines/ on an orchestrator."""

    def prepare(self) -> None:
        """Create the stores of the runs and of the models, or upgrade them to the libraries."""

    def run(
        self, dag: Dag, tracking: TrackingConfig, *arguments: object, n_workers: int = 1
    ) -> FinishedRun:
        """Run a DAG to its end.

        Args:
            tracking: name is the model's; the run's name begins with it.
            arguments: of the DAG.
            n_workers: steps that may run at once, for a dynamic DAG on this machine.

        Raises:
            RegraftError: what a step raised on purpose.
        """

    def request_approval(self, verdict: "Verdict", tracking: TrackingConfig) -> None:
        """Start the run that waits for an answer to a pending verdict, unless one waits already."""

    def answer(
        self, verdict: "Verdict", tracking: TrackingConfig, decision: "ApprovalDecision"
    ) -> "Entry":
        """Answer a pending verdict; return the ledger's entry.

        Raises:
            NothingPendingApproval: another person has answered meanwhile.
            ChampionMoved: another champion serves than the one of the verdict.
        """

    def repair_mirror(self) -> None:
        """Make what shows the registry elsewhere follow it, if there is such a place."""
