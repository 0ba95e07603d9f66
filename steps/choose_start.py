"""Step of the stage choose_start."""

import logging
from typing import Annotated

from zenml import step

from regraft.core.config import BackboneConfig, Config
from regraft.data.split import Splits
from regraft.operations.retrain.start import choose_start as core_choose_start
from regraft.orchestration.caching import FOLLOW_START
from regraft.registry.interpolate import load_champion

logger = logging.getLogger("regraft.choose_start")


@step(cache_policy=FOLLOW_START)
def choose_start(
    splits: Splits, config: Config, champion: str, champion_url: str
) -> tuple[Annotated[BackboneConfig, "backbone"], Annotated[str, "started_from"]]:
    """Return where training starts from, and why; content hash and bundle name the champion."""
    serving = load_champion(config.tracking, champion)
    start = core_choose_start(serving, champion_url, splits, config)
    logger.info("%s", start)
    return start.backbone, start.reason
