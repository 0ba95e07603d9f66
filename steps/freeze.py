"""Doorway of the stage freeze."""

import logging
from typing import Annotated

from zenml import step

from regraft.classifier import ImageClassifier
from regraft.config import FreezeConfig
from regraft.freeze import FreezePlan
from regraft.freeze import freeze as core_freeze
from steps.caching import FOLLOW_CORE

logger = logging.getLogger("regraft.freeze")


@step(cache_policy=FOLLOW_CORE)
def freeze(pretrained: ImageClassifier, config: FreezeConfig) -> Annotated[FreezePlan, "plan"]:
    """Every parameter, frozen or its learning-rate factor."""
    plan = core_freeze(pretrained, config)
    logger.info("%s", plan)
    return plan
