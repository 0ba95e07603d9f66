"""Doorway of the stage measure_transfer."""

import logging
from typing import Annotated

from zenml import step

from regraft.classifier import ImageClassifier
from regraft.config import EmbedConfig, TuneConfig
from regraft.split import Splits
from regraft.transfer import TransferGain
from regraft.transfer import measure_transfer as core_measure_transfer
from steps.caching import FOLLOW_CORE

logger = logging.getLogger("regraft.measure_transfer")


@step(cache_policy=FOLLOW_CORE)
def measure_transfer(
    pretrained: ImageClassifier, splits: Splits, config: TuneConfig, store: EmbedConfig
) -> Annotated[TransferGain, "transfer"]:
    """What the pretrained weights are worth on these photos."""
    transfer = core_measure_transfer(pretrained, splits, config, store)
    logger.info("%s", transfer)
    return transfer
