"""Step of the stage measure_transfer."""

import logging
from typing import Annotated

from zenml import step

from regraft.core.config import EmbedConfig, TuneConfig
from regraft.data.split import Splits
from regraft.model.classifier import ImageClassifier
from regraft.orchestration.caching import FOLLOW_TRAINING
from regraft.stats import TransferGain
from regraft.training.transfer import measure_transfer as core_measure_transfer

logger = logging.getLogger("regraft.measure_transfer")


@step(cache_policy=FOLLOW_TRAINING)
def measure_transfer(
    pretrained: ImageClassifier, splits: Splits, config: TuneConfig, store: EmbedConfig
) -> Annotated[TransferGain, "transfer"]:
    """Return the gain of the pretrained weights over random ones on these photos."""
    transfer = core_measure_transfer(pretrained, splits, config, store)
    logger.info("%s", transfer)
    return transfer
