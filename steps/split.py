"""Doorway of the stage split."""

import logging
from typing import Annotated

from zenml import step

from materializers.tables import SplitsMaterializer
from regraft.config import SplitConfig
from regraft.ingest import ImageTable
from regraft.split import Splits
from regraft.split import split as core_split
from steps.caching import FOLLOW_CORE

logger = logging.getLogger("regraft.split")


@step(cache_policy=FOLLOW_CORE, output_materializers=SplitsMaterializer)
def split(table: ImageTable, config: SplitConfig) -> Annotated[Splits, "splits"]:
    """Which photo is trained on, which chooses, which judges."""
    splits = core_split(table, config)
    logger.info("%s", splits)
    return splits
