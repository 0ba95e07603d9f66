"""Any number of photos, named one after the other: nobody ever holds the whole list."""

import io
import os
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from regraft.errors import ManifestError, NoPhotos
from regraft.files import access_errors, filesystem, is_url
from regraft.ingest.manifest import is_manifest
from regraft.ingest.sources import Found, is_candidate
from regraft.predict import is_folder

MISSING = "missing"  # the stamp of a photo that is named, and not there
_N_ROWS = 10_000  # of a manifest that are held at once
_N_ASKING = 16  # threads: behind a URL, asking is waiting. Guess

Above = frozenset[tuple[int, int]]


class Entry(NamedTuple):
    """A photo, and what changes when it does.

    path: local path or fsspec URL, as the file system's bytes: a name need not be UTF-8.
    stamp: never read as anything but text.
    """

    path: bytes
    stamp: str


def is_source(place: str) -> bool:
    """Whether a place holds photos, rather than being one.

    Args:
        place: as `absolute` gives it.
    """
    return is_manifest(place) or is_folder(place)


def walk(place: str) -> Iterator[Entry]:
    """The photos in a folder, to the bottom, or in a manifest with a column "image".

    In no order, and a photo that a manifest names twice comes twice. Of a folder, what `predict`
    would pass over is passed over.

    Args:
        place: as `absolute` gives it.

    Raises:
        NoPhotos: no such manifest.
        ManifestError: it is no table, or has no column "image".
    """
    if is_manifest(place):
        yield from _manifest(place)
        return
    files = _remote(place) if is_url(place) else _local(place)
    yield from (Entry(os.fsencode(file.uri), file.stamp) for file in files if is_candidate(file))


def stamped(paths: list[str]) -> Iterator[Entry]:
    """Each of the photos with its stamp, in order."""
    if not any(is_url(path) for path in paths):  # threads would take ten times as long
        yield from (Entry(os.fsencode(path), _stamp(path)) for path in paths)
        return
    with ThreadPoolExecutor(_N_ASKING) as pool:
        for path, stamp in zip(paths, pool.map(_stamp, paths), strict=True):
            yield Entry(os.fsencode(path), stamp)


def _local(root: str) -> Iterator[Found]:
    pending: list[tuple[str, tuple[str, ...], Above]] = [(root, (), frozenset())]
    while pending:
        folder, parts, above = pending.pop()
        try:
            state = os.stat(folder)
            here = above | {(state.st_dev, state.st_ino)}
            with os.scandir(folder) as names:
                for name in names:
                    found = _found(name, parts)
                    if isinstance(found, Found):
                        yield found
                    elif found and found not in here:  # else a link has led back up
                        pending.append((name.path, (*parts, name.name), here))
        except OSError as error:
            yield Found((*parts, ""), folder, f"{error.strerror}", "a folder that cannot be read")


def _found(name: "os.DirEntry[str]", parts: tuple[str, ...]) -> Found | tuple[int, int] | None:
    """A file; of a folder its identity; None for a socket and the like."""
    try:
        state = name.stat()
    except OSError:  # a dangling or looping link: named, and found missing when it is read
        return Found((*parts, name.name), name.path, MISSING)
    if stat.S_ISREG(state.st_mode):
        return Found((*parts, name.name), name.path, f"{state.st_size}:{state.st_mtime_ns}")
    return (state.st_dev, state.st_ino) if stat.S_ISDIR(state.st_mode) else None


def _remote(root: str) -> Iterator[Found]:
    fs, top = filesystem(root)
    fs.invalidate_cache(top)
    for folder, _, files in fs.walk(top, detail=True):
        below = folder.removeprefix(top).strip("/")
        parts = tuple(below.split("/")) if below else ()
        for name, info in files.items():
            yield Found((*parts, name), fs.unstrip_protocol(info["name"]), _told(info))
        fs.invalidate_cache(folder)  # else it remembers every folder it has seen


def _told(info: dict[str, Any]) -> str:
    return str(sorted(info.items(), key=str))


def _manifest(place: str) -> Iterator[Entry]:
    folder = place.rpartition("/")[0]
    try:
        for images in _images(place):
            yield from stamped(
                [
                    image if is_url(image) or os.path.isabs(image) else f"{folder}/{image}"
                    for image in images
                ]
            )
    except access_errors() as error:
        raise NoPhotos(f"Expected a manifest at {place}: {error}. Check the path.") from None
    except (ValueError, pa.ArrowException) as error:  # pandas' parser errors are ValueErrors
        raise ManifestError(f"{place} is no table with a header: {error}. Save it anew.") from None


def _images(place: str) -> Iterator[list[str]]:
    """The manifest's column, some thousand rows at a time."""
    fs, path = filesystem(place)
    with fs.open(path, "rb") as file:
        if place.lower().endswith(".parquet"):
            table = pq.ParquetFile(file)
            _check_columns(place, table.schema_arrow.names)
            for batch in table.iter_batches(_N_ROWS, columns=["image"]):
                yield [str(image) for image in batch.column(0).to_pylist()]
            return
        text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
        for chunk in pd.read_csv(text, dtype=str, keep_default_na=False, chunksize=_N_ROWS):
            _check_columns(place, list(map(str, chunk.columns)))
            yield chunk.image.tolist()


def _check_columns(place: str, names: list[str]) -> None:
    if "image" not in names:
        found = ",".join(names)
        raise ManifestError(f"Expected a column image in {place}, got {found}. Rename the column.")


def _stamp(path: str) -> str:
    try:
        if is_url(path):
            fs, inner = filesystem(path)
            return str(fs.ukey(inner))
        state = os.stat(path)
    except access_errors():
        return MISSING
    except ValueError:  # no path or URL at all: a port of 99999, a zero byte
        return MISSING
    return f"{state.st_size}:{state.st_mtime_ns}"
