"""What each content was found to be before: shards that are only ever added to.

<url>/<code>/<sha256>.parquet   the facts of up to SHARD_PHOTOS contents, named by its own bytes

It is a cache and nothing more: whatever is wrong with it is said, and the photos are decoded again.
Another code or another Pillow is another folder, so that no fact outlives what made it.
"""

import hashlib
import io
import logging
from collections.abc import Iterable, Iterator, Mapping
from pathlib import PurePosixPath

import pyarrow as pa
import pyarrow.parquet as pq

from regraft.core.errors import UnusablePhoto
from regraft.core.files import absolute, access_errors, listed, write_once
from regraft.data.ingest.facts import Facts
from regraft.data.ingest.maker import code_hash

ROOMS = ("data/ingest/decode.py", "data/ingest/facts.py")  # between a file's bytes and its facts
LIBRARIES = ("pillow", "imagehash")
SHARD_PHOTOS = 4096  # what a killed run may lose; about 1.5 MB

logger = logging.getLogger("regraft.ingest")


def recall(url: str) -> dict[str, Facts]:
    """What is remembered, by sha256; a damaged shard is removed and said so.

    Args:
        url: the memory's folder, local path or fsspec URL; "" = no memory, nothing.

    Raises:
        ConfigError: no file system knows this kind of URL.
    """
    if not url:
        return {}
    known: dict[str, Facts] = {}
    try:
        fs, paths = listed(_folder(url), ".parquet")
        for path in paths:
            try:
                known |= {facts.sha256: facts for facts in _unpacked(fs.cat_file(path), path)}
            except (ValueError, pa.ArrowException) as error:
                logger.warning("ingest: removed a damaged memory of photos, %s", error)
                fs.rm_file(path)
    except access_errors() as error:
        logger.warning("ingest: %s cannot be read (%s): photos are decoded anew.", url, error)
    return known


def remembering(
    results: Iterable[Facts | UnusablePhoto], known: Mapping[str, Facts], url: str
) -> Iterator[Facts | UnusablePhoto]:
    """The results unchanged; what was not known is added to the memory as they pass by.

    Why a photo is unusable is not kept: it may have been for want of memory, or by a limit.

    Args:
        url: as in recall; "" = no memory, nothing is written.
    """
    new: dict[str, Facts] = {}
    for result in results:
        if isinstance(result, Facts) and result.sha256 not in known:
            new[result.sha256] = result
        if len(new) == SHARD_PHOTOS:
            _remember(url, new.values())
            new = {}
        yield result
    _remember(url, new.values())


def _remember(url: str, new: Iterable[Facts]) -> None:
    rows = [facts._asdict() for facts in sorted(new)]
    if not url or not rows:
        return
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), buffer)
    data = buffer.getvalue()
    name = hashlib.sha256(data).hexdigest()
    try:
        write_once(f"{_folder(url)}/{name}.parquet", data)
    except access_errors() as error:
        logger.warning("ingest: %s cannot be written (%s).", url, error)


def _folder(url: str) -> str:
    return f"{absolute(url)}/{code_hash(ROOMS, LIBRARIES)}"


def _unpacked(data: bytes, path: str) -> list[Facts]:
    """The facts in a shard.

    Raises:
        ValueError, ArrowException: it is not what was written under that name.
    """
    if hashlib.sha256(data).hexdigest() != PurePosixPath(path).stem:
        raise ValueError(f"{path} does not hold what its name says")
    return [Facts(**row) for row in pq.read_table(io.BytesIO(data)).to_pylist()]
