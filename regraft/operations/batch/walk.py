"""Iterators over any number of photos, which never hold the whole list in memory."""

import itertools
import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from regraft.core.config import IngestConfig
from regraft.core.errors import UnusablePhoto
from regraft.core.files import is_url
from regraft.data.ingest.manifest import DEFAULT_INGEST, is_manifest, manifest_photos
from regraft.data.ingest.sources import select_photos
from regraft.data.ingest.walk import stamp_of, walk_files
from regraft.evaluation.predict import is_folder

_N_ROWS = 1000  # rows of a manifest in memory at a time; guess
_REFUSED = "refused: "  # beginning of a stamp; no stamp of a file begins so
_N_THREADS = 16  # for stamps of remote photos, which take a request each; guess


class Entry(NamedTuple):
    """A photo and its stamp.

    path: local path or fsspec URL, as the file system's bytes, because a name need not be UTF-8.
    stamp: an opaque text that changes when the photo changes. For an unusable row of a manifest,
        path is its cell, or the row, and the stamp contains the reason, see refusals().
    """

    path: bytes
    stamp: str


def is_source(place: str) -> bool:
    """Return whether a path is a folder or a manifest, and not a single photo.

    Args:
        place: result of `absolute`.
    """
    return is_manifest(place) or is_folder(place)


def walk(place: str, ingest: IngestConfig = DEFAULT_INGEST) -> Iterator[Entry]:
    """Yield the photos in a folder (recursively), or in a manifest with a column "image".

    The order is arbitrary, and duplicates in a manifest are yielded as often as they occur. Files
    that `regraft predict` skips in a folder are skipped.

    Args:
        place: result of `absolute`.
        ingest: schemes and roots limit which photos a manifest may name.

    Raises:
        NoPhotos: the manifest does not exist.
        ManifestError: the manifest is no table, or has no column "image".
    """
    if is_manifest(place):
        yield from _manifest(place, ingest)
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


def refusals(entries: Sequence[Entry]) -> dict[int, UnusablePhoto]:
    """Return the reasons of the entries that must not be opened, by position."""
    stamps = {at: stamp for at, (_, stamp) in enumerate(entries) if stamp.startswith(_REFUSED)}
    return {at: UnusablePhoto(*json.loads(stamp[len(_REFUSED) :])) for at, stamp in stamps.items()}


def _manifest(place: str, ingest: IngestConfig) -> Iterator[Entry]:
    photos = manifest_photos(place, ingest)
    while several := list(itertools.islice(photos, _N_ROWS)):
        yield from stamped([photo.place for photo in several if not photo.error])
        for photo in several:
            if error := photo.error:
                stamp = _REFUSED + json.dumps((error.reason, error.detail))
                yield Entry(os.fsencode(photo.place), stamp)
