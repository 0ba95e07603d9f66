"""The prediction of one shard: its photos through the model, its output written atomically."""

import os
from threading import RLock

import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from regraft.core.config import EmbedConfig
from regraft.core.text import format_count
from regraft.evaluation.predict import predict_paths
from regraft.model.card import Card
from regraft.model.classifier import ImageClassifier
from regraft.operations.batch.folder import (
    Predictor,
    Shard,
    file_exists,
    read_plan,
    write_predictions,
)
from regraft.operations.batch.walk import refusals

_TEXTS = ("path", "sha256", "label")
# Only one thread of a process may use a network at a time, because torch.fx changes the calls of
# all networks of the process while it traces one.
ONE_NETWORK = RLock()


class ShardResult(BaseModel):
    """The result of a shard.

    n_photos: photos in the shard. n_errors: photos that could not be read.
    is_new: False if the predictions already existed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str
    n_photos: int = 0
    n_errors: int = 0
    is_new: bool = False

    def __str__(self) -> str:
        if not self.is_new:
            return f"predict_shard: {self.url} already exists"
        return (
            f"predict_shard: {format_count(self.n_photos, 'photo')}, {self.n_errors} "
            f"unreadable: {self.url}"
        )


def predict_shard(
    shard: Shard, classifier: ImageClassifier, predictor: Predictor, store: EmbedConfig
) -> ShardResult:
    """Write the predictions of a shard, and return what was done; skip an existing file.

    Args:
        classifier: the model of the predictor.
        predictor: written to the column "model".
        store: the embedding store, from which existing embeddings are read.

    Raises:
        ManifestError: the shard's plan is damaged.
        ConfigError: no installed package supports the URLs of its photos.
    """
    if file_exists(shard.predictions_url):  # written by another call in the meantime
        return ShardResult(url=shard.predictions_url)
    entries = read_plan(shard)
    paths = [os.fsdecode(path) for path, _ in entries]
    with ONE_NETWORK:
        table = predict_paths(classifier, paths, store, refusals(entries)).assign(
            model=predictor.reference, shard=shard.digest
        )
    write_predictions(shard, pa.Table.from_pandas(table, partition_schema(classifier.card)))
    return ShardResult(
        url=shard.predictions_url,
        n_photos=len(table),
        n_errors=int((table.error != "").sum()),
        is_new=True,
    )


def partition_schema(card: Card) -> pa.Schema:
    """Return the columns of a partition.

    They are path, sha256, label, confidence, "prob:CLASS" for each class in order, error, model,
    shard.
    """
    numbers = ["confidence", *(f"prob:{name}" for name in card.classes)]
    return pa.schema(
        [
            *((name, pa.string()) for name in _TEXTS),
            *((name, pa.float64()) for name in numbers),
            *((name, pa.string()) for name in ("error", "model", "shard")),
        ]
    )
