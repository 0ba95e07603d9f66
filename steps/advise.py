"""Step of the stage advise."""

import logging
from datetime import UTC, datetime
from typing import Annotated

from zenml import step

from materializers.reports import AdviceMaterializer
from regraft.core.config import Config
from regraft.data.split import Splits
from regraft.operations.advice import RetrainAdvice
from regraft.operations.retrain.signals import advise_now

logger = logging.getLogger("regraft.advise")


@step(enable_cache=False, output_materializers=AdviceMaterializer)
def advise(splits: Splits, config: Config) -> Annotated[RetrainAdvice, "advice"]:
    """Return the advice whether to retrain, with every reason for and against it."""
    advice = advise_now(splits, config, datetime.now(UTC))
    logger.info("%s", advice)
    return advice
