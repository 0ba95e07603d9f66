"""Step of the stage register."""

import logging
from typing import Annotated

from zenml import get_step_context, step

from regraft import registry
from regraft.core.config import Config
from regraft.data.split import Splits
from regraft.evaluation.evaluate import EvaluationReport
from regraft.registry import RegisteredVersion
from regraft.training.tune import Challenger

logger = logging.getLogger("regraft.register")


@step(enable_cache=False)
def register(
    challenger: Challenger,
    report: EvaluationReport,
    splits: Splits,
    config: Config,
) -> Annotated[RegisteredVersion, "version"]:
    """Return a version that predicts as the trained model does, under the alias challenger."""
    origin = {"zenml_run": get_step_context().pipeline_run.name}
    version = registry.register(challenger, report, splits, config, origin)
    logger.info("%s", version)
    return version
