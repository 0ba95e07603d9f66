"""Doorway of the stage find_champion: who serves when the run asks."""

import logging
from typing import Annotated

from zenml import step

from regraft import registry
from regraft.core.config import TrackingConfig

logger = logging.getLogger("regraft.find_champion")


@step(enable_cache=False)
def find_champion(
    config: TrackingConfig,
) -> tuple[Annotated[str, "champion"], Annotated[str, "champion_url"]]:
    """The content hash of who serves and the place of its bundle, both "" if nobody does.

    The hash is a parameter of the stages after it, so that they are cached by who serves.
    """
    content_hash, url = registry.serving_bundle(config)
    logger.info("find_champion: %s", content_hash[:12] or "nobody serves")
    return content_hash, url
