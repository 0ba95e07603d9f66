"""The output folder of batch prediction: predictions are only added, with plans beside them.

<out>/name=NAME/version=7/content=<hash>/<shard>.parquet   the predictions of a shard
<out>/_plan/<content>/<source>/<shard>.parquet             the photos of a shard: path, stamp
<out>/_gone/<content>/<source>/<shard>.parquet             the outdated rows of a shard: row, path
<out>/_writing/                                            unfinished files, kept for a day

content: hash of the predictor, 16 hex digits, so that predictions of two models called NAME/7, or
of two thresholds, are never mixed. source: hash of the folder's or the manifest's path, 16 hex
digits. Readers of a folder of Parquet files skip names that begin with "_".
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
from regraft.core.files import (
    access_errors,
    filesystem,
    list_files,
    read_if_exists,
    remove_if_exists,
    write_atomic,
    write_if_absent,
)
from regraft.operations.batch.walk import Entry

SUFFIX = ".parquet"
_N_HEX = 16
_DAY_S = 86_400
_PLANNED = pa.schema([("path", pa.binary()), ("stamp", pa.string())])
_GONE = pa.schema([("row", pa.int32()), ("path", pa.binary())])
_SHARD_FILE = re.compile(rf"[0-9a-f]{{64}}{re.escape(SUFFIX)}")


class Predictor(BaseModel):
    """A model version with its abstention threshold.

    abstain_below: minimum confidence of a prediction, in [0, 1].
    content: hash of everything that determines a prediction.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    version: int
    abstain_below: float
    content: str

    @property
    def reference(self) -> str:
        """NAME/VERSION, as in the output of `regraft predict`."""
        return f"{self.name}/{self.version}"


class Shard(BaseModel):
    """A group of photos that is predicted in one step.

    digest: hash of its photos, their stamps, their source and the predictor; the name of its files.
    plan_url, predictions_url, gone_url: its files.
    n_photos: photos that are unchanged since the planning; 0 = its predictions are not needed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    digest: str
    plan_url: str
    predictions_url: str
    gone_url: str
    n_photos: int


class OutputPartition(BaseModel):
    """The part of an output folder with one source and one predictor."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    out: str
    source: str
    predictor: Predictor

    @property
    def plans(self) -> str:
        """The folder of the plans."""
        return f"{self.out}/_plan/{self._subfolder}"

    @property
    def gone(self) -> str:
        """The folder of the lists of outdated rows."""
        return f"{self.out}/_gone/{self._subfolder}"

    @property
    def predictions(self) -> str:
        """The folder of the predictions."""
        predictor, content = self.predictor, self.predictor.content[:_N_HEX]
        return f"{self.out}/name={predictor.name}/version={predictor.version}/content={content}"

    def shard(self, digest: str, n_photos: int) -> Shard:
        """Return the shard with this digest."""
        file = f"{digest}{SUFFIX}"
        return Shard(
            digest=digest,
            plan_url=f"{self.plans}/{file}",
            predictions_url=f"{self.predictions}/{file}",
            gone_url=f"{self.gone}/{file}",
            n_photos=n_photos,
        )

    def planned_digests(self) -> list[str]:
        """Return the digests of the planned shards, sorted."""
        return list_digests(self.plans)

    def digest(self, entries: Sequence[Entry]) -> str:
        """Return the digest of a shard with these photos."""
        parts = [self.predictor.content.encode(), os.fsencode(self.source)]
        for path, stamp in entries:
            parts += [path.hex().encode(), stamp.encode()]
        return hashlib.sha256(b"\0".join(parts)).hexdigest()

    @property
    def _subfolder(self) -> str:
        source = hashlib.sha256(os.fsencode(self.source)).hexdigest()
        return f"{self.predictor.content[:_N_HEX]}/{source[:_N_HEX]}"


def list_digests(folder: str) -> list[str]:
    """Return the digests of the shards that have a file in the folder, sorted.

    Raises:
        StateError: the folder cannot be read.
    """
    with _wrap_access_errors(folder):
        _, paths = list_files(folder, SUFFIX)
    names = (path.rpartition("/")[2] for path in paths)
    return [name.removesuffix(SUFFIX) for name in names if _SHARD_FILE.fullmatch(name)]


def write_plan(partition: OutputPartition, entries: Sequence[Entry]) -> Shard:
    """Write the plan of a shard with these photos, and return the shard.

    Raises:
        StateError: the plan cannot be written.
    """
    shard = partition.shard(partition.digest(entries), len(entries))
    columns = [[path for path, _ in entries], [stamp for _, stamp in entries]]
    with _wrap_access_errors(shard.plan_url):
        write_if_absent(shard.plan_url, encode_parquet(pa.table(columns, schema=_PLANNED)))
    return shard


def read_plan(shard: Shard) -> list[Entry]:
    """Return the photos of a shard, in order.

    Raises:
        ManifestError: the file is damaged.
    """
    try:
        table = pq.read_table(io.BytesIO(read_bytes(shard.plan_url)), schema=_PLANNED)
    except (pa.ArrowException, ValueError) as error:
        raise ManifestError(
            f"Expected a batch plan in {shard.plan_url}, got something else ({error}). "
            f"Delete this file and {shard.predictions_url}; the photos are then planned again."
        ) from None
    return [Entry(*pair) for pair in zip(*table.to_pydict().values(), strict=True)]


def write_gone(shard: Shard, gone: Sequence[tuple[int, bytes]]) -> None:
    """Write the outdated rows of the shard.

    Args:
        gone: distinct (row, path) pairs of photos that were changed or removed; empty deletes the
            file.

    Raises:
        StateError: the file cannot be written.
    """
    fs, path = filesystem(shard.gone_url)
    with _wrap_access_errors(shard.gone_url):
        if not gone:
            remove_if_exists(fs, path)
            return
        rows, paths = zip(*gone, strict=True)
        data = encode_parquet(pa.table([list(rows), list(paths)], schema=_GONE))
        if read_if_exists(shard.gone_url) != data:
            write_atomic(shard.gone_url, data)


def read_gone(shard: Shard) -> list[int]:
    """Return the outdated rows of the shard; empty if there is no file."""
    content = read_if_exists(shard.gone_url)
    if content is None:
        return []
    table = pq.read_table(io.BytesIO(content), columns=["row"])
    return [int(row) for row in table.column(0).to_pylist()]


def write_predictions(shard: Shard, table: pa.Table) -> None:
    """Write the predictions of the shard atomically; an existing file stays as it is.

    Raises:
        StateError: the file cannot be written.
    """
    fs, path = filesystem(shard.predictions_url)
    with _wrap_access_errors(shard.predictions_url):
        if not isinstance(fs, LocalFileSystem):
            write_if_absent(shard.predictions_url, encode_parquet(table))
            return
        # Readers take every file in the folder as a part of the table, so none may be partial.
        out = shard.predictions_url.rpartition("/name=")[0]
        part = f"{out}/_writing/{shard.digest}-{uuid4().hex}{SUFFIX}"
        write_atomic(part, encode_parquet(table))
        fs.makedirs(path.rpartition("/")[0], exist_ok=True)
        if fs.exists(path):
            os.unlink(part)
        else:
            os.replace(part, path)


def clear_unfinished(out: str, now: datetime) -> None:
    """Delete unfinished files of killed processes that are older than a day.

    Newer files stay, because another process may still write them.

    Args:
        now: with a time zone.
    """
    fs, path = filesystem(f"{out}/_writing")
    if not isinstance(fs, LocalFileSystem) or not fs.exists(path):
        return
    for part in fs.ls(path, detail=False):
        with suppress(OSError):  # deleted by another call, or owned by another user
            if now.timestamp() - os.stat(part).st_mtime > _DAY_S:
                os.unlink(part)


def file_exists(url: str) -> bool:
    """Return whether the file exists."""
    fs, path = filesystem(url)
    return bool(fs.exists(path))


def read_bytes(url: str) -> bytes:
    """Return the content of a file."""
    fs, path = filesystem(url)
    return bytes(fs.cat_file(path))


def encode_parquet(table: pa.Table) -> bytes:
    """Return the table as the bytes of a Parquet file."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


@contextmanager
def _wrap_access_errors(url: str) -> Iterator[None]:
    try:
        yield
    except access_errors() as error:
        raise StateError(
            f"Expected to read and write {url}, got: {error}. Free some space, correct the "
            "permissions, or choose another folder with --out; existing predictions stay valid."
        ) from None
