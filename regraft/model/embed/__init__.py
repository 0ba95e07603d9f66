"""Embeddings by a frozen network: computed once per photo, stored, and shared by all commands."""

from regraft.model.embed.cache_key import CacheKey, embedding_code_fingerprint
from regraft.model.embed.compute import Compute, choose_compute, judging_compute, keep_freed_memory
from regraft.model.embed.embed import (
    NO_STORE,
    EmbeddingResult,
    EmbeddingSpec,
    count_stored,
    embed,
    embeddings_for,
    head_scores,
    logits,
    probabilities,
    spec_for,
    try_embeddings_for,
)
from regraft.model.embed.eviction import PartitionUse, contents, count_photos, evict_lru
from regraft.model.embed.network import BATCH_SIZE, UNTRACEABLE, forward, prepared, trace
from regraft.model.embed.perturbations import Perturbation
from regraft.model.embed.rows import Rows

__all__ = [
    "BATCH_SIZE",
    "NO_STORE",
    "UNTRACEABLE",
    "CacheKey",
    "Compute",
    "EmbeddingResult",
    "EmbeddingSpec",
    "PartitionUse",
    "Perturbation",
    "Rows",
    "choose_compute",
    "contents",
    "count_photos",
    "count_stored",
    "embed",
    "embedding_code_fingerprint",
    "embeddings_for",
    "evict_lru",
    "forward",
    "head_scores",
    "judging_compute",
    "keep_freed_memory",
    "logits",
    "prepared",
    "probabilities",
    "spec_for",
    "trace",
    "try_embeddings_for",
]
