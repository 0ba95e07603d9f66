"""New photos, labelled or not: which there are, what each is found to be, which cannot be read."""

import io
import warnings
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pandas as pd
from tqdm import tqdm

from regraft.core.config import IngestConfig
from regraft.core.errors import UnusablePhoto
from regraft.core.files import absolute
from regraft.data.ingest import n_cores, read_bytes
from regraft.data.ingest.facts import Facts
from regraft.data.ingest.manifest import is_manifest
from regraft.data.ingest.memory import recall, remembering
from regraft.data.ingest.sources import printable
from regraft.data.ingest.table import read_one
from regraft.drift.look import UNUSABLE
from regraft.evaluation.predict import list_photos

_NO_SLICES = ("image", "label", "split")  # columns of a manifest that mean something else


@dataclass(frozen=True)
class Gathered:
    """What lies at a place.

    photos: a row a usable photo: path, the columns of Facts, and "slice:NAME" of a manifest's; its
        column "group" keeps its name.
    unusable: path, reason, detail.
    """

    photos: pd.DataFrame
    unusable: pd.DataFrame


def gather(place: str, config: IngestConfig) -> Gathered:
    """The photos of a folder, searched to the bottom, or of a manifest with a column "image".

    What is broken is set aside and fails nothing.

    Args:
        place: local path or fsspec URL.
        config: its max_pixels, n_workers and memory_url count.

    Raises:
        NoPhotos, ManifestError: as list_photos().
    """
    paths = list_photos([place])
    known = recall(config.memory_url)

    def read(path: str) -> Facts | UnusablePhoto:
        return _facts(path, config.max_pixels, known)

    # Pillow warns of odd EXIF; the filter is process-wide, so it is set around the threads.
    with warnings.catch_warnings(), ThreadPoolExecutor(config.n_workers or n_cores()) as pool:
        warnings.simplefilter("ignore")
        shown = tqdm(pool.map(read, paths), "read", len(paths), disable=None, delay=2)
        results = list(remembering(shown, known, config.memory_url))
    slices = _slices(place, len(paths))
    rows = pd.DataFrame({"path": [printable(path) for path in paths]}).join(slices)
    is_usable = [isinstance(result, Facts) for result in results]
    facts = pd.DataFrame([one for one in results if isinstance(one, Facts)], columns=Facts._fields)
    errors = [
        (path, one.reason, one.detail)
        for path, one in zip(rows.path, results, strict=True)
        if isinstance(one, UnusablePhoto)
    ]
    return Gathered(
        photos=rows[is_usable].reset_index(drop=True).join(facts),
        unusable=pd.DataFrame(errors, columns=list(UNUSABLE), dtype=str),
    )


def _facts(path: str, max_pixels: int, known: Mapping[str, Facts]) -> Facts | UnusablePhoto:
    try:
        return read_one(path, max_pixels, known)
    except ValueError as error:  # no path or URL at all: a port of 99999, a zero byte
        return UnusablePhoto("unreadable", str(error))


def _slices(place: str, n_rows: int) -> pd.DataFrame:
    """The further columns of a manifest, which list_photos() has read before without complaint."""
    url = absolute(place)
    if not is_manifest(url):
        return pd.DataFrame(index=range(n_rows))
    data = io.BytesIO(read_bytes(url))
    if url.lower().endswith(".parquet"):
        table = pd.read_parquet(data)
    else:
        table = pd.read_csv(data, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    further = table.drop(columns=[name for name in _NO_SLICES if name in table.columns])
    text = further.astype(object).where(further.notna(), "").astype(str)
    named = {name: f"slice:{name}" for name in text.columns if name != "group"}
    return text.rename(columns=named).reset_index(drop=True)
