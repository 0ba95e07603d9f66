"""Step of the stage begin: the photos when the run begins, not when it was scheduled."""

import logging
from dataclasses import replace
from datetime import UTC, datetime
from typing import Annotated

from zenml import step

from regraft.core.config import Config
from regraft.operations.retrain.conclude import RunSnapshot, take_snapshot
from regraft.operations.retrain.guards import describe_weakened, find_weakened

logger = logging.getLogger("regraft.begin")


@step(enable_cache=False)
def begin(config: Config) -> Annotated[RunSnapshot, "snapshot"]:
    """Return when the run began, and the fingerprints of its photos and settings."""
    weakened = find_weakened(config)
    snapshot = replace(take_snapshot(config, datetime.now(UTC)), weakened=weakened)
    logger.info("begin: photos %.12s", snapshot.photos)
    if weakened:
        logger.warning("begin: %s", describe_weakened(weakened, config.flat()))
    return snapshot
