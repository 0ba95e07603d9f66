"""Embeddings by a frozen network: computed once per photo, stored, and shared by all commands."""

from typing import TYPE_CHECKING

from regraft.core.lazy import lazy_exports
from regraft.model.embed.cache_key import CacheKey, embedding_code_fingerprint
from regraft.model.embed.eviction import PartitionUse, contents, count_photos, evict_lru

if TYPE_CHECKING:
    from regraft.model.embed.compute import (
        Compute,
        choose_compute,
        judging_compute,
        keep_freed_memory,
    )
    from regraft.model.embed.embedding import (
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
    from regraft.model.embed.network import BATCH_SIZE, UNTRACEABLE, forward, prepared, trace
    from regraft.model.embed.perturbations import Perturbation
    from regraft.model.embed.rows import Rows
else:
    __getattr__ = lazy_exports(
        __name__,
        {
            "compute": (
                "Compute",
                "choose_compute",
                "judging_compute",
                "keep_freed_memory",
            ),
            "embedding": (
                "NO_STORE",
                "EmbeddingResult",
                "EmbeddingSpec",
                "count_stored",
                "embed",
                "embeddings_for",
                "head_scores",
                "logits",
                "probabilities",
                "spec_for",
                "try_embeddings_for",
            ),
            "network": (
                "BATCH_SIZE",
                "UNTRACEABLE",
                "forward",
                "prepared",
                "trace",
            ),
            "perturbations": ("Perturbation",),
            "rows": ("Rows",),
        },
    )

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
