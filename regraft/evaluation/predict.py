"""Predictions for photos as a table: the label, its confidence, or why a photo is unusable."""

import hashlib
import io
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import MappingProxyType
from urllib.parse import urlsplit

import numpy as np
import pandas as pd
from torch import Tensor
from tqdm import tqdm

from regraft.core.config import EmbedConfig, IngestConfig
from regraft.core.errors import ConfigError, NoPhotos, UnusablePhoto
from regraft.core.files import absolute, filesystem, location_errors, write_atomic
from regraft.core.spreadsheet import csv_text
from regraft.data.ingest import n_cores, read_bytes
from regraft.data.ingest.formats import PHOTO_EXTENSIONS
from regraft.data.ingest.manifest import DEFAULT_INGEST, NamedPhoto, is_manifest, manifest_photos
from regraft.data.ingest.row_locations import log_missing_drivers
from regraft.data.ingest.sources import PHOTO_FILES, printable, select_photos
from regraft.data.ingest.walk import find_files
from regraft.model.card import UNSURE, Card
from regraft.model.classifier import ImageClassifier
from regraft.model.embed import (
    NO_STORE,
    head_scores,
    judging_compute,
    probabilities,
    spec_for,
    try_embeddings_for,
)
from regraft.model.pixels import Photo

FORMATS = (".parquet", ".csv", ".json")


def predict(
    classifier: ImageClassifier,
    sources: Sequence[str],
    model: str = "",
    store: EmbedConfig = NO_STORE,
    ingest: IngestConfig = DEFAULT_INGEST,
) -> pd.DataFrame:
    """Return a row a photo, in the order of the sources; an unusable photo has an error text.

    Args:
        classifier: the model.
        sources: photos, folders (searched recursively) or manifests with a column "image"; local
            paths or fsspec URLs.
        model: its name and version, for a column "model"; "" = no such column.
        store: of embeddings; known photos are not decoded, new embeddings are written.
        ingest: schemes and roots limit which photos a manifest may name.

    Returns:
        path, label, confidence in [0, 1], "prob:CLASS" for each class in order, error ("" = none).
        The label may be UNSURE, see prediction_table(). With an error, the label is empty and the
        numbers are missing.

    Raises:
        NoPhotos: the sources hold no photo, or a folder does not exist.
        ManifestError: a manifest is no table, or lacks the column "image".
    """
    photos = list_photos(sources, ingest)
    refused = {at: photo.error for at, photo in enumerate(photos) if photo.error}
    paths = [photo.place for photo in photos]
    table = predict_paths(classifier, paths, store, refused).drop(columns="sha256")
    return table.assign(model=model) if model else table


def predict_paths(
    classifier: ImageClassifier,
    paths: Sequence[str],
    store: EmbedConfig = NO_STORE,
    refused: Mapping[int, UnusablePhoto] = MappingProxyType({}),
) -> pd.DataFrame:
    """Return the table of predict() for photos that are listed already.

    Args:
        refused: positions in paths that are not opened, with the reason.

    Returns:
        path, sha256 of the file ("" if it cannot be opened), then the columns of predict().
    """

    def open_photo(at: int) -> Photo | UnusablePhoto:
        return refused[at] if at in refused else _photo(paths[at])

    at_all = range(len(paths))
    with ThreadPoolExecutor(n_cores()) as pool:
        opened = list(tqdm(pool.map(open_photo, at_all), "read", len(paths), disable=None, delay=2))
    log_missing_drivers(photo for photo in opened if isinstance(photo, UnusablePhoto))
    photos = [photo for photo in opened if isinstance(photo, Photo)]
    spec = spec_for(classifier, judging_compute(), max_pixels_of(classifier.card))
    embeddings = try_embeddings_for(spec, photos, store)
    errors = [_error(photo, embeddings.refused) for photo in opened]
    usable = [at for at, error in enumerate(errors) if not error]
    scores = head_scores(classifier, embeddings.rows)  # (N, K)
    table = prediction_table(scores, classifier.card).set_axis(usable, axis=0)
    table = table.reindex(range(len(paths)))
    table["label"] = table.label.astype(object).where(table.label.notna(), "").astype(str)
    table.insert(0, "path", [printable(path) for path in paths])
    table.insert(1, "sha256", [p.sha256 if isinstance(p, Photo) else "" for p in opened])
    return table.assign(error=errors)


def list_photos(
    sources: Sequence[str], ingest: IngestConfig = DEFAULT_INGEST, *, all_columns: bool = False
) -> list[NamedPhoto]:
    """Return the photos in the order of the sources; a folder's are sorted by path.

    Files in a folder that ingest ignores are left out: hidden files, files of the operating system,
    and non-images. An unreachable URL counts as a photo. An unusable row of
    a manifest is a photo with an error.

    Args:
        ingest: schemes and roots are used.
        all_columns: whether all cells of a manifest are read.

    Raises:
        NoPhotos: there is no photo.
        ManifestError: a manifest without a column "image".
    """
    photos = [photo for source in sources for photo in _photos_of(source, ingest, all_columns)]
    if not photos:
        raise NoPhotos(
            f"Expected photos in {', '.join(sources) or 'the sources'}, got none. Photos are "
            f"{PHOTO_FILES}."
        )
    return photos


def is_folder(place: str) -> bool:
    """Return whether the place is a folder; False if it cannot be reached.

    Args:
        place: as returned by absolute().
    """
    web = place.startswith(
        ("http://", "https://")
    )  # has no folders; a request would read a whole page
    try:
        if web and _extension(urlsplit(place).path) in PHOTO_EXTENSIONS:
            return False
        files, path = filesystem(place)
        return bool(files.isdir(path))
    except location_errors():
        return False  # reported in the photo's row when it is read


def prediction_table(scores: Tensor, card: Card) -> pd.DataFrame:
    """Return the predictions for logits.

    Args:
        scores: (N, K) logits, before the temperature.
        card: its temperature divides the logits. Below the confidence abstain_below the label is
            UNSURE.

    Returns:
        label, confidence of the most probable class, "prob:CLASS" for each class in order; N rows.
    """
    probs = probabilities(scores, card.temperature)  # (N, K)
    classes = np.array(card.classes, dtype=object)[probs.argmax(dim=1).numpy()]  # (N,)
    confidence = probs.amax(dim=1).numpy()  # (N,)
    labels = np.where(confidence < card.abstain_below, UNSURE, classes).tolist()
    table = pd.DataFrame({"label": labels, "confidence": confidence})
    columns = [f"prob:{name}" for name in card.classes]
    return pd.concat([table, pd.DataFrame(probs.numpy(), columns=columns)], axis=1)


def with_abstention(classifier: ImageClassifier, below: float) -> ImageClassifier:
    """Return the classifier with another threshold, below which its label is UNSURE.

    Args:
        below: confidence in [0, 1]; 0 = every photo gets a class.

    Raises:
        ConfigError: a class is named UNSURE.
    """
    if below and UNSURE in classifier.card.classes:
        raise ConfigError(
            f"Expected no class named {UNSURE!r}, because this is the label of photos below the "
            f"confidence {below:.3g}. Rename the class, or set predict.abstain_below and "
            "predict.target_risk to 0."
        )
    return classifier.with_card(abstain_below=below)


def max_pixels_of(card: Card) -> int:
    """Return the largest allowed number of pixels of a photo: the limit of the model's training."""
    return int(card.config.get("ingest.max_pixels", IngestConfig().max_pixels))


def check_format(url: str) -> None:
    """Raise an error if write_predictions() cannot write to the URL.

    Args:
        url: local path or fsspec URL.

    Raises:
        ConfigError: its extension is not in FORMATS.
    """
    if _extension(url) not in FORMATS:
        raise ConfigError(
            f"Expected a file ending in {', '.join(FORMATS)} for the predictions, got {url!r}."
        )


def write_predictions(table: pd.DataFrame, url: str) -> None:
    """Write the table as a file, atomically; the extension selects the format.

    Args:
        table: from predict().
        url: local path or fsspec URL ending in .parquet, .csv or .json (a list of rows).

    Raises:
        ConfigError: its extension is not in FORMATS.
    """
    check_format(url)
    write_atomic(absolute(url), _encoded(table, _extension(url)))


def _photos_of(source: str, ingest: IngestConfig, all_columns: bool) -> list[NamedPhoto]:
    place = absolute(source)
    if is_manifest(place):
        return list(manifest_photos(place, ingest, all_columns=all_columns))
    if not is_folder(place):
        return [NamedPhoto(place)]
    return [NamedPhoto(file.uri) for file in select_photos(find_files(place))]


def _extension(place: str) -> str:
    return os.path.splitext(place)[1].lower()


def _photo(path: str) -> Photo | UnusablePhoto:
    try:
        return Photo(path, hashlib.sha256(read_bytes(path)).hexdigest())
    except UnusablePhoto as error:
        return UnusablePhoto(error.reason, f"{error.detail} (in {path})")


def _error(photo: Photo | UnusablePhoto, refused: dict[str, UnusablePhoto]) -> str:
    error = photo if isinstance(photo, UnusablePhoto) else refused.get(photo.sha256)
    return str(error or "")


def _encoded(table: pd.DataFrame, extension: str) -> bytes:
    if extension == ".parquet":
        buffer = io.BytesIO()
        table.to_parquet(buffer, index=False)
        return buffer.getvalue()
    if extension == ".csv":
        return csv_text(table).encode()
    return table.to_json(orient="records", indent=1).encode()
