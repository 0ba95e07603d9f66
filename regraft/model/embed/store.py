"""The store of rows: shards that are only ever added to, named by the hash of their bytes.

<url>/<recipe key>/recipe.json          what the rows of this shelf are; its time is the last use
<url>/<recipe key>/<sha256>.safetensors the rows of some photos; its header says of which photos

There is no index to go stale: a shard says itself what it holds, in its first bytes. So any number
of writers may add at once, a killed one leaves whole shards, a shard with a flipped bit no longer
has its name, and only shards that hold a photo that is asked for are read to their end.

The store is a help, never a condition: where it cannot be read or written, that is said, and the
photos count as new.
"""

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

import safetensors.torch
from fsspec.implementations.local import LocalFileSystem
from fsspec.spec import AbstractFileSystem
from safetensors import SafetensorError
from torch import Tensor

from regraft.core.files import absolute, access_errors, filesystem, listed, write_once, write_whole
from regraft.model.embed.recipe import Recipe

logger = logging.getLogger("regraft.embed")

SHARD_PHOTOS = 2048  # what a killed run may lose; 5 MB of embeddings, 40 MB at a boundary (lite0)
HEAD_BYTES = 65 * 2 * SHARD_PHOTOS + 4096  # of a shard, read to know its photos: 65 bytes each
RECIPE_FILE = "recipe.json"
SUFFIX = ".safetensors"
DAMAGES = (SafetensorError, ValueError, KeyError, TypeError)  # what reading broken bytes raises


@dataclass(frozen=True)
class Shard:
    """The rows (n, ...) of n photos, by the sha256 of their files."""

    photos: tuple[str, ...]
    rows: Tensor


@dataclass(frozen=True)
class Shelf:
    """The part of a store that holds one recipe's rows; with "" as url nothing is kept."""

    url: str
    recipe: Recipe

    @property
    def folder(self) -> str:
        """Where its shards lie."""
        return f"{absolute(self.url)}/{self.recipe.key}"

    def read(self, wanted: Iterable[str]) -> Iterator[Shard]:
        """Shards that together hold all rows of the wanted photos that are kept.

        A damaged shard is removed, and said so.

        Args:
            wanted: photos, by sha256.
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
        """Whose rows are kept, by sha256; only the heads of the shards are read."""
        heads = _listed(self.folder) if self.url else ()
        return {sha256 for _, photos in heads for sha256 in photos}

    def add(self, shard: Shard) -> Shard:
        """Keeps the shard: the same rows, on disk if that worked; if not, it is only said."""
        if not self.url:
            return shard
        head = {"hashes": " ".join((self.recipe.key, *shard.photos))}
        data = safetensors.torch.save({"rows": shard.rows.contiguous()}, head)
        url = f"{self.folder}/{hashlib.sha256(data).hexdigest()}{SUFFIX}"
        try:
            write_once(url, data)
        except access_errors() as error:
            logger.warning(
                "embed: %d photos cannot be kept in %s (%s): they will be computed again.",
                *(len(shard.photos), self.url, _said(error)),
            )
            return shard
        fs, path = filesystem(url)
        # Mapped, the rows take no memory that the system cannot have back.
        is_local = isinstance(fs, LocalFileSystem)
        return (_verified(fs, path, shard.photos) if is_local else None) or shard

    def touch(self) -> None:
        """Marks the shelf as used now; a store that may only be read keeps its times."""
        if self.url:
            try:
                write_whole(f"{self.folder}/{RECIPE_FILE}", self.recipe.model_dump_json().encode())
            except access_errors() as error:
                logger.debug("embed: %s cannot be written (%s).", self.url, _said(error))


def photos_in(head: bytes, key: str) -> tuple[str, ...]:
    """The photos whose rows a shard holds, in order.

    Args:
        head: the shard's first HEAD_BYTES, or all of it.
        key: of the recipe that the rows have to be of.

    Raises:
        ValueError, KeyError, TypeError: it does not begin as a shard of this recipe.
    """
    size = int.from_bytes(head[:8], "little")
    recipe, *photos = json.loads(head[8 : 8 + size])["__metadata__"]["hashes"].split(" ")
    if recipe != key:
        raise ValueError(f"it holds rows of another recipe, {recipe[:12]}")
    return tuple(photos)


def discard(fs: AbstractFileSystem, path: str) -> bool:
    """Removes a file of the store: whether it is gone, through whomever."""
    try:
        fs.rm_file(path)
    except FileNotFoundError:
        return True
    except access_errors() as error:
        logger.warning("embed: %s cannot be removed (%s).", path, _said(error))
        return False
    return True


def _listed(folder: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Every shard of the folder, in the order of names, and its photos."""
    try:
        fs, paths = listed(folder, SUFFIX)
        heads = fs.cat_ranges(paths, 0, HEAD_BYTES, on_error="return")
    except access_errors() as error:
        logger.warning("embed: %s cannot be read (%s): all photos are new.", folder, _said(error))
        return
    key = PurePosixPath(folder).name
    for path, head in zip(paths, heads, strict=True):
        if isinstance(head, FileNotFoundError):  # another process made room meanwhile
            continue
        if isinstance(head, Exception):
            logger.warning("embed: %s cannot be read (%s).", path, _said(head))
            continue
        try:
            yield path, photos_in(head, key)
        except DAMAGES as error:
            _remove_damaged(fs, path, error)


def _verified(fs: AbstractFileSystem, path: str, photos: tuple[str, ...]) -> Shard | None:
    """The shard at the path, mapped if it is a local file; None if it is not whole or is gone."""
    try:
        return Shard(photos, _rows_at(fs, path, len(photos)))
    except FileNotFoundError:  # another process made room meanwhile
        return None
    except DAMAGES as error:
        _remove_damaged(fs, path, error)
    except access_errors() as error:
        logger.warning("embed: %s cannot be read (%s).", path, _said(error))
    return None


def _rows_at(fs: AbstractFileSystem, path: str, n_photos: int) -> Tensor:
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
        "embed: removed the damaged %s (%s): its photos are computed again.", path, _said(error)
    )
    discard(fs, path)


def _said(error: Exception) -> str:
    text = error.strerror if isinstance(error, OSError) else ""
    return text or str(error) or type(error).__name__
