"""Step of the stage mirror: ZenML's Model Control Plane follows MLflow's aliases."""

import logging
from typing import Annotated

from zenml import step

from regraft.core.config import TrackingConfig
from regraft.orchestration.mirror import repair

logger = logging.getLogger("regraft.mirror")


@step(enable_cache=False)
def mirror(config: TrackingConfig) -> Annotated[list[str], "repaired"]:
    """Return what was changed in the mirror, so that it shows what the registry has."""
    changed = list(repair(config, config.name))
    logger.info("mirror: %s", "; ".join(changed) or "nothing to change")
    return changed
