"""Step of the stage fine_tune."""

import logging
from dataclasses import replace
from functools import partial
from typing import Annotated

from zenml import get_step_context, step

from materializers.classifier import ChallengerMaterializer
from regraft.core.config import EmbedConfig, TrackingConfig, TuneConfig
from regraft.data.split import Splits
from regraft.model.classifier import ImageClassifier
from regraft.model.freeze import FreezePlan
from regraft.orchestration.caching import FOLLOW_TRAINING
from regraft.registry import tracking
from regraft.training.tune import Challenger
from regraft.training.tune import fine_tune as core_fine_tune

logger = logging.getLogger("regraft.fine_tune")


@step(cache_policy=FOLLOW_TRAINING, output_materializers=ChallengerMaterializer)
def fine_tune(
    pretrained: ImageClassifier,
    plan: FreezePlan,
    splits: Splits,
    config: TuneConfig,
    store: EmbedConfig,
    where: TrackingConfig,
) -> Annotated[Challenger, "challenger"]:
    """Return the trained model; its curves are live in MLflow."""
    with tracking.running(where, get_step_context().pipeline_run.name) as run:
        log = partial(tracking.log_epoch, run)
        challenger = core_fine_tune(pretrained, plan, splits, config, log, store)
        tracking.log_training(run, challenger)
    logger.info("%s", challenger)
    return replace(challenger, run_id=run.run_id)
