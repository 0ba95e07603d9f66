"""The contents of an embedding store, and the eviction of the least recently used rows."""

import re
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import PurePosixPath

from fsspec.spec import AbstractFileSystem

from regraft.core.files import absolute, access_errors, filesystem
from regraft.model.embed.cache_key import CacheKey
from regraft.model.embed.store import (
    CACHE_KEY_FILE,
    DAMAGES,
    HEAD_BYTES,
    SUFFIX,
    discard,
    photos_in,
)

# The folder may hold other files, which are neither counted nor removed. ".part" marks a file whose
# writer is still at work or was killed.
_STORE_FILE = re.compile(
    rf"(.*/[0-9a-f]{{64}})/(?:[0-9a-f]{{64}}{SUFFIX}|{CACHE_KEY_FILE})(?:\.\w+\.part)?"
)


@dataclass(frozen=True)
class PartitionUse:
    """The size and the last use of a partition of the store.

    cache_key: None if another version of Regraft wrote it. files: sizes in bytes by path.
    used: time of the last use.
    """

    folder: str
    cache_key: CacheKey | None
    files: dict[str, int]
    used: datetime

    @property
    def n_bytes(self) -> int:
        """Return the total size in bytes."""
        return sum(self.files.values())


def contents(url: str) -> list[PartitionUse]:
    """Return the partitions of the store, the most recently used first.

    Args:
        url: of the store; an empty or missing folder has no partitions.

    Raises:
        OSError, or another of access_errors(): the store cannot be read.
    """
    fs, root = filesystem(absolute(url))
    fs.invalidate_cache(root)
    partitions: dict[str, dict[str, int]] = {}
    for path, file in fs.find(root, maxdepth=2, detail=True).items():
        if match := _STORE_FILE.fullmatch(path):
            partitions.setdefault(match[1], {})[path] = int(file["size"])
    uses = [_partition_use(fs, folder, files) for folder, files in partitions.items()]
    return sorted(uses, key=lambda partition: partition.used, reverse=True)


def count_photos(url: str, partition: PartitionUse) -> int:
    """Return how many photos have a row in the partition. Only the shards' headers are read."""
    fs, _ = filesystem(absolute(url))
    paths = [path for path in partition.files if path.endswith(SUFFIX)]
    photos: set[str] = set()
    for head in fs.cat_ranges(paths, 0, HEAD_BYTES, on_error="return"):
        with suppress(*DAMAGES):  # reported and removed when its rows are read
            photos.update(photos_in(head, PurePosixPath(partition.folder).name))
    return len(photos)


def evict_lru(url: str, max_bytes: float) -> int:
    """Remove the least recently used files until the rest fits. Return the number of freed bytes.

    Args:
        url: of the store.
        max_bytes: the size limit, >= 0.

    Raises:
        OSError, or another of access_errors(): the store cannot be read.
    """
    fs, _ = filesystem(absolute(url))
    partitions = contents(url)
    excess = sum(partition.n_bytes for partition in partitions) - max_bytes
    freed = 0
    for partition in reversed(partitions):
        for path, n_bytes in sorted(partition.files.items(), key=_eviction_rank):
            if freed >= excess and (excess <= 0 or not path.endswith(CACHE_KEY_FILE)):
                return freed  # the cache key of an empty partition is removed too
            freed += n_bytes if discard(fs, path) else 0
        # rmdir, not a recursive removal: another process may be writing to the folder.
        with suppress(*access_errors()):
            fs.rmdir(partition.folder)
    return freed


def _eviction_rank(file: tuple[str, int]) -> int:
    """Return the eviction order of a file: unfinished files first, the cache key last."""
    path, _ = file
    return 0 if path.endswith(".part") else 1 if path.endswith(SUFFIX) else 2


def _partition_use(fs: AbstractFileSystem, folder: str, files: dict[str, int]) -> PartitionUse:
    path = f"{folder}/{CACHE_KEY_FILE}"
    cache_key, used = None, datetime.min.replace(tzinfo=UTC)
    with suppress(
        *access_errors(), NotImplementedError
    ):  # just evicted, or the file system has no times
        modified = fs.modified(path if path in files else next(iter(files)))
        used = modified if modified.tzinfo else modified.replace(tzinfo=UTC)
    with suppress(*access_errors(), ValueError):  # just evicted, or written by another version
        cache_key = CacheKey.model_validate_json(fs.cat_file(path))
    return PartitionUse(folder, cache_key, files, used)
