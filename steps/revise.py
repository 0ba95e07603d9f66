"""Step of the stage revise: the champion under today's class names and settings."""

import logging
from typing import Annotated

from zenml import step

from materializers.classifier import ChallengerMaterializer, ClassifierMaterializer
from regraft import registry
from regraft.core.config import Config
from regraft.data.split import Splits
from regraft.model.classifier import ImageClassifier
from regraft.registry.interpolate import Interpolation, unblended
from regraft.registry.revision import revise as core_revise
from regraft.training.tune import Challenger

logger = logging.getLogger("regraft.revise")


@step(
    enable_cache=False,
    output_materializers={
        "pretrained": ClassifierMaterializer,
        "challenger": ChallengerMaterializer,
    },
)
def revise(
    splits: Splits, config: Config
) -> tuple[
    Annotated[ImageClassifier, "pretrained"],
    Annotated[Challenger, "challenger"],
    Annotated[Interpolation, "interpolation"],
    Annotated[str, "started_from"],
]:
    """Return the champion's network, its revision, that no blend was made, and the start."""
    champion = registry.find(config.tracking, config.tracking.name)
    challenger = core_revise(champion, splits, config)
    result = unblended(challenger, champion.content_hash, "nothing was trained")
    logger.info("%s", challenger)
    start = f"from version {champion.version}, which it revises"
    return challenger.classifier, challenger, result.interpolation, start
