"""Step of the stage interpolate."""

import json
import logging
from dataclasses import asdict
from typing import Annotated

from zenml import step

from materializers.classifier import ChallengerMaterializer
from regraft.core.config import Config
from regraft.data.split import Splits
from regraft.orchestration.caching import FOLLOW_REGISTRY
from regraft.registry import tracking
from regraft.registry.interpolate import Interpolation, load_champion
from regraft.registry.interpolate import interpolate as core_interpolate
from regraft.training.tune import Challenger

logger = logging.getLogger("regraft.interpolate")


@step(cache_policy=FOLLOW_REGISTRY, output_materializers={"challenger": ChallengerMaterializer})
def interpolate(
    challenger: Challenger, splits: Splits, config: Config, champion: str
) -> tuple[Annotated[Challenger, "challenger"], Annotated[Interpolation, "interpolation"]]:
    """Return the challenger or its blend with the champion, which is named by its content hash."""
    serving = load_champion(config.tracking, champion)
    result = core_interpolate(challenger, serving, splits, config)
    record = json.dumps(asdict(result.interpolation), indent=1).encode()
    run = tracking.Run(challenger.run_id, config.tracking.uri)
    tracking.attach_files(run, "", {"interpolation.json": record})
    logger.info("%s", result.interpolation)
    return result.challenger, result.interpolation
