"""What a retraining starts from: the champion's network, or the source task's."""

import logging
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from regraft.core.config import BackboneConfig, Config
from regraft.core.errors import ConfigError, WeightsError
from regraft.data.split import Splits
from regraft.evaluation.compare import choose_backbone
from regraft.evaluation.evaluate import class_codes
from regraft.model.backbone import pinned
from regraft.model.classifier import ImageClassifier, load_pretrained
from regraft.model.embed import choose_compute, embed, head_scores, judging_compute, passage
from regraft.model.pixels import photos_of
from regraft.stats import mcnemar
from regraft.training.tune import solve_head
from regraft.training.tune.head import CHUNK, Embedded

LEVEL = 0.05  # at which the pretrained network counts as shown to be better; the usual convention
_ONLY_BY_SERVER = "mlflow-artifacts:"  # no file system that a step could read from
_BY_CHAMPION = ("auto", "champion")  # sources that name no backbone themselves

logger = logging.getLogger("regraft.choose_start")


@dataclass(frozen=True)
class Start:
    """The backbone that a training starts from. reason: one sentence."""

    backbone: BackboneConfig
    reason: str

    def __str__(self) -> str:
        return f"choose_start: {self.reason}"


def choose_start(
    champion: ImageClassifier | None, champion_url: str, splits: Splits, config: Config
) -> Start:
    """The champion's network (warm) or the pretrained one (cold), as config.retrain.start wants.

    For "auto" it is the champion's, unless the pretrained one is shown to be better. To find out, a
    head is solved on the training photos under each backbone, and both answer the validation
    photos. It is a stand-in: what each becomes by tuning is not tried. The champion's backbone may
    have learned the older training photos by heart, so heads on it are too sure of themselves on
    these; only the validation photos judge. They have chosen the champion's epoch, which is one
    more reason to think it a little worse than it looks here. Where the champion's backbone is the
    pretrained one there is nothing to choose, and nothing is measured.

    The pretrained network is the one that config.backbone names. Where that says "auto" or
    "champion" it is the one that the champion's card names: which backbone is worth its
    milliseconds was asked when the first model was trained, and `regraft compare` asks it again.
    Without a champion, "auto" is chosen among its candidates as in a first training.

    Args:
        champion: who serves, None if nobody does.
        champion_url: its bundle; a warm start is BackboneConfig(source=f"bundle:{champion_url}").
        config: its retrain, backbone, freeze, split, tune, embed and classes are used.

    Raises:
        ConfigError: backbone.source is "champion", and nobody serves; or a warm start is wanted
            from a bundle that only the MLflow server hands out.
        WeightsError: the pretrained weights cannot be had, and only they were wanted.
        UnusablePhoto: a photo cannot be read any more.
    """
    if champion is None:
        return _first(splits, config)
    cold = pretrained_of(champion, config.backbone)
    wish = "champion" if config.backbone.source == "champion" else config.retrain.start
    if champion_url.startswith(_ONLY_BY_SERVER):
        if wish == "champion":
            raise ConfigError(
                f"Expected the champion's bundle at a place that can be read, got {champion_url}, "
                "which only the MLflow server hands out. Set retrain.start to pretrained, or "
                "tracking.artifacts_url to a place that this machine reaches."
            )
        return Start(cold, f"from {cold.source}: only the MLflow server has the champion's bundle")
    warm = BackboneConfig(source=f"bundle:{champion_url}")
    if wish == "pretrained":
        return Start(cold, f"from {cold.source}: retrain.start is pretrained")
    if wish == "champion":
        named = "backbone.source" if config.backbone.source == "champion" else "retrain.start"
        return Start(warm, f"from the champion: {named} is champion{_still(config)}")
    try:
        pretrained = load_pretrained(cold, splits.classes, config.classes.renamed)
    except WeightsError as error:
        logger.warning("choose_start: %s cannot be had: %s", cold.source, error)
        return Start(warm, f"from the champion: {cold.source} cannot be had")
    if _backbone_of(pretrained) == _backbone_of(champion):
        return Start(cold, f"from {cold.source}, which the champion left as it was: no choice")
    if splits.validation.empty:
        return Start(warm, "from the champion: there is no validation photo to compare on")
    found = _compared(champion, pretrained, splits, config)
    if found.is_cold_better:
        return Start(cold, f"from {cold.source}, {found}{_given_up(config)}")
    return Start(warm, f"from the champion, {found}{_still(config)}")


def of_today(config: Config) -> Config:
    """The configuration with its weights file as it is now; see pinned().

    One that cannot be read stays as it is: a warm start does without it.
    """
    try:
        backbone = pinned(config.backbone)
    except WeightsError:
        return config
    return config.model_copy(update={"backbone": backbone})


def pretrained_of(champion: ImageClassifier, config: BackboneConfig) -> BackboneConfig:
    """The pretrained network of a retraining: as configured, else as the champion's card says."""
    if config.source not in _BY_CHAMPION:
        return config
    info = champion.card.backbone
    if not info.source.startswith("file:"):
        return BackboneConfig(source=info.source)
    return BackboneConfig(source=info.source, architecture=info.architecture, sha256=info.sha256)


def _first(splits: Splits, config: Config) -> Start:
    if config.backbone.source == "champion":
        raise ConfigError(
            "Expected a champion to start from, for backbone.source is champion, but no model "
            f"called {config.tracking.name!r} serves. Name a backbone, such as "
            "bundled:efficientnet_lite0, or promote a model."
        )
    backbone = choose_backbone(config.backbone, splits, config.split, config.tune, config.embed)
    return Start(backbone, f"from {backbone.source}: no model serves yet")


@dataclass(frozen=True)
class _Compared:
    """How heads on the two backbones answer the same n validation photos."""

    n: int
    n_warm: int
    n_cold: int
    only_warm: int
    only_cold: int

    @property
    def p_value(self) -> float:
        return mcnemar(self.only_warm, self.only_cold)

    @property
    def is_cold_better(self) -> bool:
        return self.only_cold > self.only_warm and self.p_value < LEVEL

    def __str__(self) -> str:
        shown = "is shown" if self.is_cold_better else "is not shown"
        return (
            f"the pretrained network {shown} to be better: {self.n_cold} of {self.n} validation "
            f"photos right with a head on it, {self.n_warm} on the champion's (p = "
            f"{self.p_value:.2g})"
        )


def _compared(
    champion: ImageClassifier, pretrained: ImageClassifier, splits: Splits, config: Config
) -> _Compared:
    warm, cold = (_hits(one, splits, config) for one in (champion, pretrained))
    only_warm, only_cold = int((warm & ~cold).sum()), int((cold & ~warm).sum())
    return _Compared(len(warm), int(warm.sum()), int(cold.sum()), only_warm, only_cold)


def _hits(classifier: ImageClassifier, splits: Splits, config: Config) -> NDArray[np.bool_]:
    """(N,) whether a head on its backbone has each validation photo right.

    Embedded as fine_tune() does it, which finds them in the store.
    """
    train, validation = splits.train, splits.validation
    y_train, y = (class_codes(side.label, splits.classes) for side in (train, validation))
    x_train = embed(classifier, photos_of(train), choose_compute(config.tune), config.embed)
    x = embed(classifier, photos_of(validation), judging_compute(), config.embed)
    if not all(
        bool(chunk.isfinite().all()) for rows in (x_train, x) for chunk in rows.chunks(CHUNK)
    ):
        return np.zeros(len(y), dtype=bool)
    head = solve_head(Embedded(x_train, y_train), Embedded(x, y), len(splits.classes), config.tune)
    weights = {"head.weight": head.weight, "head.bias": head.bias}
    solved = ImageClassifier(
        classifier.card, {name: torch.from_numpy(w).float() for name, w in weights.items()}
    )
    return np.asarray(head_scores(solved, x).argmax(dim=1).numpy() == y)


def _backbone_of(classifier: ImageClassifier) -> tuple[str, str]:
    """What decides the embeddings: preprocessing and weights."""
    recipe = passage(classifier, judging_compute()).recipe
    return recipe.preprocessing.model_dump_json(), f"{recipe.architecture} {recipe.weights}"


def _still(config: Config) -> str:
    told = "; only a head is solved (freeze.policy is probe), so its backbone stays as it is"
    return told if config.freeze.policy == "probe" else ""


def _given_up(config: Config) -> str:
    told = "; only a head is solved (freeze.policy is probe), so the champion's tuning is given up"
    return told if config.freeze.policy == "probe" else ""
