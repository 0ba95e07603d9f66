"""The counts over all predictions, read shard by shard."""

import io
from collections import Counter
from collections.abc import Iterator, Sequence

import pandas as pd
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict

from regraft.core.text import format_count
from regraft.operations.batch.folder import Shard, read_bytes, read_gone
from regraft.operations.batch.plan import BatchPlan

_MAX_LISTED = 3


class BatchSummary(BaseModel):
    """The counts of the predictions for the photos that exist now.

    n_photos: predicted photos. n_errors: photos that could not be read.
    n_unopened: photos of n_errors that could not be opened, possibly a failure of the storage.
    labels: number of photos of each label, the most frequent first.
    n_predicted: shards that this call predicted, of n_shards.
    n_gone: predictions of changed or removed photos, which the other counts leave out.
    unopened: prediction files with such photos, at most three.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    n_photos: int
    n_errors: int
    n_unopened: int
    labels: dict[str, int]
    n_predicted: int
    n_shards: int
    n_gone: int
    unopened: tuple[str, ...]

    def __str__(self) -> str:
        return (
            f"predict_summary: {format_count(self.n_photos, 'photo')}, {self.n_errors} unreadable; "
            f"{self.n_predicted} of {format_count(self.n_shards, 'shard')} predicted now"
        )


def summarise(plan: BatchPlan) -> BatchSummary:
    """Return the counts of all predictions of the plan.

    Raises:
        FileNotFoundError: a file of predictions does not exist.
    """
    labels: Counter[str] = Counter()
    unopened: Counter[str] = Counter()
    n_errors = 0
    for shard in plan.shards:
        table = read_current(shard, ["label", "error", "sha256"])
        labels.update(table.label[table.error == ""])
        n_errors += int((table.error != "").sum())
        unopened[shard.predictions_url] += int((table.sha256 == "").sum())
    return BatchSummary(
        n_photos=plan.n_photos,
        n_errors=n_errors,
        n_unopened=unopened.total(),
        labels=dict(labels.most_common()),
        n_predicted=len(plan.todo),
        n_shards=len(plan.shards),
        n_gone=plan.n_gone,
        unopened=tuple(url for url, n in unopened.items() if n)[:_MAX_LISTED],
    )


def read_current(shard: Shard, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Return the predictions of a shard, without those of changed or removed photos.

    Args:
        columns: None = all columns.
    """
    data = io.BytesIO(read_bytes(shard.predictions_url))
    table: pd.DataFrame = pq.read_table(data, columns=columns).to_pandas()
    return table.drop(index=read_gone(shard)).reset_index(drop=True)


def read_predictions(plan: BatchPlan) -> Iterator[pd.DataFrame]:
    """Yield the current predictions of the plan, one table per shard."""
    yield from (read_current(shard) for shard in plan.shards)
