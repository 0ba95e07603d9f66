"""Fine-tuning a pretrained classifier by a freeze plan: LP-FT (Kumar et al. 2022)."""

from collections.abc import Iterator
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
from regraft.training.tune.batch_source import TrainContext, TrainData
from regraft.training.tune.challenger import Challenger, EpochLog
from regraft.training.tune.checkpoint import Checkpoint, checkpoint_for
from regraft.training.tune.head import (
    CHUNK,
    LabelledEmbeddings,
    SolvedHead,
    head_from_state,
    head_to_state,
    solve_head,
)
from regraft.training.tune.loop import train_thawed

MANIFEST = ("sha256", "phash", "thumbnail", "label", "split")
RECORDED_VERSIONS = ("regraft", "torch", "torchvision", "timm", "pillow", "safetensors")


def fine_tune(
    pretrained: ImageClassifier,
    plan: FreezePlan,
    splits: Splits,
    config: TuneConfig,
    log: EpochLog,
    store: EmbedConfig = NO_STORE,
) -> Challenger:
    """Solve the head on the frozen backbone, train the thawed part, and return the challenger.

    The phase with the better validation accuracy is selected, the first phase on a tie. The same
    seed on the same machine with the same training setup gives the same weights, interrupted or
    not; the setup is recorded in `trained_as`.

    Args:
        log: called at the end of every epoch, for live curves.
        store: of the embeddings and of the frozen part's outputs.

    Raises:
        EmptySplit: there are no validation photos.
        TrainingDiverged: the loss is not finite.
        FreezeDrift: a frozen tensor changed.
    """
    data = _train_data(pretrained, splits)
    checkpoint = checkpoint_for(pretrained, plan, splits, config)
    context = TrainContext(plan, config, choose_compute(config), checkpoint.of("tune"), log, store)
    hashes = frozen_hashes(pretrained.build(), plan)
    head = _solved(pretrained, data, context, checkpoint.of("head"))
    network = _with_head(pretrained, head)
    best, records = head.best, list(head.candidates)
    stopped, trained_as = "the head is solved", ""
    if plan.thaws_backbone and config.epochs:
        progress, stopped = train_thawed(network, data, context)
        audit(hashes, frozen_hashes(network, plan), plan)  # after the last step
        records, trained_as = records + progress.records, str(progress.setup)
        if progress.best and progress.best.validation_accuracy > best.validation_accuracy:
            best = progress.best
            network.load_state_dict(progress.best_weights)
        else:
            network = _with_head(pretrained, head)
    checked = audit(hashes, frozen_hashes(network, plan), plan)
    checkpoint.of("head").remove()
    checkpoint.of("tune").remove()
    return Challenger(
        classifier=_described(pretrained, plan, splits, config)
        .with_card(notes=(*splits.notes, *_notes(context, best.phase)))
        .with_weights(network),
        plan=plan,
        audit=checked,
        history=pd.DataFrame([asdict(record) for record in records]),
        selected_phase=best.phase,
        manifest=splits.frame.loc[splits.frame.split != "test", list(MANIFEST)],
        stopped=stopped,
        trained_as=trained_as,
    )


def _train_data(pretrained: ImageClassifier, splits: Splits) -> TrainData:
    classes = pretrained.card.classes
    train, validation = splits.train, splits.validation
    if not len(validation):
        raise EmptySplit("Expected validation photos, got none. Set split.validation_fraction.")
    return TrainData(
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
    pretrained: ImageClassifier, data: TrainData, context: TrainContext, checkpoint: Checkpoint
) -> SolvedHead:
    """Return the solved head; a training interrupted after this phase has it in the checkpoint."""
    if state := checkpoint.load():
        head = head_from_state(state)
    else:
        head = _solve(pretrained, data, context)
        checkpoint.save(head_to_state(head))
    for candidate in head.candidates:
        context.log(candidate)
    return head


def _solve(pretrained: ImageClassifier, data: TrainData, context: TrainContext) -> SolvedHead:
    train = embed(pretrained, data.train, context.compute, context.store)
    # Computed as in evaluate(), which then reads these embeddings from the store.
    validation = embed(pretrained, data.validation, judging_compute(), context.store)
    if not (_is_finite(train) and _is_finite(validation)):
        raise TrainingDiverged(
            "Expected finite embeddings, got values that are not finite before any training. "
            f"Check the weights of {pretrained.card.backbone.source}, or set tune.precision=fp32."
        )
    return solve_head(
        LabelledEmbeddings(train, data.train_targets.numpy()),
        LabelledEmbeddings(validation, data.validation_targets.numpy()),
        data.n_classes,
        context.config,
    )


def _is_finite(rows: Rows) -> bool:
    return all(bool(torch.isfinite(chunk).all()) for chunk in rows.chunks(CHUNK))


def _with_head(pretrained: ImageClassifier, head: SolvedHead) -> GraftedNetwork:
    network = pretrained.build()
    with torch.no_grad():
        network.head.weight.copy_(torch.from_numpy(head.weight))
        network.head.bias.copy_(torch.from_numpy(head.bias))
    return network


def _notes(context: TrainContext, selected_phase: str) -> Iterator[str]:
    compute = context.compute
    if context.config.precision == "auto" and compute.dtype is not torch.float32:
        yield (
            f"The training photos were embedded in bf16 on {compute.device.type}, because "
            "tune.precision=auto. The model is selected, evaluated and served in fp32."
        )
    if context.plan.thaws_backbone and context.config.epochs and selected_phase == "head":
        yield (
            f"The fine-tuned backbone (freeze.policy={context.plan.policy}) was not better on the "
            "validation photos: the model is the solved head on the pretrained backbone."
        )


def _described(
    pretrained: ImageClassifier, plan: FreezePlan, splits: Splits, config: TuneConfig
) -> ImageClassifier:
    values = config.model_dump(exclude={"checkpoint_url"}, mode="json")
    flat = {f"tune.{name}": str(value) for name, value in values.items()}
    return pretrained.with_card(
        dataset_digest=splits.digest,
        config=flat | {"freeze.policy": plan.policy},
        versions={name: version(name) for name in RECORDED_VERSIONS},
    )
