"""Embeddings of photos: each photo is computed once and then read from the store."""

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
from regraft.core.text import format_count
from regraft.data.ingest import NO_LIMIT
from regraft.model.classifier import ImageClassifier, tensors_hash
from regraft.model.embed.cache_key import CacheKey, embedding_code_fingerprint
from regraft.model.embed.compute import Compute, judging_compute
from regraft.model.embed.eviction import evict_lru
from regraft.model.embed.network import BATCH_SIZE, forward, prepared
from regraft.model.embed.perturbations import Perturbation, perturbed_batches
from regraft.model.embed.rows import Rows
from regraft.model.embed.store import SHARD_PHOTOS, EmbeddingPartition, Shard
from regraft.model.pixels import LoadSpec, Photo, batch_of, consecutive, photo_batches

NO_STORE = EmbedConfig()  # nothing is stored: every photo is new

logger = logging.getLogger("regraft.embed")


@dataclass(frozen=True)
class EmbeddingSpec:
    """How photos become embeddings: the loading of the photo and the frozen network.

    cache_key: identifies the embeddings. build: makes the network; called only for new photos.
    perturbation: applied to each photo before the network; a perturbed photo has no random view.
    """

    cache_key: CacheKey
    build: Callable[[], nn.Module]
    compute: Compute
    load_spec: LoadSpec
    perturbation: Perturbation | None = None


@dataclass(frozen=True)
class EmbeddingResult:
    """The rows of the usable photos, in order.

    refused: the errors of the other photos, by sha256.
    """

    rows: Rows
    refused: dict[str, UnusablePhoto]


def spec_for(
    classifier: ImageClassifier,
    compute: Compute,
    max_pixels: int = NO_LIMIT,
    perturbation: Perturbation | None = None,
) -> EmbeddingSpec:
    """Return the specification of the classifier's embeddings.

    Args:
        max_pixels: limit of width * height, for photos that ingest has not checked.
        perturbation: applied to each photo; None = none.
    """
    info = classifier.card.backbone
    body = {n: t for n, t in classifier.weights.items() if n.startswith("backbone.")}
    extra_files = ("model/embed/perturbations.py",) if perturbation else ()
    cache_key = CacheKey(
        architecture=info.architecture,
        weights=tensors_hash(body),
        preprocessing=info.preprocessing,
        compute=str(compute),
        view=perturbation or "",
        code_fingerprint=embedding_code_fingerprint(*extra_files),
    )
    load_spec = LoadSpec(info.preprocessing, max_pixels=max_pixels)
    return EmbeddingSpec(
        cache_key, lambda: classifier.build().backbone, compute, load_spec, perturbation
    )


def embeddings_for(spec: EmbeddingSpec, photos: Sequence[Photo], config: EmbedConfig) -> Rows:
    """Return the embedding of each photo, in order. Only new photos are computed.

    Args:
        photos: N photos; several may have the same content.
        config: the store; without a store all photos are new.

    Raises:
        UnusablePhoto: a photo can no longer be read.
    """
    result = try_embeddings_for(spec, photos, config)
    for error in result.refused.values():
        raise error
    return result.rows


def try_embeddings_for(
    spec: EmbeddingSpec, photos: Sequence[Photo], config: EmbedConfig
) -> EmbeddingResult:
    """Return the embeddings like embeddings_for(), and the errors of unreadable photos."""
    partition = EmbeddingPartition(config.store_url, spec.cache_key)
    gathered = _Gathered({photo.sha256: photo for photo in photos})
    for shard in partition.read(gathered.wanted):
        gathered.add(shard)
    new = gathered.missing()
    if config.store_url:  # without a store all photos are new
        logger.info("%s", _format_counts(len(gathered.wanted), len(new), spec))
    refused: dict[str, UnusablePhoto] = {}
    if photos:
        partition.touch()  # before the first shard, so that it is not evicted while it is filled
    for shard in _compute_shards(spec, new, refused):
        gathered.add(partition.add(shard))
    if new:
        partition.touch()
        _evict_if_needed(config)
    return EmbeddingResult(
        gathered.rows([p.sha256 for p in photos if p.sha256 not in refused]), refused
    )


def count_stored(spec: EmbeddingSpec, photos: Sequence[Photo], config: EmbedConfig) -> int:
    """Return how many of the photos have a row in the store."""
    stored = EmbeddingPartition(config.store_url, spec.cache_key).photos()
    return sum(photo.sha256 in stored for photo in photos)


def _evict_if_needed(config: EmbedConfig) -> None:
    if config.store_url:
        try:
            evict_lru(config.store_url, config.max_gb * 1e9)
        except access_errors() as error:
            logger.warning(
                "embed: no old rows can be removed from %s (%s).", config.store_url, error
            )


@dataclass
class _Gathered:
    """The rows of the wanted photos that are available so far; the first of two copies counts."""

    wanted: dict[str, Photo]
    parts: list[Tensor] = field(default_factory=list)
    places: dict[str, tuple[int, int]] = field(default_factory=dict)

    def add(self, shard: Shard) -> None:
        matches = [
            (row, sha256) for row, sha256 in enumerate(shard.photos) if sha256 in self.wanted
        ]
        for row, sha256 in matches:
            self.places.setdefault(sha256, (len(self.parts), row))
        if matches:
            self.parts.append(shard.rows)

    def missing(self) -> list[Photo]:
        return [photo for sha256, photo in self.wanted.items() if sha256 not in self.places]

    def rows(self, order: list[str]) -> Rows:
        places = np.array([self.places[sha256] for sha256 in order], np.int64).reshape(-1, 2)
        return Rows(tuple(self.parts), places[:, 0], places[:, 1])


def embed(
    classifier: ImageClassifier, photos: Sequence[Photo], compute: Compute, config: EmbedConfig
) -> Rows:
    """Return the (N, D) embeddings of the photos under the classifier's backbone.

    Args:
        photos: N photos.
    """
    return embeddings_for(spec_for(classifier, compute), photos, config)


def logits(classifier: ImageClassifier, photos: Sequence[Photo], config: EmbedConfig) -> Tensor:
    """Return the (N, K) scores before softmax and temperature, computed in fp32.

    Args:
        photos: N photos.

    Raises:
        UnusablePhoto: a photo can no longer be read.
    """
    return head_scores(classifier, embed(classifier, photos, judging_compute(), config))


def head_scores(classifier: ImageClassifier, embeddings: Rows) -> Tensor:
    """Return the (N, K) scores of the classifier's head for embeddings of its own backbone."""
    weight, bias = classifier.weights["head.weight"], classifier.weights["head.bias"]
    chunks = embeddings.chunks(SHARD_PHOTOS)
    scores = [torch.nn.functional.linear(chunk.float(), weight, bias) for chunk in chunks]
    return torch.cat(scores) if scores else torch.zeros(0, len(bias))


def probabilities(scores: Tensor, temperature: float) -> Tensor:
    """Return (N, K) probabilities; each row has the sum 1. Source: Guo et al. 2017, eq. 9."""
    return torch.softmax(scores.double() / temperature, dim=-1)


def _compute_shards(
    spec: EmbeddingSpec, photos: list[Photo], refused: dict[str, UnusablePhoto]
) -> Iterator[Shard]:
    """Yield the rows of the photos in shards; add the errors of unreadable photos to `refused`."""
    if not photos:
        return iter(())
    usable: list[str] = []

    def pixels() -> Iterator[Tensor]:
        order = consecutive(len(photos), BATCH_SIZE)
        batches = _batches(spec, photos, order)
        shown = tqdm(batches, desc="photos", total=len(order), disable=None, delay=2)
        for positions, loaded in zip(order, shown, strict=True):
            pairs = [(photos[at].sha256, item) for at, item in zip(positions, loaded, strict=True)]
            refused.update({name: item for name, item in pairs if isinstance(item, UnusablePhoto)})
            usable.extend(name for name, item in pairs if isinstance(item, Tensor))
            if tensors := [item for _, item in pairs if isinstance(item, Tensor)]:
                yield batch_of(tensors)

    network = prepared(spec.build(), spec.compute)
    outputs = forward(network, pixels(), spec.load_spec.preprocessing, spec.compute)
    return _shards(outputs, usable)


def _batches(
    spec: EmbeddingSpec, photos: list[Photo], order: list[list[int]]
) -> Iterator[list[Tensor | UnusablePhoto]]:
    if spec.perturbation:
        return perturbed_batches(photos, order, spec.load_spec, spec.perturbation)
    return photo_batches(photos, order, spec.load_spec)


def _shards(outputs: Iterator[Tensor], photos: list[str]) -> Iterator[Shard]:
    """Yield the rows in shards; `photos` grows while the outputs are consumed."""
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


def _format_counts(n_photos: int, n_new: int, spec: EmbeddingSpec) -> str:
    what = f" at {spec.cache_key.until}" if spec.cache_key.until else ""
    view = f", view {spec.load_spec.view.number}" if spec.load_spec.view else ""
    perturbation = f", {spec.perturbation}" if spec.perturbation else ""
    counts = f"{n_photos - n_new} stored, {n_new} new"
    return (
        f"embed: {format_count(n_photos, 'photo')}{what}{view}{perturbation}: {counts} "
        f"({spec.cache_key.compute})"
    )
