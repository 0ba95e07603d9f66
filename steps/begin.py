"""Doorway of the stage begin: what is found when the run begins, not when it was scheduled."""

import logging
from datetime import UTC, datetime
from typing import Annotated

from zenml import step

from regraft.core.config import Config
from regraft.operations.retrain.conclude import Beginning
from regraft.operations.retrain.conclude import begin as core_begin

logger = logging.getLogger("regraft.begin")


@step(enable_cache=False)
def begin(config: Config) -> Annotated[Beginning, "beginning"]:
    """When the run began, and the fingerprints of what it found."""
    beginning = core_begin(config, datetime.now(UTC))
    logger.info("begin: photos %.12s", beginning.photos)
    return beginning
