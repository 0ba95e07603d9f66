"""Doorway of the stage promote."""

import logging
from datetime import UTC, datetime
from typing import Annotated

from zenml import step

from materializers.reports import VerdictMaterializer
from regraft.core.config import Config
from regraft.core.state import who_am_i
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
    """The verdict, and the alias moved if it says so."""
    verdict = core_promote(version, splits, config, who_am_i(), datetime.now(UTC), report)
    logger.info("%s", verdict)
    return verdict
