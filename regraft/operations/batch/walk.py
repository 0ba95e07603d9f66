"""Any number of photos, named one after the other: nobody ever holds the whole list."""

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
from regraft.data.ingest.sources import is_candidate
from regraft.data.ingest.walk import stamp_of, walk_files
from regraft.evaluation.predict import is_folder

_N_ROWS = 10_000  # of a manifest that are held at once
_N_ASKING = 16  # threads: behind a URL, asking is waiting. Guess


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
    files = filter(is_candidate, walk_files(place))
    yield from (Entry(os.fsencode(file.uri), file.stamp) for file in files)


def stamped(paths: list[str]) -> Iterator[Entry]:
    """Each of the photos with its stamp, in order."""
    if not any(is_url(path) for path in paths):  # threads would take ten times as long
        yield from (Entry(os.fsencode(path), stamp_of(path)) for path in paths)
        return
    with ThreadPoolExecutor(_N_ASKING) as pool:
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
