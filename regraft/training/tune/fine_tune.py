"""From a pretrained classifier and a plan to a challenger: LP-FT (Kumar et al. 2022)."""

from dataclasses import asdict
from importlib.metadata import version

import pandas as pd
import torch
from torch import Tensor

from regraft.core.config import EmbedConfig, TuneConfig
from regraft.core.errors import EmptySplit, TrainingDiverged
from regraft.data.split import Splits
from regraft.model.classifier import GraftedNetwork, ImageClassifier
from regraft.model.embed import NO_STORE, Rows, choose_compute, embed, judging_compute
from regraft.model.freeze import FreezePlan, audit, frozen_hashes
from regraft.model.pixels import photos_of
from regraft.training.tune.challenger import Challenger, EpochLog
from regraft.training.tune.checkpoint import Checkpoint, checkpoint_of
from regraft.training.tune.feed import Photos, Settings
from regraft.training.tune.head import CHUNK, Embedded, SolvedHead, head_of, solve_head, state_of
from regraft.training.tune.loop import train_thawed

MANIFEST = ("sha256", "phash", "thumbnail", "label", "side")
RECORDED_VERSIONS = ("regraft", "torch", "torchvision", "timm", "pillow", "safetensors")


def fine_tune(
    pretrained: ImageClassifier,
    plan: FreezePlan,
    splits: Splits,
    config: TuneConfig,
    log: EpochLog,
    store: EmbedConfig = NO_STORE,
) -> Challenger:
    """The challenger: its head solved on the frozen backbone, then the thawed part trained.

    Each phase has its own best; the phase with the better validation accuracy is kept, the first on
    a tie. The same seed on the same machine, arranged alike, gives the same weights, interrupted or
    not; how it was arranged is in `trained_as`.

    Args:
        log: told every epoch, for live curves.
        store: where what the frozen part makes of the photos is kept.

    Raises:
        EmptySplit: nothing to validate on.
        TrainingDiverged: the loss is not a number.
        FreezeDrift: a frozen tensor moved.
    """
    photos = _photos(pretrained, splits)
    checkpoint = checkpoint_of(pretrained, plan, splits, config)
    settings = Settings(plan, config, choose_compute(config), checkpoint.of("tune"), log, store)
    hashes = frozen_hashes(pretrained.build(), plan)
    head = _solved(pretrained, photos, settings, checkpoint.of("head"))
    network = _with_head(pretrained, head)
    kept, records = head.best, list(head.candidates)
    stopped, trained_as = "the head is solved", ""
    if plan.thaws_backbone and config.epochs:
        progress, stopped = train_thawed(network, photos, settings)
        audit(hashes, frozen_hashes(network, plan), plan)  # as the last step left it
        records, trained_as = records + progress.records, str(progress.arrangement)
        if progress.best and progress.best.validation_accuracy > kept.validation_accuracy:
            kept = progress.best
            network.load_state_dict(progress.best_weights)
        else:
            network = _with_head(pretrained, head)
    checked = audit(hashes, frozen_hashes(network, plan), plan)
    checkpoint.of("head").remove()
    checkpoint.of("tune").remove()
    return Challenger(
        classifier=_described(pretrained, plan, splits, config).with_weights(network),
        plan=plan,
        audit=checked,
        history=pd.DataFrame([asdict(record) for record in records]),
        kept_phase=kept.phase,
        manifest=splits.frame.loc[splits.frame.side != "test", list(MANIFEST)],
        stopped=stopped,
        trained_as=trained_as,
    )


def _photos(pretrained: ImageClassifier, splits: Splits) -> Photos:
    classes = pretrained.card.classes
    train, validation = splits.train, splits.validation
    if not len(validation):
        raise EmptySplit("Expected photos to validate on, got none. Set split.validation_fraction.")
    return Photos(
        photos_of(train),
        _positions(train.label, classes),
        photos_of(validation),
        _positions(validation.label, classes),
        pretrained.card.backbone.preprocessing,
        pretrained.card.backbone.architecture,
        len(classes),
    )


def _positions(labels: "pd.Series[str]", classes: tuple[str, ...]) -> Tensor:
    return torch.tensor([classes.index(label) for label in labels], dtype=torch.int64)  # (N,)


def _solved(
    pretrained: ImageClassifier, photos: Photos, settings: Settings, checkpoint: Checkpoint
) -> SolvedHead:
    """The solved head, from the checkpoint if this training was interrupted after it."""
    if state := checkpoint.load():
        head = head_of(state)
    else:
        head = _solve(pretrained, photos, settings)
        checkpoint.save(state_of(head))
    for candidate in head.candidates:
        settings.log(candidate)
    return head


def _solve(pretrained: ImageClassifier, photos: Photos, settings: Settings) -> SolvedHead:
    train = embed(pretrained, photos.train, settings.compute, settings.store)
    # What chooses is computed as what judges, so evaluate() finds it in the store.
    validation = embed(pretrained, photos.validation, judging_compute(), settings.store)
    if not (_is_finite(train) and _is_finite(validation)):
        raise TrainingDiverged(
            "Expected finite embeddings, got some that are not, before any training. The weights "
            f"of {pretrained.card.backbone.source} are damaged, or set tune.precision=fp32."
        )
    return solve_head(
        Embedded(train, photos.train_targets.numpy()),
        Embedded(validation, photos.validation_targets.numpy()),
        photos.n_classes,
        settings.config,
    )


def _is_finite(rows: Rows) -> bool:
    return all(bool(torch.isfinite(chunk).all()) for chunk in rows.chunks(CHUNK))


def _with_head(pretrained: ImageClassifier, head: SolvedHead) -> GraftedNetwork:
    network = pretrained.build()
    with torch.no_grad():
        network.head.weight.copy_(torch.from_numpy(head.weight))
        network.head.bias.copy_(torch.from_numpy(head.bias))
    return network


def _described(
    pretrained: ImageClassifier, plan: FreezePlan, splits: Splits, config: TuneConfig
) -> ImageClassifier:
    settings = config.model_dump(exclude={"checkpoint_url"}, mode="json")
    flat = {f"tune.{name}": str(value) for name, value in settings.items()}
    return pretrained.with_card(
        dataset_digest=splits.digest,
        config=flat | {"freeze.policy": plan.policy},
        versions={name: version(name) for name in RECORDED_VERSIONS},
    )
