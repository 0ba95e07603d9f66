"""Doorway of the stage predict_shard: one of many, each by itself wherever there is room."""

import logging
from typing import Annotated

from zenml import step
from zenml.enums import StepRuntime

from regraft.core.config import EmbedConfig, TrackingConfig
from regraft.operations.batch import Answerer, Shard, ShardAnswers, answer

logger = logging.getLogger("regraft.predict_shard")


# It writes into the world: whether that is done says the world, not ZenML's cache, which would take
# answers that somebody has deleted for there. Only shards without answers get here.
@step(enable_cache=False, runtime=StepRuntime.ISOLATED)  # a pod, where there are any
def predict_shard(
    shard: Shard, answerer: Answerer, store: EmbedConfig, where: TrackingConfig
) -> Annotated[ShardAnswers, "shard_answers"]:
    """The answers about the photos of a shard, in a file of their own."""
    answers = answer(shard, answerer, store, where)
    logger.info("%s", answers)
    return answers
