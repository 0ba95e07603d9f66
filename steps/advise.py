"""Doorway of the stage advise."""

import logging
from datetime import UTC, datetime
from typing import Annotated

from zenml import step

from materializers.reports import AdviceMaterializer
from regraft.core.config import Config
from regraft.data.split import Splits
from regraft.operations.advice import RetrainAdvice
from regraft.operations.retrain.circumstances import advice_about

logger = logging.getLogger("regraft.advise")


@step(enable_cache=False, output_materializers=AdviceMaterializer)
def advise(splits: Splits, config: Config) -> Annotated[RetrainAdvice, "advice"]:
    """Whether to train again, and every reason for and against it."""
    advice = advice_about(splits, config, datetime.now(UTC))
    logger.info("%s", advice)
    return advice
