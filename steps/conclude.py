"""Step of the stage conclude: the attempt is recorded, and sent to the targets in its settings."""

import logging
from datetime import UTC, datetime
from typing import Annotated

from zenml import get_step_context, step

from regraft.core.config import Config
from regraft.data.split import Splits
from regraft.operations.advice import RetrainAdvice
from regraft.operations.journal import Attempt
from regraft.operations.retrain.conclude import RunOutcome, RunSnapshot, Trained, conclude_run

logger = logging.getLogger("regraft.conclude")


@step(enable_cache=False)
def conclude(
    snapshot: RunSnapshot,
    advice: RetrainAdvice,
    splits: Splits,
    config: Config,
    trained: Trained | None = None,
) -> Annotated[Attempt, "attempt"]:
    """Return the attempt, recorded in the journal and sent to the targets in config, if any."""
    run = get_step_context().pipeline_run.name
    n_photos, n_waiting = len(splits.frame), splits.n_waiting
    result = RunOutcome(snapshot, advice, n_photos, n_waiting, run, trained)
    attempt = conclude_run(result, config, datetime.now(UTC))
    logger.info("%s", attempt)
    return attempt
