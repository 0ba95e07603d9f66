"""Iterators over any number of photos, which never hold the whole list in memory."""

import io
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from regraft.core.errors import ManifestError, NoPhotos
from regraft.core.files import access_errors, filesystem, is_url
from regraft.data.ingest.manifest import is_manifest
from regraft.data.ingest.sources import select_photos
from regraft.data.ingest.walk import stamp_of, walk_files
from regraft.evaluation.predict import is_folder

_N_ROWS = 10_000  # rows of a manifest in memory at a time; guess
_N_THREADS = 16  # for stamps of remote photos, which take a request each; guess


class Entry(NamedTuple):
    """A photo and its stamp.

    path: local path or fsspec URL, as the file system's bytes, because a name need not be UTF-8.
    stamp: an opaque text that changes when the photo changes.
    """

    path: bytes
    stamp: str


def is_source(place: str) -> bool:
    """Return whether a path is a folder or a manifest, and not a single photo.

    Args:
        place: result of `absolute`.
    """
    return is_manifest(place) or is_folder(place)


def walk(place: str) -> Iterator[Entry]:
    """Yield the photos in a folder (recursively), or in a manifest with a column "image".

    The order is arbitrary, and duplicates in a manifest are yielded as often as they occur. Files
    that `regraft predict` skips in a folder are skipped.

    Args:
        place: result of `absolute`.

    Raises:
        NoPhotos: the manifest does not exist.
        ManifestError: the manifest is no table, or has no column "image".
    """
    if is_manifest(place):
        yield from _manifest(place)
        return
    files = select_photos(walk_files(place))
    yield from (Entry(os.fsencode(file.uri), file.stamp) for file in files)


def stamped(paths: list[str]) -> Iterator[Entry]:
    """Yield the photos with their stamps, in order."""
    if not any(is_url(path) for path in paths):  # for local files, threads take ten times as long
        yield from (Entry(os.fsencode(path), stamp_of(path)) for path in paths)
        return
    with ThreadPoolExecutor(_N_THREADS) as pool:
        for path, stamp in zip(paths, pool.map(stamp_of, paths), strict=True):
            yield Entry(os.fsencode(path), stamp)


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
        raise ManifestError(
            f"Expected a table with a header in {place}, got: {error}. Save it again."
        ) from None


def _images(place: str) -> Iterator[list[str]]:
    """Yield the column "image" of the manifest, _N_ROWS rows at a time."""
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
        got = ",".join(names)
        raise ManifestError(f"Expected a column image in {place}, got {got}. Rename the column.")
