"""Step of the stage predict_summary."""

import logging
from typing import Annotated

from zenml import step

from regraft.operations.batch import BatchPlan, BatchSummary, summarise

logger = logging.getLogger("regraft.predict_summary")


@step(enable_cache=False)  # it reads what the shards have written
def predict_summary(plan: BatchPlan) -> Annotated[BatchSummary, "batch_summary"]:
    """Return the number of photos of each label."""
    summary = summarise(plan)
    logger.info("%s", summary)
    return summary
