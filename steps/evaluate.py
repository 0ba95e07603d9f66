"""Step of the stage evaluate."""

import logging
from typing import Annotated

from zenml import step

from materializers.reports import ReportMaterializer
from regraft.core.config import EmbedConfig, EvaluateConfig
from regraft.data.split import Splits
from regraft.evaluation.evaluate import EvaluationReport
from regraft.evaluation.evaluate import evaluate as core_evaluate
from regraft.orchestration.caching import FOLLOW_EVALUATION
from regraft.stats import TransferGain
from regraft.training.tune import Challenger

logger = logging.getLogger("regraft.evaluate")


@step(cache_policy=FOLLOW_EVALUATION, output_materializers=ReportMaterializer)
def evaluate(
    challenger: Challenger,
    transfer: TransferGain,
    splits: Splits,
    config: EvaluateConfig,
    store: EmbedConfig,
) -> Annotated[EvaluationReport, "report"]:
    """Return the challenger's metrics on exactly the test photos."""
    report = core_evaluate(challenger, transfer, splits, config, store)
    logger.info("%s", report)
    return report
