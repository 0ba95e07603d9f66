"""New photos, labelled or not: their paths, their facts, and the unusable ones."""

import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pandas as pd
from tqdm import tqdm

from regraft.core.config import IngestConfig
from regraft.core.errors import UnusablePhoto
from regraft.data.ingest import n_cores
from regraft.data.ingest.facts import ImageFacts
from regraft.data.ingest.manifest import NamedPhoto
from regraft.data.ingest.memory import load_facts, save_new_facts
from regraft.data.ingest.row_locations import log_missing_drivers
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
        config: max_pixels, n_workers, memory_url, schemes and roots are used.

    Raises:
        NoPhotos, ManifestError: as list_photos().
    """
    listed = list_photos([place], config, all_columns=True)
    stored = load_facts(config.memory_url)

    def read(photo: NamedPhoto) -> ImageFacts | UnusablePhoto:
        return photo.error or read_facts(photo.place, config.max_pixels, stored)

    # Pillow warns of odd EXIF; the filter is process-wide, so it is set around the threads.
    with warnings.catch_warnings(), ThreadPoolExecutor(config.n_workers or n_cores()) as pool:
        warnings.simplefilter("ignore")
        read_photos = tqdm(pool.map(read, listed), "read", len(listed), disable=None, delay=2)
        results = list(save_new_facts(read_photos, stored, config.memory_url))
    log_missing_drivers(result for result in results if isinstance(result, UnusablePhoto))
    rows = pd.DataFrame({"path": [printable(photo.place) for photo in listed]})
    rows = rows.join(_slices(listed))
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


def _slices(listed: Sequence[NamedPhoto]) -> pd.DataFrame:
    """Return the further columns of a manifest; a malformed row has empty cells."""
    names = dict.fromkeys(name for photo in listed for name in photo.cells)
    further = [name for name in names if name not in _NO_SLICES]
    rows = [[photo.cells.get(name, "") for name in further] for photo in listed]
    columns = [name if name == "group" else f"slice:{name}" for name in further]
    return pd.DataFrame(rows, columns=columns, index=range(len(listed)), dtype=str)
