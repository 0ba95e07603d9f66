"""One shard answered: its photos through the model, its answers written whole."""

import os
from threading import RLock

import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from regraft.core.config import EmbedConfig
from regraft.evaluation.predict import label
from regraft.model.classifier import Card, ImageClassifier
from regraft.operations.batch.folder import Answerer, Shard, exists, read_plan, write_answers

_TEXTS = ("path", "sha256", "label")
# Shards that are threads of one process take turns: while torch.fx traces a network, it changes
# what calling any network of the process does.
ONE_NETWORK = RLock()


class ShardAnswers(BaseModel):
    """What answering a shard came to.

    n_photos: in it. n_errors: that could not be read. is_new: False if the answers were there.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str
    n_photos: int = 0
    n_errors: int = 0
    is_new: bool = False

    def __str__(self) -> str:
        if not self.is_new:
            return f"predict_shard: {self.url} was there"
        return f"predict_shard: {self.n_photos} photos, {self.n_errors} unreadable: {self.url}"


def answer_shard(
    shard: Shard, classifier: ImageClassifier, answerer: Answerer, store: EmbedConfig
) -> ShardAnswers:
    """The answers about a shard's photos, written whole; not asked again if they are there.

    Args:
        classifier: what answers.
        answerer: its name.
        store: where the photos' numbers may already be, and are kept.

    Raises:
        ManifestError: the shard's plan is damaged.
        ConfigError: nothing that is installed knows the URLs of its photos.
    """
    if exists(shard.answers_url):  # another call has done it meanwhile
        return ShardAnswers(url=shard.answers_url)
    paths = [os.fsdecode(path) for path, _ in read_plan(shard)]
    with ONE_NETWORK:
        table = label(classifier, paths, store).assign(model=answerer.called, shard=shard.digest)
    write_answers(shard, pa.Table.from_pandas(table, schema_of(classifier.card)))
    return ShardAnswers(
        url=shard.answers_url,
        n_photos=len(table),
        n_errors=int((table.error != "").sum()),
        is_new=True,
    )


def schema_of(card: Card) -> pa.Schema:
    """The columns of a partition.

    path, sha256, label, confidence, "prob:CLASS" for each class in order, error, model, shard.
    """
    numbers = ["confidence", *(f"prob:{name}" for name in card.classes)]
    return pa.schema(
        [
            *((name, pa.string()) for name in _TEXTS),
            *((name, pa.float64()) for name in numbers),
            *((name, pa.string()) for name in ("error", "model", "shard")),
        ]
    )
