"""The choice of a retraining's start: the champion's network or the pretrained one."""

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
from regraft.model.embed import choose_compute, embed, head_scores, judging_compute, spec_for
from regraft.model.pixels import photos_of
from regraft.stats import mcnemar
from regraft.training.tune import solve_head
from regraft.training.tune.head import CHUNK, LabelledEmbeddings

LEVEL = 0.05  # significance at which the pretrained network counts as better; convention
_ONLY_BY_SERVER = "mlflow-artifacts:"  # a step cannot read it as a file system
_BY_CHAMPION = ("auto", "champion")  # values of backbone.source that name no backbone

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
    """Return the champion's network (warm) or the pretrained one (cold) as the start.

    config.retrain.start decides. "auto" means the champion's network, unless the pretrained one is
    shown to be better: a head is solved on the training photos under each backbone, and the two
    are compared on the validation photos. This is an approximation, because neither backbone is
    fine-tuned for the comparison. Two biases act on it. The champion's backbone may have memorised
    the older training photos, so heads on it are overconfident there; therefore only the
    validation photos count. The champion's epoch was selected on the validation photos, so its
    result on them is too high. If the champion's backbone equals the pretrained one, nothing is
    measured.

    The pretrained network is config.backbone. If that is "auto" or "champion", it is the backbone
    on the champion's card, because the backbones were compared for the first model
    (`regraft compare` compares them again). Without a champion, "auto" compares its candidates, as
    in a first training.

    Args:
        champion: the model that serves, None if there is none.
        champion_url: its bundle; a warm start is BackboneConfig(source=f"bundle:{champion_url}").
        config: its retrain, backbone, freeze, split, tune, embed and classes are used.

    Raises:
        ConfigError: backbone.source is "champion" without a champion; or a warm start is wanted
            from a bundle that only the MLflow server can read.
        WeightsError: the pretrained weights are not available, and no other start is allowed.
        UnusablePhoto: a photo can no longer be read.
    """
    if champion is None:
        return _first(splits, config)
    cold = select_pretrained(champion, config.backbone)
    wish = "champion" if config.backbone.source == "champion" else config.retrain.start
    if champion_url.startswith(_ONLY_BY_SERVER):
        if wish == "champion":
            raise ConfigError(
                f"Expected the champion's bundle in a readable location, got {champion_url}, "
                "which only the MLflow server can read. Set retrain.start to pretrained, or "
                "tracking.artifacts_url to a location that this machine can read."
            )
        return Start(cold, f"from {cold.source}: only the MLflow server can read the champion")
    warm = BackboneConfig(source=f"bundle:{champion_url}")
    if wish == "pretrained":
        return Start(cold, f"from {cold.source}: retrain.start is pretrained")
    if wish == "champion":
        setting = "backbone.source" if config.backbone.source == "champion" else "retrain.start"
        return Start(warm, f"from the champion: {setting} is champion{_note_warm(config)}")
    try:
        pretrained = load_pretrained(cold, splits.classes, config.classes.renamed)
    except WeightsError as error:
        logger.warning("choose_start: %s is not available: %s", cold.source, error)
        return Start(warm, f"from the champion: {cold.source} is not available")
    if _backbone_of(pretrained) == _backbone_of(champion):
        return Start(cold, f"from {cold.source}, which equals the champion's backbone")
    if splits.validation.empty:
        return Start(warm, "from the champion: no validation photo for a comparison")
    comparison = _compare(champion, pretrained, splits, config)
    if comparison.is_cold_better:
        return Start(cold, f"from {cold.source}, {comparison}{_note_cold(config)}")
    return Start(warm, f"from the champion, {comparison}{_note_warm(config)}")


def pin_weights(config: Config) -> Config:
    """Return the configuration with the hash of its weights file as of now; see pinned().

    Returns it unchanged if the file cannot be read, because a warm start does not need the file.
    """
    try:
        backbone = pinned(config.backbone)
    except WeightsError:
        return config
    return config.model_copy(update={"backbone": backbone})


def select_pretrained(champion: ImageClassifier, config: BackboneConfig) -> BackboneConfig:
    """Return the pretrained backbone: the configured one, else the one on the champion's card."""
    if config.source not in _BY_CHAMPION:
        return config
    info = champion.card.backbone
    if not info.source.startswith("file:"):
        return BackboneConfig(source=info.source)
    return BackboneConfig(source=info.source, architecture=info.architecture, sha256=info.sha256)


def _first(splits: Splits, config: Config) -> Start:
    if config.backbone.source == "champion":
        raise ConfigError(
            "Expected a champion to start from, because backbone.source is champion, but no "
            f"version of {config.tracking.name!r} serves. Set backbone.source to a backbone, such "
            "as bundled:efficientnet_lite0, or promote a version."
        )
    backbone = choose_backbone(config.backbone, splits, config.split, config.tune, config.embed)
    return Start(backbone, f"from {backbone.source}: no version serves yet")


@dataclass(frozen=True)
class _Comparison:
    """The results of heads on the two backbones, on the same n validation photos.

    n_warm, n_cold: correct photos. only_warm, only_cold: correct with one of the two only.
    """

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
            f"photos correct with a head on it, {self.n_warm} on the champion's (p = "
            f"{self.p_value:.2g})"
        )


def _compare(
    champion: ImageClassifier, pretrained: ImageClassifier, splits: Splits, config: Config
) -> _Comparison:
    warm, cold = (_hits(classifier, splits, config) for classifier in (champion, pretrained))
    only_warm, only_cold = int((warm & ~cold).sum()), int((cold & ~warm).sum())
    return _Comparison(len(warm), int(warm.sum()), int(cold.sum()), only_warm, only_cold)


def _hits(classifier: ImageClassifier, splits: Splits, config: Config) -> NDArray[np.bool_]:
    """Return whether a head on the backbone has each validation photo right, (N,).

    Uses the compute settings of fine_tune(), which then finds the embeddings in the store.
    """
    train, validation = splits.train, splits.validation
    y_train, y = (class_codes(part.label, splits.classes) for part in (train, validation))
    x_train = embed(classifier, photos_of(train), choose_compute(config.tune), config.embed)
    x = embed(classifier, photos_of(validation), judging_compute(), config.embed)
    if not all(
        bool(chunk.isfinite().all()) for rows in (x_train, x) for chunk in rows.chunks(CHUNK)
    ):
        return np.zeros(len(y), dtype=bool)
    head = solve_head(
        LabelledEmbeddings(x_train, y_train),
        LabelledEmbeddings(x, y),
        len(splits.classes),
        config.tune,
    )
    weights = {"head.weight": head.weight, "head.bias": head.bias}
    solved = ImageClassifier(
        classifier.card, {name: torch.from_numpy(w).float() for name, w in weights.items()}
    )
    return np.asarray(head_scores(solved, x).argmax(dim=1).numpy() == y)


def _backbone_of(classifier: ImageClassifier) -> tuple[str, str]:
    """Return what determines the embeddings: preprocessing and weights."""
    cache_key = spec_for(classifier, judging_compute()).cache_key
    return (
        cache_key.preprocessing.model_dump_json(),
        f"{cache_key.architecture} {cache_key.weights}",
    )


def _note_warm(config: Config) -> str:
    if config.freeze.policy != "probe":
        return ""
    return "; freeze.policy is probe, so only a head is solved and its backbone stays as it is"


def _note_cold(config: Config) -> str:
    if config.freeze.policy != "probe":
        return ""
    return "; freeze.policy is probe, so only a head is solved and the champion's tuning is lost"
