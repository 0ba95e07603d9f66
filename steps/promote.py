"""Step of the stage promote."""

import logging
from datetime import UTC, datetime
from typing import Annotated

from zenml import step

from materializers.reports import VerdictMaterializer
from regraft.core.config import Config
from regraft.core.state import current_user
from regraft.data.split import Splits
from regraft.evaluation.evaluate import EvaluationReport
from regraft.promotion import Verdict
from regraft.promotion import promote as core_promote
from regraft.registry import RegisteredVersion

logger = logging.getLogger("regraft.promote")


@step(enable_cache=False, output_materializers=VerdictMaterializer)
def promote(
    version: RegisteredVersion,
    splits: Splits,
    config: Config,
    report: EvaluationReport | None = None,
) -> Annotated[Verdict, "verdict"]:
    """Return the verdict; the decision promote moves the alias champion."""
    verdict = core_promote(version, splits, config, current_user(), datetime.now(UTC), report)
    logger.info("%s", verdict)
    return verdict
