"""The plan of batch prediction: the assignment of photos to shards, which only ever grows.

A photo stays in its shard until it changes. Therefore a call with new photos for three shards has
three shards to predict, and a call without new photos has none.
"""

import os
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from regraft.core.config import IngestConfig
from regraft.core.errors import NoPhotos
from regraft.core.files import absolute, is_url
from regraft.core.text import format_count
from regraft.data.ingest.formats import PHOTO_EXTENSIONS
from regraft.data.ingest.manifest import DEFAULT_INGEST
from regraft.data.ingest.sources import PHOTO_FILES
from regraft.operations.batch.folder import (
    OutputPartition,
    Predictor,
    Shard,
    list_digests,
    read_plan,
    write_gone,
    write_plan,
)
from regraft.operations.batch.index import Index, open_index
from regraft.operations.batch.walk import is_source, stamped, walk

NAMED = ""  # the source of photos that are given as single paths


class BatchPlan(BaseModel):
    """The shards of a call.

    predictor: the model version that predicts.
    shards: all shards with existing photos, by source and digest.
    todo: the shards without predictions.
    n_new: photos that are new or changed since the last plan.
    n_gone: predictions of photos that were changed or removed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    predictor: Predictor
    shards: tuple[Shard, ...]
    todo: tuple[Shard, ...]
    n_new: int
    n_gone: int

    @property
    def n_photos(self) -> int:
        """Photos that exist now."""
        return sum(shard.n_photos for shard in self.shards)

    def __str__(self) -> str:
        return (
            f"predict_plan: {format_count(self.n_photos, 'photo')} in "
            f"{format_count(len(self.shards), 'shard')}, {self.n_new} of "
            f"them new; {format_count(len(self.todo), 'shard')} to predict"
        )


def plan(
    photos: Sequence[str],
    out: str,
    predictor: Predictor,
    shard_photos: int,
    ingest: IngestConfig = DEFAULT_INGEST,
) -> BatchPlan:
    """Write the plan of the photos to the output folder, and return it.

    Args:
        photos: folders, manifests with a column "image", single photos; local paths or URLs.
        out: folder of the predictions; local path or URL.
        predictor: the model version that will predict.
        shard_photos: maximum number of photos in a shard, >= 1.
        ingest: schemes and roots limit which photos a manifest may name.

    Raises:
        NoPhotos: a source does not exist or has no photos. Its plan is then not written.
        ManifestError: a manifest has no column "image", or a plan is damaged.
    """
    places = list(dict.fromkeys(absolute(place) for place in photos))
    folders = [place for place in places if is_source(place)]
    single = [place for place in places if place not in folders]
    sources = [*folders, *([NAMED] if single else [])]
    plans = []
    for source in sources:
        partition = OutputPartition(out=absolute(out), source=source, predictor=predictor)
        with open_index() as index:
            _list_photos(index, partition, single, ingest)
            plans.append(_plan_source(index, partition, shard_photos))
    return BatchPlan(
        predictor=predictor,
        shards=tuple(shard for each in plans for shard in each.shards),
        todo=tuple(shard for each in plans for shard in each.todo),
        n_new=sum(each.n_new for each in plans),
        n_gone=sum(each.n_gone for each in plans),
    )


def _plan_source(photos: Index, partition: OutputPartition, shard_photos: int) -> BatchPlan:
    planned = [
        _add_planned(photos, partition, number, digest)
        for number, digest in enumerate(partition.planned_digests())
    ]
    n_gone = _write_gone_rows(photos, partition, planned)
    new = [write_plan(partition, batch) for batch in photos.new_batches(shard_photos)]
    old = [
        partition.shard(shard.digest, shard.n_photos - n)
        for shard, n in zip(planned, n_gone, strict=True)
    ]
    shards = [shard for shard in (*old, *new) if shard.n_photos]
    predicted = set(list_digests(partition.predictions))
    return BatchPlan(
        predictor=partition.predictor,
        shards=tuple(shards),
        todo=tuple(shard for shard in shards if shard.digest not in predicted),
        n_new=sum(shard.n_photos for shard in new),
        n_gone=sum(n_gone),
    )


def _add_planned(photos: Index, partition: OutputPartition, number: int, digest: str) -> Shard:
    entries = read_plan(partition.shard(digest, 0))
    photos.add_planned(number, entries)
    return partition.shard(digest, len(entries))


def _write_gone_rows(photos: Index, partition: OutputPartition, planned: list[Shard]) -> list[int]:
    """Write the rows of changed and removed photos, and return their number for each shard."""
    written_before = set(list_digests(partition.gone))
    n_gone = [0] * len(planned)
    for number, rows in photos.gone_rows():
        write_gone(planned[number], rows)
        n_gone[number] = len(rows)
    for shard, n in zip(planned, n_gone, strict=True):
        if not n and shard.digest in written_before:  # its photos exist again
            write_gone(shard, [])
    return n_gone


def _list_photos(
    photos: Index, partition: OutputPartition, single: list[str], ingest: IngestConfig
) -> None:
    if partition.source == NAMED:
        _check_exists(single)
        photos.add_listed(stamped(single))
    else:
        photos.add_listed(walk(partition.source, ingest))
    if not photos.count_listed():
        raise NoPhotos(
            f"Expected photos in {partition.source}, got none. Photos are {PHOTO_FILES}."
        )


def _check_exists(single: list[str]) -> None:
    """Raise NoPhotos for a missing path without a photo's extension: probably a folder."""
    for place in single:
        suffix = os.path.splitext(place)[1].lower()
        if suffix not in PHOTO_EXTENSIONS and not is_url(place) and not os.path.lexists(place):
            raise NoPhotos(
                f"Expected photos at {place}, but it does not exist. Check the spelling, and that "
                "its disk is mounted."
            )
