"""Which photos are answered together: a plan that is only ever added to.

A photo stays in the shard that it was given for as long as it is what it was then. So a call with
three shards' worth of new photos has three shards to answer, and one with no new photo has none.
"""

import os
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from regraft.core.errors import NoPhotos
from regraft.core.files import absolute, is_url
from regraft.data.ingest.sources import EXTENSIONS
from regraft.operations.batch.folder import (
    Answerer,
    Shard,
    Shelf,
    digests_in,
    read_plan,
    write_gone,
    write_plan,
)
from regraft.operations.batch.index import Index, index
from regraft.operations.batch.walk import is_source, stamped, walk

NAMED = ""  # the source of photos that are named one by one


class BatchPlan(BaseModel):
    """What a call has to answer, and what is answered already.

    answerer: what answers.
    shards: of all the photos that are there, by source and digest.
    todo: those of them whose answers are not there.
    n_new: photos that no earlier plan had as they are.
    n_gone: answers about photos that are there no longer, or no longer as they were.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    answerer: Answerer
    shards: tuple[Shard, ...]
    todo: tuple[Shard, ...]
    n_new: int
    n_gone: int

    @property
    def n_photos(self) -> int:
        """Photos that are there."""
        return sum(shard.n_photos for shard in self.shards)

    def __str__(self) -> str:
        return (
            f"predict_plan: {self.n_photos} photos in {len(self.shards)} shards, {self.n_new} of "
            f"them new; {len(self.todo)} shards to answer"
        )


def plan(photos: Sequence[str], out: str, answerer: Answerer, shard_photos: int) -> BatchPlan:
    """The shards of the photos, written down in the out folder.

    Args:
        photos: folders, manifests with a column "image", single photos; local paths or URLs.
        out: folder of the answers; local path or URL.
        answerer: what will answer.
        shard_photos: at most so many photos a shard, >= 1.

    Raises:
        NoPhotos: a source has no photo, or is not there. Nothing is written about it then.
        ManifestError: a manifest without a column "image", or a plan that is damaged.
    """
    places = list(dict.fromkeys(absolute(place) for place in photos))
    folders = [place for place in places if is_source(place)]
    single = [place for place in places if place not in folders]
    sources = [*folders, *([NAMED] if single else [])]
    plans = []
    for source in sources:
        shelf = Shelf(out=absolute(out), source=source, answerer=answerer)
        plans.append(_plan(shelf, single, shard_photos))
    return BatchPlan(
        answerer=answerer,
        shards=tuple(shard for one in plans for shard in one.shards),
        todo=tuple(shard for one in plans for shard in one.todo),
        n_new=sum(one.n_new for one in plans),
        n_gone=sum(one.n_gone for one in plans),
    )


def _plan(shelf: Shelf, single: list[str], shard_photos: int) -> BatchPlan:
    with index() as photos:
        _list(photos, shelf, single)
        known = [_remembered(photos, shelf, *one) for one in enumerate(shelf.planned())]
        n_gone = _tell_gone(photos, shelf, known)
        new = [write_plan(shelf, few) for few in photos.new(shard_photos)]
    old = [shelf.shard(one.digest, one.n_photos - n) for one, n in zip(known, n_gone, strict=True)]
    shards = [shard for shard in (*old, *new) if shard.n_photos]
    answered = set(digests_in(shelf.answers))
    return BatchPlan(
        answerer=shelf.answerer,
        shards=tuple(shards),
        todo=tuple(shard for shard in shards if shard.digest not in answered),
        n_new=sum(shard.n_photos for shard in new),
        n_gone=sum(n_gone),
    )


def _remembered(photos: Index, shelf: Shelf, number: int, digest: str) -> Shard:
    entries = read_plan(shelf.shard(digest, 0))
    photos.remember(number, entries)
    return shelf.shard(digest, len(entries))


def _tell_gone(photos: Index, shelf: Shelf, known: list[Shard]) -> list[int]:
    """Writes down which photos have gone; how many of each shard."""
    told_before = set(digests_in(shelf.gone))
    n_gone = [0] * len(known)
    for number, rows in photos.gone():
        write_gone(known[number], rows)
        n_gone[number] = len(rows)
    for shard, n in zip(known, n_gone, strict=True):
        if not n and shard.digest in told_before:  # its photos are back
            write_gone(shard, [])
    return n_gone


def _list(photos: Index, shelf: Shelf, single: list[str]) -> None:
    if shelf.source == NAMED:
        _refuse_missing(single)
        photos.see(stamped(single))
    else:
        photos.see(walk(shelf.source))
    if not photos.n_listed():
        raise NoPhotos(
            f"Expected photos in {shelf.source}, found none. Photos are files ending in "
            f"{', '.join(sorted(EXTENSIONS))}."
        )


def _refuse_missing(single: list[str]) -> None:
    """A place that is not there and has no photo's name is a folder mistyped, or not mounted."""
    for place in single:
        suffix = os.path.splitext(place)[1].lower()
        if suffix not in EXTENSIONS and not is_url(place) and not os.path.lexists(place):
            raise NoPhotos(
                f"Expected photos at {place}, found nothing there. Check the spelling, and that "
                "its disk is mounted."
            )
