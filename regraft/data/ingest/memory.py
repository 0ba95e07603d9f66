"""The cache of facts about photos, in shards that are only ever added.

<url>/<code>/<sha256>.parquet   the facts of up to SHARD_PHOTOS contents, named by its own bytes

It is only a cache: a problem with it is logged, and the photos are decoded again. The folder name
contains the fingerprint of the code and of Pillow, so that facts of other versions are not used.
"""

import hashlib
import io
import logging
from collections.abc import Iterable, Iterator, Mapping
from pathlib import PurePosixPath

import pyarrow as pa
import pyarrow.parquet as pq

from regraft.core.errors import UnusablePhoto
from regraft.core.files import (
    absolute,
    access_errors,
    list_files,
    remove_if_exists,
    write_if_absent,
)
from regraft.data.ingest.code_fingerprint import DECODING_FILES, code_fingerprint
from regraft.data.ingest.facts import ImageFacts

CODE_FILES = (*DECODING_FILES, "data/ingest/facts.py")  # from a file's bytes to its facts
LIBRARIES = ("pillow", "imagehash")
SHARD_PHOTOS = 4096  # the most photos that a killed run may lose; about 1.5 MB

logger = logging.getLogger("regraft.ingest")


def load_facts(url: str) -> dict[str, ImageFacts]:
    """Return the cached facts by sha256; damaged shards are removed and logged.

    Args:
        url: the folder of the cache, local path or fsspec URL; "" = no cache.

    Raises:
        ConfigError: no file system supports this kind of URL.
    """
    if not url:
        return {}
    known: dict[str, ImageFacts] = {}
    try:
        fs, paths = list_files(_folder(url), ".parquet")
        for path in paths:
            try:
                known |= {facts.sha256: facts for facts in _read_shard(fs.cat_file(path), path)}
            except (ValueError, pa.ArrowException) as error:
                logger.warning("ingest: removed a damaged shard of cached facts: %s", error)
                remove_if_exists(fs, path)
    except access_errors() as error:
        logger.warning("ingest: cannot read %s (%s); all photos are decoded again.", url, error)
    return known


def save_new_facts(
    results: Iterable[ImageFacts | UnusablePhoto], known: Mapping[str, ImageFacts], url: str
) -> Iterator[ImageFacts | UnusablePhoto]:
    """Yield the results unchanged, and add new facts to the cache.

    The reason why a photo is unusable is not cached, because it may be temporary (out of memory) or
    depend on a limit in the configuration.

    Args:
        results: facts or errors of photos.
        known: the cached facts by sha256.
        url: as in load_facts(); "" = no cache, nothing is written.
    """
    new: dict[str, ImageFacts] = {}
    for result in results:
        if isinstance(result, ImageFacts) and result.sha256 not in known:
            new[result.sha256] = result
        if len(new) == SHARD_PHOTOS:
            _write_shard(url, new.values())
            new = {}
        yield result
    _write_shard(url, new.values())


def _write_shard(url: str, new: Iterable[ImageFacts]) -> None:
    rows = [facts._asdict() for facts in sorted(new)]
    if not url or not rows:
        return
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), buffer)
    data = buffer.getvalue()
    name = hashlib.sha256(data).hexdigest()
    try:
        write_if_absent(f"{_folder(url)}/{name}.parquet", data)
    except access_errors() as error:
        logger.warning("ingest: cannot write %s (%s).", url, error)


def _folder(url: str) -> str:
    return f"{absolute(url)}/{code_fingerprint(CODE_FILES, LIBRARIES)}"


def _read_shard(data: bytes, path: str) -> list[ImageFacts]:
    """Return the facts in a shard.

    Raises:
        ValueError, ArrowException: the content does not match the file name.
    """
    if hashlib.sha256(data).hexdigest() != PurePosixPath(path).stem:
        raise ValueError(f"the content of {path} does not match its name")
    return [ImageFacts(**row) for row in pq.read_table(io.BytesIO(data)).to_pylist()]
