"""Step of the stage freeze."""

import logging
from typing import Annotated

from zenml import step

from regraft.core.config import FreezeConfig
from regraft.model.classifier import ImageClassifier
from regraft.model.freeze import FreezePlan
from regraft.model.freeze import freeze as core_freeze
from regraft.orchestration.caching import FOLLOW_MODEL

logger = logging.getLogger("regraft.freeze")


@step(cache_policy=FOLLOW_MODEL)
def freeze(pretrained: ImageClassifier, config: FreezeConfig) -> Annotated[FreezePlan, "plan"]:
    """Return the plan: every parameter, frozen or with its learning-rate factor."""
    plan = core_freeze(pretrained, config)
    logger.info("%s", plan)
    return plan
