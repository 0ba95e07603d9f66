"""Doorway of the stage load_pretrained."""

import logging
from typing import Annotated

from zenml import step

from materializers.classifier import ClassifierMaterializer
from regraft.classifier import ImageClassifier
from regraft.classifier import load_pretrained as core_load_pretrained
from regraft.config import BackboneConfig, ClassesConfig
from regraft.split import Splits
from steps.caching import FOLLOW_CORE

logger = logging.getLogger("regraft.load_pretrained")


@step(cache_policy=FOLLOW_CORE, output_materializers=ClassifierMaterializer)
def load_pretrained(
    config: BackboneConfig, splits: Splits, contract: ClassesConfig
) -> Annotated[ImageClassifier, "pretrained"]:
    """The pretrained backbone under a head for the target task's classes."""
    pretrained = core_load_pretrained(config, splits.classes, contract.renamed)
    logger.info("%s", pretrained)
    return pretrained
