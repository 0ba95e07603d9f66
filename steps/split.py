"""Step of the stage split."""

import logging
from typing import Annotated

from zenml import step

from materializers.tables import SplitsMaterializer
from regraft.core.config import SplitConfig
from regraft.data.ingest import ImageTable
from regraft.data.split import Splits
from regraft.data.split import split as core_split
from regraft.orchestration.caching import FOLLOW_DATA

logger = logging.getLogger("regraft.split")


@step(cache_policy=FOLLOW_DATA, output_materializers=SplitsMaterializer)
def split(table: ImageTable, config: SplitConfig) -> Annotated[Splits, "splits"]:
    """Return the photos of train, validation and test."""
    splits = core_split(table, config)
    logger.info("%s", splits)
    return splits
