"""Step of the stage sum_up: a training in a few numbers, for the journal."""

import logging
from typing import Annotated

from zenml import step

from regraft.evaluation.evaluate import EvaluationReport
from regraft.operations.retrain.conclude import Trained
from regraft.operations.retrain.conclude import sum_up as core_sum_up
from regraft.promotion import Verdict
from regraft.registry.interpolate import Interpolation

logger = logging.getLogger("regraft.sum_up")


@step(enable_cache=False)
def sum_up(
    verdict: Verdict, report: EvaluationReport, started_from: str, blend: Interpolation
) -> Annotated[Trained, "trained"]:
    """Return the training in a few numbers: its start, its accuracy, its verdict."""
    trained = core_sum_up(verdict, report, started_from, blend)
    logger.info("%s", trained)
    return trained
