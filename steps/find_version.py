"""Step of the stage find_version: a model that is in the registry already."""

import logging
from typing import Annotated

from zenml import step

from regraft import registry
from regraft.core.config import TrackingConfig
from regraft.registry import RegisteredVersion

logger = logging.getLogger("regraft.find_version")


@step(enable_cache=False)
def find_version(reference: str, config: TrackingConfig) -> Annotated[RegisteredVersion, "version"]:
    """Return the version that "name@alias", "name/3" or "name" refers to now."""
    version = registry.resolve(config, reference)
    logger.info("find_version: %s/%d", version.name, version.version)
    return version
