"""The embedding store: append-only shards, each named by the sha256 of its bytes.

<url>/<cache key digest>/cache_key.json       describes the rows; its time is the last use
<url>/<cache key digest>/<sha256>.safetensors the rows of some photos; its header lists them

There is no index that could become stale: the header of a shard lists its photos. Any number of
processes can add shards at the same time, a killed process leaves only complete shards, a damaged
shard no longer matches its name, and only shards with a requested photo are read completely.

The store is optional: if it cannot be read or written, a warning is logged and the photos count as
new.
"""

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from fsspec.implementations.local import LocalFileSystem
from fsspec.spec import AbstractFileSystem
from safetensors import SafetensorError

from regraft.core.files import (
    absolute,
    access_errors,
    filesystem,
    list_files,
    write_atomic,
    write_if_absent,
)
from regraft.model.embed.cache_key import CacheKey

if TYPE_CHECKING:
    from torch import Tensor

logger = logging.getLogger("regraft.embed")

# A killed run loses at most one shard; 5 MB of embeddings, 40 MB of values at a cut (lite0).
SHARD_PHOTOS = 2048
HEAD_BYTES = 65 * 2 * SHARD_PHOTOS + 4096  # start of a shard with its list of photos, 65 bytes each
CACHE_KEY_FILE = "cache_key.json"
SUFFIX = ".safetensors"
DAMAGES = (SafetensorError, ValueError, KeyError, TypeError)  # errors of reading a damaged file


@dataclass(frozen=True)
class Shard:
    """The rows (n, ...) of n photos, identified by the sha256 of their files."""

    photos: tuple[str, ...]
    rows: "Tensor"


@dataclass(frozen=True)
class EmbeddingPartition:
    """The rows of one cache key in a store; with url "" nothing is stored."""

    url: str
    cache_key: CacheKey

    @property
    def folder(self) -> str:
        """Return the folder of the shards."""
        return f"{absolute(self.url)}/{self.cache_key.digest}"

    def read(self, wanted: Iterable[str]) -> Iterator[Shard]:
        """Yield shards that together hold all stored rows of the wanted photos.

        A damaged shard is removed with a warning.

        Args:
            wanted: sha256 of the photos.
        """
        if not self.url:
            return
        missing = set(wanted)
        fs, _ = filesystem(self.folder)
        for path, photos in _listed(self.folder):
            if not missing.isdisjoint(photos) and (shard := _verified(fs, path, photos)):
                missing.difference_update(photos)
                yield shard

    def photos(self) -> set[str]:
        """Return the sha256 of all stored photos. Only the shards' headers are read."""
        heads = _listed(self.folder) if self.url else ()
        return {sha256 for _, photos in heads for sha256 in photos}

    def add(self, shard: Shard) -> Shard:
        """Store the shard and return the same rows, on disk if possible.

        A failure to write is logged as a warning.
        """
        if not self.url:
            return shard
        import safetensors.torch

        head = {"hashes": " ".join((self.cache_key.digest, *shard.photos))}
        data = safetensors.torch.save({"rows": shard.rows.contiguous()}, head)
        url = f"{self.folder}/{hashlib.sha256(data).hexdigest()}{SUFFIX}"
        try:
            write_if_absent(url, data)
        except access_errors() as error:
            logger.warning(
                "embed: %d photos cannot be stored in %s (%s): they will be computed again.",
                len(shard.photos),
                self.url,
                _error_text(error),
            )
            return shard
        fs, path = filesystem(url)
        # The system can reclaim the memory of mapped rows.
        is_local = isinstance(fs, LocalFileSystem)
        return (_verified(fs, path, shard.photos) if is_local else None) or shard

    def touch(self) -> None:
        """Record that the partition is used now; a read-only store keeps its times."""
        if self.url:
            try:
                write_atomic(
                    f"{self.folder}/{CACHE_KEY_FILE}", self.cache_key.model_dump_json().encode()
                )
            except access_errors() as error:
                logger.debug("embed: %s cannot be written (%s).", self.url, _error_text(error))


def photos_in(head: bytes, key: str) -> tuple[str, ...]:
    """Return the photos of a shard, in the order of its rows.

    Args:
        head: the shard's first HEAD_BYTES, or all of it.
        key: digest of the expected cache key.

    Raises:
        ValueError, KeyError, TypeError: the bytes are not the start of a shard with this cache key.
    """
    size = int.from_bytes(head[:8], "little")
    digest, *photos = json.loads(head[8 : 8 + size])["__metadata__"]["hashes"].split(" ")
    if digest != key:
        raise ValueError(f"it holds rows of another cache key, {digest[:12]}")
    return tuple(photos)


def discard(fs: AbstractFileSystem, path: str) -> bool:
    """Remove a file of the store. Return whether it is gone, also if another process removed it."""
    try:
        fs.rm_file(path)
    except FileNotFoundError:
        return True
    except access_errors() as error:
        logger.warning("embed: %s cannot be removed (%s).", path, _error_text(error))
        return False
    return True


def _listed(folder: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield the path and the photos of every shard in the folder, in the order of names."""
    try:
        fs, paths = list_files(folder, SUFFIX)
        heads = fs.cat_ranges(paths, 0, HEAD_BYTES, on_error="return")
    except access_errors() as error:
        logger.warning(
            "embed: %s cannot be read (%s): all photos are new.", folder, _error_text(error)
        )
        return
    key = PurePosixPath(folder).name
    for path, head in zip(paths, heads, strict=True):
        if isinstance(head, FileNotFoundError):  # evicted by another process
            continue
        if isinstance(head, Exception):
            logger.warning("embed: %s cannot be read (%s).", path, _error_text(head))
            continue
        try:
            yield path, photos_in(head, key)
        except DAMAGES as error:
            _remove_damaged(fs, path, error)


def _verified(fs: AbstractFileSystem, path: str, photos: tuple[str, ...]) -> Shard | None:
    """Return the shard at the path, memory-mapped if local; None if it is damaged or gone."""
    try:
        return Shard(photos, _rows_at(fs, path, len(photos)))
    except FileNotFoundError:  # evicted by another process
        return None
    except DAMAGES as error:
        _remove_damaged(fs, path, error)
    except access_errors() as error:
        logger.warning("embed: %s cannot be read (%s).", path, _error_text(error))
    return None


def _rows_at(fs: AbstractFileSystem, path: str, n_photos: int) -> "Tensor":
    import safetensors.torch

    if isinstance(fs, LocalFileSystem):
        with open(path, "rb") as file:
            _check_name(path, hashlib.file_digest(file, "sha256").hexdigest())
        rows: Tensor = safetensors.torch.load_file(path)["rows"]
    else:
        data = fs.cat_file(path)
        _check_name(path, hashlib.sha256(data).hexdigest())
        rows = safetensors.torch.load(data)["rows"]
    if len(rows) != n_photos:
        raise ValueError(f"it holds {len(rows)} rows of {n_photos} photos")
    return rows


def _check_name(path: str, sha256: str) -> None:
    if sha256 != PurePosixPath(path).stem:
        raise ValueError(f"its sha256 is {sha256}")


def _remove_damaged(fs: AbstractFileSystem, path: str, error: Exception) -> None:
    logger.warning(
        "embed: removed the damaged shard %s (%s): its photos will be computed again.",
        path,
        _error_text(error),
    )
    discard(fs, path)


def _error_text(error: Exception) -> str:
    text = error.strerror if isinstance(error, OSError) else ""
    return text or str(error) or type(error).__name__
