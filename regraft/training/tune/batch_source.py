"""The input of the thawed part: pixels, or the stored output of the frozen part."""

import logging
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor, nn

from regraft.core.config import EmbedConfig, TuneConfig
from regraft.core.errors import ConfigError
from regraft.core.files import absolute, is_url
from regraft.model.backbone import Preprocessing
from regraft.model.classifier import tensors_hash
from regraft.model.embed import (
    BATCH_SIZE,
    CacheKey,
    Compute,
    EmbeddingSpec,
    Rows,
    count_stored,
    embedding_code_fingerprint,
    embeddings_for,
    prepared,
)
from regraft.model.freeze import FreezePlan, set_modes
from regraft.model.pixels import (
    LoadSpec,
    Photo,
    View,
    consecutive,
    normalise,
    photo_batches,
    stacked,
)
from regraft.training.tune.boundary import Cut, cut
from regraft.training.tune.challenger import EpochLog
from regraft.training.tune.checkpoint import Checkpoint
from regraft.training.tune.training_setup import TrainingSetup

logger = logging.getLogger("regraft.fine_tune")

IN_MEMORY_GB = 1.0  # limit of values at the cut that are not on a disk. Guess
FREE_DISK_SHARE = 0.5  # share of the free disk for values at the cut. Guess
FP32 = Compute(torch.device("cpu"), torch.float32)


@dataclass(frozen=True)
class TrainData:
    """The train and validation splits: photos (N,), and class positions (N,) int64."""

    train: list[Photo]
    train_targets: Tensor
    validation: list[Photo]
    validation_targets: Tensor
    preprocessing: Preprocessing
    architecture: str
    n_classes: int


@dataclass(frozen=True)
class TrainContext:
    """The settings of the training of the thawed part; constant during the training."""

    plan: FreezePlan
    config: TuneConfig
    compute: Compute
    checkpoint: Checkpoint
    log: EpochLog
    store: EmbedConfig


@dataclass(frozen=True)
class BatchSource:
    """The batches that the trained part of a network reads, on the device.

    part: returns the trained part of such a network, in training mode; it shares the modules.
    train: returns the batches of an epoch (from 1), each with the photos at the given positions.
    validation: returns the batches in order.
    uncached_reason: why the frozen part runs in each epoch, "" if it does not.
    """

    part: Callable[[nn.Module], nn.Module]
    train: Callable[[int, list[list[int]]], Iterator[Tensor]]
    validation: Callable[[], Iterator[Tensor]]
    uncached_reason: str


def make_batch_source(
    network: nn.Module,
    data: TrainData,
    context: TrainContext,
    setup: TrainingSetup | None = None,
) -> BatchSource:
    """Return a source that runs the frozen part once per view; of pixels, if that is impossible.

    Args:
        network: its modes set by the plan.
        setup: of the interrupted training; the disk may have less free space now.

    Raises:
        ConfigError: there is too little space to continue with this setup.
    """
    network_cut = cut(network, context.plan)
    reason = (setup and setup.uncached_reason) or _uncached_reason(network_cut, data, context)
    if setup and reason != setup.uncached_reason:
        raise ConfigError(
            "Expected to resume with stored outputs of the frozen part, as this training began, "
            f"but {reason} (tune.cached_views, embed.store_url, embed.max_gb). Free some space and "
            "run the same command again: the training continues from its checkpoint."
        )
    if reason or network_cut is None:
        logger.info("fine_tune: the frozen part runs in each epoch: %s", reason)
        return _pixel_source(data, context, reason)
    return _boundary_source(network_cut, data, context)


def _uncached_reason(network_cut: Cut | None, data: TrainData, context: TrainContext) -> str:
    """Return why the values at the cut cannot be stored, "" if they can."""
    config = context.config
    if not config.cached_views:
        return "tune.cached_views is 0"
    if config.mixup_alpha or config.cutmix_alpha:
        return "MixUp and CutMix need pixels"
    if network_cut is None:
        return "nothing below is frozen, or the network cannot be cut"
    return _exceeded_limit(*_needed_bytes(network_cut, data, context), context.store)


def _pixel_source(data: TrainData, context: TrainContext, reason: str) -> BatchSource:
    device = context.compute.device

    def batches(photos: list[Photo], order: list[list[int]], view: View | None) -> Iterator[Tensor]:
        for batch in photo_batches(photos, order, LoadSpec(data.preprocessing, view)):
            yield normalise(stacked(batch).to(device), data.preprocessing)  # (B, 3, S, S)

    def train(epoch: int, order: list[list[int]]) -> Iterator[Tensor]:
        return batches(data.train, order, _view(context.config, epoch))

    def validation() -> Iterator[Tensor]:
        return batches(data.validation, consecutive(len(data.validation), BATCH_SIZE), None)

    return BatchSource(lambda network: network, train, validation, reason)


def _boundary_source(network_cut: Cut, data: TrainData, context: TrainContext) -> BatchSource:
    """Return the source of the frozen part's outputs; each view is computed on first use."""
    spec = _boundary_spec(network_cut, data, context)
    validation_rows = embeddings_for(spec, data.validation, context.store)
    rows_by_view: dict[View | None, Rows] = {}

    def batches(rows: Rows, order: list[list[int]]) -> Iterator[Tensor]:
        for positions in order:
            yield rows.take(positions).to(context.compute.device).float()  # (B, ...)

    def train(epoch: int, order: list[list[int]]) -> Iterator[Tensor]:
        view = _view(context.config, (epoch - 1) % context.config.cached_views + 1)
        if view not in rows_by_view:
            rows_by_view[view] = embeddings_for(
                _spec_of_view(spec, view), data.train, context.store
            )
        return batches(rows_by_view[view], order)

    def validation() -> Iterator[Tensor]:
        return batches(validation_rows, consecutive(len(validation_rows), BATCH_SIZE))

    @cache  # one entry for the network, one for its average; later only their values change
    def tail(network: nn.Module) -> nn.Module:
        set_modes(network, context.plan)
        same_cut = cut(network, context.plan)
        assert same_cut is not None  # the network of network_cut, or its average
        return same_cut.tail

    return BatchSource(tail, train, validation, "")


def _view(config: TuneConfig, number: int) -> View | None:
    return View(config.seed, number) if config.augment == "light" else None


def _boundary_spec(network_cut: Cut, data: TrainData, context: TrainContext) -> EmbeddingSpec:
    """Return the specification of the frozen part's output for a photo as in testing."""
    cache_key = CacheKey(
        architecture=data.architecture,
        weights=tensors_hash(network_cut.frozen.state_dict()),
        preprocessing=data.preprocessing,
        compute=str(context.compute),
        until=network_cut.at,
        code_fingerprint=embedding_code_fingerprint("training/tune/boundary.py"),
    )
    load_spec = LoadSpec(data.preprocessing)
    return EmbeddingSpec(cache_key, lambda: network_cut.frozen, context.compute, load_spec)


def _spec_of_view(spec: EmbeddingSpec, view: View | None) -> EmbeddingSpec:
    """Return the same specification for a random view of the photo."""
    if view is None:
        return spec
    cache_key = spec.cache_key.model_copy(update={"view": f"seed {view.seed}, view {view.number}"})
    return replace(spec, cache_key=cache_key, load_spec=replace(spec.load_spec, view=view))


def _needed_bytes(network_cut: Cut, data: TrainData, context: TrainContext) -> tuple[int, int]:
    """Return the bytes of the values at the cut: of all views and validation; those not stored."""
    side = data.preprocessing.size
    with torch.inference_mode():
        value = prepared(network_cut.frozen, FP32)(torch.zeros(1, 3, side, side))  # (1, ...)
    n_bytes, store = value.numel() * context.compute.dtype.itemsize, context.store
    spec = _boundary_spec(network_cut, data, context)
    views = {_view(context.config, number + 1) for number in range(context.config.cached_views)}
    n_rows = len(views) * len(data.train) + len(data.validation)
    n_stored = sum(count_stored(_spec_of_view(spec, view), data.train, store) for view in views)
    n_stored += count_stored(spec, data.validation, store)
    return n_bytes * n_rows, n_bytes * (n_rows - n_stored)


def _exceeded_limit(all_bytes: int, new_bytes: int, store: EmbedConfig) -> str:
    """Return which limit the values exceed (budget, disk or memory); "" if none."""
    path = absolute(store.store_url) if store.store_url else ""
    if not path or is_url(path) or not _is_writable(path):
        available, needed, where = IN_MEMORY_GB * 1e9, all_bytes, "in memory"
    else:
        available, needed = FREE_DISK_SHARE * shutil.disk_usage(path).free, new_bytes
        where = f"on the disk of {path}"
    if all_bytes > store.max_gb * 1e9:
        available, needed, where = store.max_gb * 1e9, all_bytes, "within embed.max_gb"
    if needed <= available:
        return ""
    return f"its output needs {needed / 1e9:.1f} GB, available: {available / 1e9:.1f} {where}"


def _is_writable(path: str) -> bool:
    """Return whether the store is writable; if not, the store logs it and rows stay in memory."""
    try:
        os.makedirs(path, exist_ok=True)
    except OSError:
        return False
    return os.access(path, os.W_OK)
