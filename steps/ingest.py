"""Step of the stage ingest."""

import logging
from typing import Annotated

from zenml import step

from materializers.tables import ImageTableMaterializer
from regraft.core.config import IngestConfig
from regraft.data.ingest import ImageTable
from regraft.data.ingest import ingest as core_ingest
from regraft.orchestration.caching import FOLLOW_DATA

logger = logging.getLogger("regraft.ingest")


@step(cache_policy=FOLLOW_DATA, output_materializers=ImageTableMaterializer)
def ingest(config: IngestConfig, fingerprint: str) -> Annotated[ImageTable, "table"]:
    """Return the table of usable photos and the quarantine.

    Args:
        config: what is read.
        fingerprint: of the listing, taken before the run; a changed photo makes the step run again.
    """
    table = core_ingest(config)
    logger.info("%s", table)
    return table
