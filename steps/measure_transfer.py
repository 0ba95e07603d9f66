"""Doorway of the stage measure_transfer."""

import logging
from typing import Annotated

from zenml import step

from regraft.core.config import EmbedConfig, TuneConfig
from regraft.data.split import Splits
from regraft.model.classifier import ImageClassifier
from regraft.training.transfer import TransferGain
from regraft.training.transfer import measure_transfer as core_measure_transfer
from steps.caching import FOLLOW_TRAINING

logger = logging.getLogger("regraft.measure_transfer")


@step(cache_policy=FOLLOW_TRAINING)
def measure_transfer(
    pretrained: ImageClassifier, splits: Splits, config: TuneConfig, store: EmbedConfig
) -> Annotated[TransferGain, "transfer"]:
    """What the pretrained weights are worth on these photos."""
    transfer = core_measure_transfer(pretrained, splits, config, store)
    logger.info("%s", transfer)
    return transfer
