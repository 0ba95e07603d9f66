"""Step of the stage choose_backbone."""

import logging
from typing import Annotated

from zenml import step

from regraft.core.config import BackboneConfig, EmbedConfig, SplitConfig, TuneConfig
from regraft.data.split import Splits
from regraft.evaluation.compare import choose_backbone as core_choose_backbone
from regraft.orchestration.caching import FOLLOW_EVALUATION

logger = logging.getLogger("regraft.choose_backbone")


@step(cache_policy=FOLLOW_EVALUATION)
def choose_backbone(
    config: BackboneConfig,
    splits: Splits,
    split: SplitConfig,
    tune: TuneConfig,
    store: EmbedConfig,
) -> Annotated[BackboneConfig, "backbone"]:
    """Return the backbone: that of the configuration, or the best of its candidates.

    Only the source "auto" costs anything.
    """
    backbone = core_choose_backbone(config, splits, split, tune, store)
    logger.info("choose_backbone: %s", backbone.source)
    return backbone
