"""Where a batch's files lie: answers that are only ever added to, and what belongs to them.

<out>/name=NAME/version=7/content=<hash>/<shard>.parquet   the answers about the photos of a shard
<out>/_plan/<content>/<source>/<shard>.parquet             which photos those are: path, stamp
<out>/_gone/<content>/<source>/<shard>.parquet             which of them are so no longer: row, path
<out>/_writing/                                            what killed ones wrote, for a day

content: of what answers, 16 hex digits: two models called NAME/7, or one with two thresholds, are
never mixed. source: of the folder's or the manifest's place, 16 hex digits. What begins with "_" is
passed over by whatever reads a folder of Parquet files as one table.
"""

import hashlib
import io
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem
from pydantic import BaseModel, ConfigDict

from regraft.core.errors import ManifestError, StateError
from regraft.core.files import access_errors, filesystem, listed, write_once, write_whole
from regraft.operations.batch.walk import Entry

SUFFIX = ".parquet"
_N_HEX = 16
_DAY_S = 86_400
_PLANNED = pa.schema([("path", pa.binary()), ("stamp", pa.string())])
_GONE = pa.schema([("row", pa.int32()), ("path", pa.binary())])
_OURS = re.compile(rf"[0-9a-f]{{64}}{re.escape(SUFFIX)}")


class Answerer(BaseModel):
    """What answers: a version of a model, as unsure as it was asked to be.

    abstain_below: least confidence of an answer, in [0, 1].
    content: hash of all that decides an answer.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    version: int
    abstain_below: float
    content: str

    @property
    def called(self) -> str:
        """As `predict` calls it."""
        return f"{self.name}/{self.version}"


class Shard(BaseModel):
    """Some photos that are answered together.

    digest: of its photos, their stamps, their source and what answers; the name of its files.
    plan_url, answers_url, gone_url: where these are.
    n_photos: that are as they were when it was planned; 0 = nobody needs its answers.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    digest: str
    plan_url: str
    answers_url: str
    gone_url: str
    n_photos: int


class Shelf(BaseModel):
    """The part of an out folder that is about one source and one answerer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    out: str
    source: str
    answerer: Answerer

    @property
    def plans(self) -> str:
        """The folder of its plans."""
        return f"{self.out}/_plan/{self._mine}"

    @property
    def gone(self) -> str:
        """The folder of what has gone."""
        return f"{self.out}/_gone/{self._mine}"

    @property
    def answers(self) -> str:
        """The folder of the answers."""
        who = self.answerer
        return f"{self.out}/name={who.name}/version={who.version}/content={who.content[:_N_HEX]}"

    def shard(self, digest: str, n_photos: int) -> Shard:
        """The shard of this digest."""
        places = [f"{at}/{digest}{SUFFIX}" for at in (self.plans, self.answers, self.gone)]
        plan, answers, gone = places
        urls = {"plan_url": plan, "answers_url": answers, "gone_url": gone}
        return Shard(digest=digest, n_photos=n_photos, **urls)

    def planned(self) -> list[str]:
        """The digests of the shards that are planned, sorted."""
        return digests_in(self.plans)

    def digest(self, entries: Sequence[Entry]) -> str:
        """The name of a shard of these photos."""
        parts = [self.answerer.content.encode(), os.fsencode(self.source)]
        for path, stamp in entries:
            parts += [path.hex().encode(), stamp.encode()]
        return hashlib.sha256(b"\0".join(parts)).hexdigest()

    @property
    def _mine(self) -> str:
        source = hashlib.sha256(os.fsencode(self.source)).hexdigest()
        return f"{self.answerer.content[:_N_HEX]}/{source[:_N_HEX]}"


def digests_in(folder: str) -> list[str]:
    """The digests of the shards that have a file in the folder, sorted.

    Raises:
        StateError: it cannot be read.
    """
    with _usable(folder):
        _, paths = listed(folder, SUFFIX)
    names = (path.rpartition("/")[2] for path in paths)
    return [name.removesuffix(SUFFIX) for name in names if _OURS.fullmatch(name)]


def write_plan(shelf: Shelf, entries: Sequence[Entry]) -> Shard:
    """The shard of these photos, planned.

    Raises:
        StateError: it cannot be written.
    """
    shard = shelf.shard(shelf.digest(entries), len(entries))
    columns = [[path for path, _ in entries], [stamp for _, stamp in entries]]
    with _usable(shard.plan_url):
        write_once(shard.plan_url, encoded(pa.table(columns, schema=_PLANNED)))
    return shard


def read_plan(shard: Shard) -> list[Entry]:
    """The photos of a shard, in order.

    Raises:
        ManifestError: the file is not what was written.
    """
    try:
        table = pq.read_table(io.BytesIO(read(shard.plan_url)), schema=_PLANNED)
    except (pa.ArrowException, ValueError) as error:
        raise ManifestError(
            f"Expected a plan of Regraft's in {shard.plan_url}, got something else ({error}). "
            f"Delete that file and {shard.answers_url}: its photos are planned anew."
        ) from None
    return [Entry(*pair) for pair in zip(*table.to_pydict().values(), strict=True)]


def write_gone(shard: Shard, gone: Sequence[tuple[int, bytes]]) -> None:
    """Says which rows of the shard are no longer so: (row, path) pairs, none of them twice.

    Raises:
        StateError: it cannot be written.
    """
    fs, path = filesystem(shard.gone_url)
    with _usable(shard.gone_url):
        if not gone:
            with suppress(FileNotFoundError):  # another call was faster
                fs.rm_file(path)
            return
        rows, paths = zip(*gone, strict=True)
        data = encoded(pa.table([list(rows), list(paths)], schema=_GONE))
        if not (fs.exists(path) and fs.cat_file(path) == data):
            write_whole(shard.gone_url, data)


def read_gone(shard: Shard) -> list[int]:
    """The rows of the shard that are no longer so; none where nothing is written."""
    fs, path = filesystem(shard.gone_url)
    if not fs.exists(path):
        return []
    table = pq.read_table(io.BytesIO(read(shard.gone_url)), columns=["row"])
    return [int(row) for row in table.column(0).to_pylist()]


def write_answers(shard: Shard, table: pa.Table) -> None:
    """The answers about the shard, whole; if they are there already, they stay.

    Raises:
        StateError: they cannot be written.
    """
    fs, path = filesystem(shard.answers_url)
    with _usable(shard.answers_url):
        if not isinstance(fs, LocalFileSystem):
            write_once(shard.answers_url, encoded(table))
            return
        # Nothing half written may lie where a reader takes all that it finds for a table.
        out = shard.answers_url.rpartition("/name=")[0]
        part = f"{out}/_writing/{shard.digest}-{uuid4().hex}{SUFFIX}"
        write_whole(part, encoded(table))
        fs.makedirs(path.rpartition("/")[0], exist_ok=True)
        if fs.exists(path):
            os.unlink(part)
        else:
            os.replace(part, path)


def clear_unfinished(out: str, now: datetime) -> None:
    """Removes what a killed process was writing; a day old, for others may write now.

    Args:
        now: with a zone.
    """
    fs, path = filesystem(f"{out}/_writing")
    if not isinstance(fs, LocalFileSystem) or not fs.exists(path):
        return
    for part in fs.ls(path, detail=False):
        with suppress(OSError):  # another call was faster, or it is somebody else's
            if now.timestamp() - os.stat(part).st_mtime > _DAY_S:
                os.unlink(part)


def exists(url: str) -> bool:
    """Whether there is a file."""
    fs, path = filesystem(url)
    return bool(fs.exists(path))


def read(url: str) -> bytes:
    """The bytes of a file."""
    fs, path = filesystem(url)
    return bytes(fs.cat_file(path))


def encoded(table: pa.Table) -> bytes:
    """The table as a Parquet file."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


@contextmanager
def _usable(url: str) -> Iterator[None]:
    try:
        yield
    except access_errors() as error:
        raise StateError(
            f"Expected to read and write {url}, got: {error}. Free some space or mend the "
            "permissions there, or choose another place with --out; what is answered stays."
        ) from None
