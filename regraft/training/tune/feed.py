"""What the thawed part is fed with: pixels, or what the frozen part has made of them once."""

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
    Compute,
    Passage,
    Recipe,
    Rows,
    maker,
    n_known,
    prepared,
    rows_of,
)
from regraft.model.freeze import FreezePlan, set_modes
from regraft.model.pixels import Look, Photo, View, consecutive, normalise, photo_batches, stacked
from regraft.training.tune.arrangement import Arrangement
from regraft.training.tune.boundary import Cut, cut
from regraft.training.tune.challenger import EpochLog
from regraft.training.tune.checkpoint import Checkpoint

logger = logging.getLogger("regraft.fine_tune")

IN_MEMORY_GB = 1.0  # of boundary values, where they do not lie on a disk. Guess
FREE_DISK_SHARE = 0.5  # of the free disk that boundary values may take. Guess
FP32 = Compute(torch.device("cpu"), torch.float32)


@dataclass(frozen=True)
class Photos:
    """The two sides that training sees: photos (N,), and class positions (N,) int64."""

    train: list[Photo]
    train_targets: Tensor
    validation: list[Photo]
    validation_targets: Tensor
    preprocessing: Preprocessing
    architecture: str
    n_classes: int


@dataclass(frozen=True)
class Settings:
    """What the training of the thawed part is told; fixed for the whole of it."""

    plan: FreezePlan
    config: TuneConfig
    compute: Compute
    checkpoint: Checkpoint
    log: EpochLog
    store: EmbedConfig


@dataclass(frozen=True)
class Feed:
    """What the trained part of a network reads, on the device.

    part: the part of such a network that runs, in training mode; it shares the network's modules.
    train: the batches of an epoch (from 1), each of the given positions.
    validation: the batches in order.
    whole_because: why the frozen part runs in each epoch, "" if it does not.
    """

    part: Callable[[nn.Module], nn.Module]
    train: Callable[[int, list[list[int]]], Iterator[Tensor]]
    validation: Callable[[], Iterator[Tensor]]
    whole_because: str


def feed_of(
    network: nn.Module, photos: Photos, settings: Settings, kept: Arrangement | None = None
) -> Feed:
    """The feed that pays for the frozen part once a view; the pixels, where that cannot be.

    Args:
        network: its modes set by the plan.
        kept: as an interrupted training was arranged; the disk may have less room now.

    Raises:
        ConfigError: it has too little to go on like this.
    """
    found = cut(network, settings.plan)
    because = (kept and kept.whole_because) or _whole_because(found, photos, settings)
    if kept and because != kept.whole_because:
        raise ConfigError(
            f"Expected to go on with what the frozen part has made of each photo, as this training "
            f"began, but {because} (tune.cached_views, embed.store_url, embed.max_gb). Make room "
            "and run the same command again: it goes on where it stopped."
        )
    if because or found is None:
        logger.info("fine_tune: the frozen part runs in each epoch: %s", because)
        return _pixel_feed(photos, settings, because)
    return _boundary_feed(found, photos, settings)


def _whole_because(found: Cut | None, photos: Photos, settings: Settings) -> str:
    """What speaks against keeping the values at the cut, "" if nothing does."""
    config = settings.config
    if not config.cached_views:
        return "tune.cached_views is 0"
    if config.mixup_alpha or config.cutmix_alpha:
        return "mixing needs pixels"
    if found is None:
        return "nothing below is frozen, or it cannot be cut off"
    return _does_not_fit(*_needed_bytes(found, photos, settings), settings.store)


def _pixel_feed(photos: Photos, settings: Settings, because: str) -> Feed:
    device = settings.compute.device

    def fed(side: list[Photo], order: list[list[int]], view: View | None) -> Iterator[Tensor]:
        for batch in photo_batches(side, order, Look(photos.preprocessing, view)):
            yield normalise(stacked(batch).to(device), photos.preprocessing)  # (B, 3, S, S)

    def train(epoch: int, order: list[list[int]]) -> Iterator[Tensor]:
        return fed(photos.train, order, _view(settings.config, epoch))

    def validation() -> Iterator[Tensor]:
        return fed(photos.validation, consecutive(len(photos.validation), BATCH_SIZE), None)

    return Feed(lambda network: network, train, validation, because)


def _boundary_feed(found: Cut, photos: Photos, settings: Settings) -> Feed:
    """Reads what the frozen part has made of each view, computed when an epoch first asks."""
    way = _passage(found, photos, settings)
    judged = rows_of(way, photos.validation, settings.store)
    seen: dict[View | None, Rows] = {}

    def fed(rows: Rows, order: list[list[int]]) -> Iterator[Tensor]:
        for positions in order:
            yield rows.take(positions).to(settings.compute.device).float()  # (B, ...)

    def train(epoch: int, order: list[list[int]]) -> Iterator[Tensor]:
        view = _view(settings.config, (epoch - 1) % settings.config.cached_views + 1)
        if view not in seen:
            seen[view] = rows_of(_seen_in(way, view), photos.train, settings.store)
        return fed(seen[view], order)

    def validation() -> Iterator[Tensor]:
        return fed(judged, consecutive(len(judged), BATCH_SIZE))

    @cache  # of the network and of its average: the modules stay the same, only their values move
    def tail(network: nn.Module) -> nn.Module:
        set_modes(network, settings.plan)
        again = cut(network, settings.plan)
        assert again is not None  # it is the network that was cut above, or its average
        return again.tail

    return Feed(tail, train, validation, "")


def _view(config: TuneConfig, number: int) -> View | None:
    return View(config.seed, number) if config.augment == "light" else None


def _passage(found: Cut, photos: Photos, settings: Settings) -> Passage:
    """The way of a photo, as it is tested, through the frozen part."""
    recipe = Recipe(
        architecture=photos.architecture,
        weights=tensors_hash(found.frozen.state_dict()),
        preprocessing=photos.preprocessing,
        compute=str(settings.compute),
        until=found.at,
        maker=maker("training/tune/boundary.py"),
    )
    look = Look(photos.preprocessing)
    return Passage(recipe, lambda: found.frozen, settings.compute, look)


def _seen_in(way: Passage, view: View | None) -> Passage:
    """The same way, of a random view of the photo."""
    if view is None:
        return way
    recipe = way.recipe.model_copy(update={"view": f"seed {view.seed}, view {view.number}"})
    return replace(way, recipe=recipe, look=replace(way.look, view=view))


def _needed_bytes(found: Cut, photos: Photos, settings: Settings) -> tuple[int, int]:
    """What the values at the cut take, of all views and of validation; and those not kept yet."""
    side = photos.preprocessing.size
    with torch.inference_mode():
        value = prepared(found.frozen, FP32)(torch.zeros(1, 3, side, side))  # (1, ...)
    n_bytes, store = value.numel() * settings.compute.dtype.itemsize, settings.store
    way = _passage(found, photos, settings)
    views = {_view(settings.config, number + 1) for number in range(settings.config.cached_views)}
    n_rows = len(views) * len(photos.train) + len(photos.validation)
    kept = sum(n_known(_seen_in(way, view), photos.train, store) for view in views)
    return n_bytes * n_rows, n_bytes * (n_rows - kept - n_known(way, photos.validation, store))


def _does_not_fit(all_bytes: int, new_bytes: int, store: EmbedConfig) -> str:
    """What speaks against keeping them: the budget, the disk, or the memory; "" if nothing."""
    place = absolute(store.store_url) if store.store_url else ""
    if not place or is_url(place) or not _is_writable(place):
        room, needed, where = IN_MEMORY_GB * 1e9, all_bytes, "in memory"
    else:
        room, needed = FREE_DISK_SHARE * shutil.disk_usage(place).free, new_bytes
        where = f"on the disk of {place}"
    if all_bytes > store.max_gb * 1e9:
        room, needed, where = store.max_gb * 1e9, all_bytes, "within embed.max_gb"
    if needed <= room:
        return ""
    return f"its values need {needed / 1e9:.1f} GB and there are {room / 1e9:.1f} {where}"


def _is_writable(place: str) -> bool:
    """Whether the store can be filled; if not, it says so itself, and rows stay in memory."""
    try:
        os.makedirs(place, exist_ok=True)
    except OSError:
        return False
    return os.access(place, os.W_OK)
