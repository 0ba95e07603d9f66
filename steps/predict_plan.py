"""Step of the stage predict_plan."""

import logging
from datetime import UTC, datetime
from typing import Annotated

from zenml import step

from regraft.core.config import BatchConfig, TrackingConfig
from regraft.operations.batch import BatchPlan, BatchRequest, clear_unfinished, plan_batch

logger = logging.getLogger("regraft.predict_plan")


@step(enable_cache=False)  # it looks at the photos and at who serves
def predict_plan(
    request: BatchRequest, config: BatchConfig, where: TrackingConfig
) -> Annotated[BatchPlan, "batch_plan"]:
    """Return the shards of photos that have no predictions yet."""
    clear_unfinished(request.out, datetime.now(UTC))
    plan = plan_batch(request, config, where)
    logger.info("%s", plan)
    return plan
