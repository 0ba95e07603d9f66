"""Photos through a frozen network, each once: what the store knows is not computed again."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from regraft.core.config import EmbedConfig
from regraft.core.errors import UnusablePhoto
from regraft.core.files import access_errors
from regraft.data.ingest import NO_LIMIT
from regraft.model.classifier import ImageClassifier, tensors_hash
from regraft.model.embed.change import Change, changed_batches
from regraft.model.embed.compute import Compute, judging_compute
from regraft.model.embed.network import BATCH_SIZE, forward, prepared
from regraft.model.embed.recipe import Recipe, maker
from regraft.model.embed.room import make_room
from regraft.model.embed.rows import Rows
from regraft.model.embed.store import SHARD_PHOTOS, Shard, Shelf
from regraft.model.pixels import Look, Photo, batch_of, consecutive, photo_batches

NO_STORE = EmbedConfig()  # nothing is kept: every photo is new

logger = logging.getLogger("regraft.embed")


@dataclass(frozen=True)
class Passage:
    """A way from photos to numbers, through a frozen network.

    recipe: what decides the numbers. build: makes the network; called only if a photo is new.
    change: how each photo is changed before; a changed photo is seen as it is tested.
    """

    recipe: Recipe
    build: Callable[[], nn.Module]
    compute: Compute
    look: Look
    change: Change | None = None


@dataclass(frozen=True)
class Found:
    """The rows of the photos that are usable, in order, and why the others are not, by sha256."""

    rows: Rows
    refused: dict[str, UnusablePhoto]


def passage(
    classifier: ImageClassifier,
    compute: Compute,
    max_pixels: int = NO_LIMIT,
    change: Change | None = None,
) -> Passage:
    """The way from a photo to the classifier's embedding of it.

    Args:
        max_pixels: of a photo that ingest has not judged.
        change: how the photo is changed before; None = not at all.
    """
    info = classifier.card.backbone
    body = {n: t for n, t in classifier.weights.items() if n.startswith("backbone.")}
    recipe = Recipe(
        architecture=info.architecture,
        weights=tensors_hash(body),
        preprocessing=info.preprocessing,
        compute=str(compute),
        view=change or "",
        maker=maker("model/embed/change.py") if change else maker(),
    )
    look = Look(info.preprocessing, max_pixels=max_pixels)
    return Passage(recipe, lambda: classifier.build().backbone, compute, look, change)


def rows_of(way: Passage, photos: Sequence[Photo], config: EmbedConfig) -> Rows:
    """What the network makes of each photo, in order; only photos that are new pass through it.

    Args:
        photos: N of them; several may have the same content.
        config: where the rows are kept; without a place all photos are new.

    Raises:
        UnusablePhoto: a photo cannot be read any more.
    """
    found = find_rows(way, photos, config)
    for error in found.refused.values():
        raise error
    return found.rows


def find_rows(way: Passage, photos: Sequence[Photo], config: EmbedConfig) -> Found:
    """As rows_of(), but a photo that cannot be read is told and left out."""
    shelf = Shelf(config.store_url, way.recipe)
    gathered = _Gathered({photo.sha256: photo for photo in photos})
    for shard in shelf.read(gathered.wanted):
        gathered.add(shard)
    new = gathered.missing()
    if config.store_url:  # else nothing can be known
        logger.info("%s", _said(len(gathered.wanted), len(new), way))
    refused: dict[str, UnusablePhoto] = {}
    if photos:
        shelf.touch()  # before the first shard: what is being filled is not what goes first
    for shard in _computed(way, new, refused):
        gathered.add(shelf.add(shard))
    if new:
        shelf.touch()
        _stay_within(config)
    return Found(gathered.rows([p.sha256 for p in photos if p.sha256 not in refused]), refused)


def n_known(way: Passage, photos: Sequence[Photo], config: EmbedConfig) -> int:
    """How many of the photos have a row in the store already."""
    kept = Shelf(config.store_url, way.recipe).photos()
    return sum(photo.sha256 in kept for photo in photos)


def _stay_within(config: EmbedConfig) -> None:
    if config.store_url:
        try:
            make_room(config.store_url, config.max_gb * 1e9)
        except access_errors() as error:
            logger.warning("embed: no room can be made in %s (%s).", config.store_url, error)


@dataclass
class _Gathered:
    """Where the row of each wanted photo lies, as far as it is known; the first of two counts."""

    wanted: dict[str, Photo]
    parts: list[Tensor] = field(default_factory=list)
    places: dict[str, tuple[int, int]] = field(default_factory=dict)

    def add(self, shard: Shard) -> None:
        found = [(row, sha256) for row, sha256 in enumerate(shard.photos) if sha256 in self.wanted]
        for row, sha256 in found:
            self.places.setdefault(sha256, (len(self.parts), row))
        if found:
            self.parts.append(shard.rows)

    def missing(self) -> list[Photo]:
        return [photo for sha256, photo in self.wanted.items() if sha256 not in self.places]

    def rows(self, order: list[str]) -> Rows:
        found = np.array([self.places[sha256] for sha256 in order], np.int64).reshape(-1, 2)
        return Rows(tuple(self.parts), found[:, 0], found[:, 1])


def embed(
    classifier: ImageClassifier, photos: Sequence[Photo], compute: Compute, config: EmbedConfig
) -> Rows:
    """(N, D) embeddings of the photos under the classifier's backbone.

    Args:
        photos: N of them.
    """
    return rows_of(passage(classifier, compute), photos, config)


def logits(classifier: ImageClassifier, photos: Sequence[Photo], config: EmbedConfig) -> Tensor:
    """(N, K) scores of the photos before softmax and before the temperature, computed in fp32.

    Args:
        photos: N of them.

    Raises:
        UnusablePhoto: a photo cannot be read any more.
    """
    return head_scores(classifier, embed(classifier, photos, judging_compute(), config))


def head_scores(classifier: ImageClassifier, embeddings: Rows) -> Tensor:
    """(N, K) what the classifier's head makes of embeddings under its own backbone."""
    weight, bias = classifier.weights["head.weight"], classifier.weights["head.bias"]
    chunks = embeddings.chunks(SHARD_PHOTOS)
    scores = [torch.nn.functional.linear(chunk.float(), weight, bias) for chunk in chunks]
    return torch.cat(scores) if scores else torch.zeros(0, len(bias))


def probabilities(scores: Tensor, temperature: float) -> Tensor:
    """(N, K) probabilities, rows sum to 1. Source: Guo et al. 2017, eq. 9."""
    return torch.softmax(scores.double() / temperature, dim=-1)


def _computed(
    way: Passage, photos: list[Photo], refused: dict[str, UnusablePhoto]
) -> Iterator[Shard]:
    """The rows of the photos, a shard at a time; those that cannot be read are put aside."""
    if not photos:
        return iter(())
    usable: list[str] = []

    def pixels() -> Iterator[Tensor]:
        order = consecutive(len(photos), BATCH_SIZE)
        batches = _batches(way, photos, order)
        shown = tqdm(batches, desc="photos", total=len(order), disable=None, delay=2)
        for positions, loaded in zip(order, shown, strict=True):
            pairs = [(photos[at].sha256, one) for at, one in zip(positions, loaded, strict=True)]
            refused.update({name: one for name, one in pairs if isinstance(one, UnusablePhoto)})
            usable.extend(name for name, one in pairs if isinstance(one, Tensor))
            if tensors := [one for _, one in pairs if isinstance(one, Tensor)]:
                yield batch_of(tensors)

    network = prepared(way.build(), way.compute)
    outputs = forward(network, pixels(), way.look.preprocessing, way.compute)
    return _shards(outputs, usable)


def _batches(
    way: Passage, photos: list[Photo], order: list[list[int]]
) -> Iterator[list[Tensor | UnusablePhoto]]:
    if way.change:
        return changed_batches(photos, order, way.look, way.change)
    return photo_batches(photos, order, way.look)


def _shards(outputs: Iterator[Tensor], photos: list[str]) -> Iterator[Shard]:
    """The rows cut into shards; photos grows as the rows come."""
    waiting: list[Tensor] = []
    at = n_waiting = 0
    for output in outputs:
        waiting.append(output)
        n_waiting += len(output)
        if n_waiting >= SHARD_PHOTOS:
            yield Shard(tuple(photos[at : at + n_waiting]), torch.cat(waiting))
            at, n_waiting, waiting = at + n_waiting, 0, []
    if waiting:
        yield Shard(tuple(photos[at:]), torch.cat(waiting))


def _said(n_photos: int, n_new: int, way: Passage) -> str:
    what = f" at {way.recipe.until}" if way.recipe.until else ""
    view = f", view {way.look.view.number}" if way.look.view else ""
    change = f", {way.change}" if way.change else ""
    return (
        f"embed: {n_photos} photos{what}{view}{change}: {n_photos - n_new} known, {n_new} new "
        f"({way.recipe.compute})"
    )
