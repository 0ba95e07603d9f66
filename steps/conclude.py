"""Doorway of the stage conclude: the attempt is written down, and told."""

import logging
from datetime import UTC, datetime
from typing import Annotated

from zenml import get_step_context, step

from regraft.core.config import Config
from regraft.data.split import Splits
from regraft.operations.advice import RetrainAdvice
from regraft.operations.journal import Attempt
from regraft.operations.retrain.conclude import Beginning, Course, Trained, conclude_course

logger = logging.getLogger("regraft.conclude")


@step(enable_cache=False)
def conclude(
    beginning: Beginning,
    advice: RetrainAdvice,
    splits: Splits,
    config: Config,
    trained: Trained | None = None,
) -> Annotated[Attempt, "attempt"]:
    """What came of it, in the journal and told to whom it may concern."""
    run = get_step_context().pipeline_run.name
    n_photos, n_waiting = len(splits.frame), splits.n_waiting
    course = Course(beginning, advice, n_photos, n_waiting, run, trained)
    attempt = conclude_course(course, config, datetime.now(UTC))
    logger.info("%s", attempt)
    return attempt
