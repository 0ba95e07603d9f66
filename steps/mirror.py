"""Step of the stage mirror: ZenML's Model Control Plane follows MLflow's aliases."""

import logging
from typing import Annotated

from zenml import step

from regraft.core.config import TrackingConfig
from regraft.orchestration.mirror import repair

logger = logging.getLogger("regraft.mirror")


@step(enable_cache=False)
def mirror(config: TrackingConfig) -> Annotated[list[str], "repaired"]:
    """Return the differences between the mirror and the registry that were repaired."""
    repaired = list(repair(config, config.name))
    logger.info("mirror: %s", "; ".join(repaired) or "nothing to change")
    return repaired
