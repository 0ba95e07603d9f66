"""New photos, labelled or not: their paths, their facts, and the unusable ones."""

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
from regraft.data.ingest.facts import ImageFacts
from regraft.data.ingest.manifest import is_manifest
from regraft.data.ingest.memory import load_facts, save_new_facts
from regraft.data.ingest.sources import printable
from regraft.data.ingest.table import read_facts
from regraft.drift.detect import UNUSABLE
from regraft.evaluation.predict import list_photos

_NO_SLICES = ("image", "label", "split")  # columns of a manifest with another meaning


@dataclass(frozen=True)
class Gathered:
    """The photos at a place.

    photos: a row a usable photo: path, the columns of ImageFacts, and "slice:NAME" for each further
        column of a manifest; its column "group" keeps its name.
    unusable: path, reason, detail.
    """

    photos: pd.DataFrame
    unusable: pd.DataFrame


def gather(place: str, config: IngestConfig) -> Gathered:
    """Return the photos of a folder, searched recursively, or of a manifest with a column "image".

    An unusable photo raises nothing: it is listed with its reason.

    Args:
        place: local path or fsspec URL.
        config: max_pixels, n_workers and memory_url are used.

    Raises:
        NoPhotos, ManifestError: as list_photos().
    """
    paths = list_photos([place])
    stored = load_facts(config.memory_url)

    def read(path: str) -> ImageFacts | UnusablePhoto:
        return _facts(path, config.max_pixels, stored)

    # Pillow warns of odd EXIF; the filter is process-wide, so it is set around the threads.
    with warnings.catch_warnings(), ThreadPoolExecutor(config.n_workers or n_cores()) as pool:
        warnings.simplefilter("ignore")
        read_photos = tqdm(pool.map(read, paths), "read", len(paths), disable=None, delay=2)
        results = list(save_new_facts(read_photos, stored, config.memory_url))
    slices = _slices(place, len(paths))
    rows = pd.DataFrame({"path": [printable(path) for path in paths]}).join(slices)
    is_usable = [isinstance(result, ImageFacts) for result in results]
    usable = [result for result in results if isinstance(result, ImageFacts)]
    errors = [
        (path, result.reason, result.detail)
        for path, result in zip(rows.path, results, strict=True)
        if isinstance(result, UnusablePhoto)
    ]
    facts = pd.DataFrame(usable, columns=ImageFacts._fields)
    return Gathered(
        photos=rows[is_usable].reset_index(drop=True).join(facts),
        unusable=pd.DataFrame(errors, columns=list(UNUSABLE), dtype=str),
    )


def _facts(
    path: str, max_pixels: int, stored: Mapping[str, ImageFacts]
) -> ImageFacts | UnusablePhoto:
    try:
        return read_facts(path, max_pixels, stored)
    except ValueError as error:  # neither a path nor a URL: a port of 99999, a zero byte
        return UnusablePhoto("unreadable", str(error))


def _slices(place: str, n_rows: int) -> pd.DataFrame:
    """Return the further columns of a manifest that list_photos() has read without an error."""
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
    new_names = {name: f"slice:{name}" for name in text.columns if name != "group"}
    return text.rename(columns=new_names).reset_index(drop=True)
