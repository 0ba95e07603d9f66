"""Doorway of the stage promote."""

import logging
from typing import Annotated

from zenml import step

from regraft.config import Config
from regraft.evaluate import EvaluationReport
from regraft.promote import Verdict
from regraft.promote import promote as core_promote
from regraft.registry import RegisteredVersion
from regraft.split import Splits

logger = logging.getLogger("regraft.promote")


@step(enable_cache=False)
def promote(
    version: RegisteredVersion,
    report: EvaluationReport,
    splits: Splits,
    config: Config,
) -> Annotated[Verdict, "verdict"]:
    """The verdict, and the alias moved if it says so."""
    verdict = core_promote(version, report, splits, config)
    logger.info("%s", verdict)
    return verdict
