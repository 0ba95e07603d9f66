"""Step of the stage find_champion: the champion when the run starts."""

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
    """Return the champion's content hash and the place of its bundle; both "" if there is none.

    The hash is a parameter of the stages after it, so that they are cached by who serves.
    """
    content_hash, url = registry.serving_bundle(config)
    logger.info("find_champion: %s", content_hash[:12] or "no champion")
    return content_hash, url
