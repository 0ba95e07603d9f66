"""Step of the stage carry_out: a person's answer to a pending verdict."""

import logging
from datetime import UTC, datetime
from typing import Annotated

from zenml import step

from regraft.core.config import TrackingConfig
from regraft.promotion.answer import ApprovalDecision, apply_decision
from regraft.registry import Entry

logger = logging.getLogger("regraft.carry_out")


@step(enable_cache=False)
def carry_out(
    decision: ApprovalDecision, version: int, config: TrackingConfig
) -> Annotated[Entry, "entry"]:
    """Return the ledger's entry of the decision; an approval moves the alias champion."""
    entry = apply_decision(decision, version, config, datetime.now(UTC))
    logger.info("carry_out: %s", entry)
    return entry
