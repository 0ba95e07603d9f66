"""Step of the stage begin: the photos when the run begins, not when it was scheduled."""

import logging
from datetime import UTC, datetime
from typing import Annotated

from zenml import step

from regraft.core.config import Config
from regraft.operations.retrain.conclude import RunSnapshot, begin_attempt

logger = logging.getLogger("regraft.begin")


@step(enable_cache=False)
def begin(config: Config) -> Annotated[RunSnapshot, "snapshot"]:
    """Return when the run began, and the fingerprints of its photos and settings."""
    snapshot = begin_attempt(config, datetime.now(UTC))
    logger.info("begin: photos %.12s", snapshot.photos)
    return snapshot
