"""What all the answers come to, read a shard at a time."""

import io
from collections import Counter
from collections.abc import Iterator, Sequence

import pandas as pd
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict

from regraft.operations.batch.folder import Shard, read, read_gone
from regraft.operations.batch.plan import BatchPlan

_N_TOLD = 3


class BatchSummary(BaseModel):
    """The answers about the photos that are there now.

    n_photos: answered about. n_errors: that could not be read. n_unopened: of those, that could
        not even be opened, which may be the storage's fault.
    labels: photos a label, the most frequent first.
    n_answered: shards that this call answered, of n_shards.
    n_gone: answers about photos that are there no longer, not counted above.
    unopened: files of answers with such photos, at most three.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    n_photos: int
    n_errors: int
    n_unopened: int
    labels: dict[str, int]
    n_answered: int
    n_shards: int
    n_gone: int
    unopened: tuple[str, ...]

    def __str__(self) -> str:
        return (
            f"predict_summary: {self.n_photos} photos, {self.n_errors} unreadable; "
            f"{self.n_answered} of {self.n_shards} shards answered now"
        )


def summarise(plan: BatchPlan) -> BatchSummary:
    """The counts of all answers that the plan asks for.

    Raises:
        FileNotFoundError: some of them are not there.
    """
    labels: Counter[str] = Counter()
    unopened: Counter[str] = Counter()
    n_errors = 0
    for shard in plan.shards:
        table = current(shard, ["label", "error", "sha256"])
        labels.update(table.label[table.error == ""])
        n_errors += int((table.error != "").sum())
        unopened[shard.answers_url] += int((table.sha256 == "").sum())
    return BatchSummary(
        n_photos=plan.n_photos,
        n_errors=n_errors,
        n_unopened=unopened.total(),
        labels=dict(labels.most_common()),
        n_answered=len(plan.todo),
        n_shards=len(plan.shards),
        n_gone=plan.n_gone,
        unopened=tuple(url for url, n in unopened.items() if n)[:_N_TOLD],
    )


def current(shard: Shard, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """The answers about a shard's photos that are there now, as they are now.

    Args:
        columns: None is all of them.
    """
    data = io.BytesIO(read(shard.answers_url))
    table: pd.DataFrame = pq.read_table(data, columns=columns).to_pandas()
    return table.drop(index=read_gone(shard)).reset_index(drop=True)


def answers(plan: BatchPlan) -> Iterator[pd.DataFrame]:
    """All the answers that the plan asks for, a table a shard."""
    yield from (current(shard) for shard in plan.shards)
