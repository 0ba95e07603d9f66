"""Step of the stage load_pretrained."""

import logging
from typing import Annotated

from zenml import step

from materializers.classifier import ClassifierMaterializer
from regraft.core.config import BackboneConfig, ClassesConfig
from regraft.data.split import Splits
from regraft.model.classifier import ImageClassifier
from regraft.model.classifier import load_pretrained as core_load_pretrained
from regraft.orchestration.caching import FOLLOW_MODEL

logger = logging.getLogger("regraft.load_pretrained")


@step(cache_policy=FOLLOW_MODEL, output_materializers=ClassifierMaterializer)
def load_pretrained(
    config: BackboneConfig, splits: Splits, contract: ClassesConfig
) -> Annotated[ImageClassifier, "pretrained"]:
    """Return the pretrained backbone with a new head for the target task's classes."""
    pretrained = core_load_pretrained(config, splits.classes, contract.renamed)
    logger.info("%s", pretrained)
    return pretrained
