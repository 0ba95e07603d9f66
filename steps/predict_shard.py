"""Step of the stage predict_shard: many run, each independent of the others."""

import logging
from typing import Annotated

from zenml import step
from zenml.enums import StepRuntime

from regraft.core.config import EmbedConfig, TrackingConfig
from regraft.operations.batch import Predictor, Shard, ShardResult, run_shard

logger = logging.getLogger("regraft.predict_shard")


# It writes into the world: whether that is done says the world, not ZenML's cache, which would take
# answers that somebody has deleted for there. Only shards without answers get here.
@step(enable_cache=False, runtime=StepRuntime.ISOLATED)  # a pod, where there are any
def predict_shard(
    shard: Shard, predictor: Predictor, store: EmbedConfig, where: TrackingConfig
) -> Annotated[ShardResult, "shard_result"]:
    """Write the predictions for the photos of a shard to a file; return its place."""
    result = run_shard(shard, predictor, store, where)
    logger.info("%s", result)
    return result
