"""Materializers for reports, verdicts and advice, with metadata for ZenML's dashboard."""

from typing import Any, ClassVar

from zenml.enums import VisualizationType

from materializers.tables import TablesMaterializer
from regraft.evaluation.evaluate import EvaluationReport
from regraft.evaluation.report import render
from regraft.operations.advice import RetrainAdvice
from regraft.promotion import Verdict

PAGE_FILE = "report.html"


class ReportMaterializer(TablesMaterializer):
    """Store an EvaluationReport."""

    ASSOCIATED_TYPES: ClassVar[tuple[type[Any], ...]] = (EvaluationReport,)

    def save_visualizations(self, data: EvaluationReport) -> dict[str, VisualizationType]:
        """Write the report page next to the tables and return its path."""
        page = self.file(PAGE_FILE)
        with self.artifact_store.open(page, "w") as file:
            file.write(render(data, "Evaluation"))
        return {page: VisualizationType.HTML}

    def extract_metadata(self, data: EvaluationReport) -> dict[str, float]:
        """Return the main metrics."""
        return {
            "test_accuracy": float(data.accuracy.value),
            "n_test": float(data.n),
            "macro_f1": float(data.macro_f1),
            "transfer_gain": float(data.transfer.gain),
        }


class VerdictMaterializer(TablesMaterializer):
    """Store a Verdict."""

    ASSOCIATED_TYPES: ClassVar[tuple[type[Any], ...]] = (Verdict,)

    def extract_metadata(self, data: Verdict) -> dict[str, str]:
        """Return the decision and its reason."""
        return {"decision": data.decision, "reason": data.reason, "verdict_id": data.id}


class AdviceMaterializer(TablesMaterializer):
    """Store a RetrainAdvice."""

    ASSOCIATED_TYPES: ClassVar[tuple[type[Any], ...]] = (RetrainAdvice,)

    def extract_metadata(self, data: RetrainAdvice) -> dict[str, str]:
        """Return the advice and its reason."""
        return {"decision": data.decision, "reason": data.reason}
