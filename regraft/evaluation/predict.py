"""Predictions for photos as a table: the label, its confidence, or why a photo is unusable."""

import hashlib
import io
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import numpy as np
import pandas as pd
import pyarrow as pa
from torch import Tensor
from tqdm import tqdm

from regraft.core.config import EmbedConfig, IngestConfig
from regraft.core.errors import ConfigError, ManifestError, NoPhotos, UnusablePhoto
from regraft.core.files import absolute, access_errors, filesystem, is_url, write_atomic
from regraft.core.spreadsheet import csv_text
from regraft.data.ingest import n_cores, read_bytes
from regraft.data.ingest.formats import PHOTO_EXTENSIONS
from regraft.data.ingest.manifest import is_manifest
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
) -> pd.DataFrame:
    """Return a row a photo, in the order of the sources; an unusable photo has an error text.

    Args:
        classifier: the model.
        sources: photos, folders (searched recursively) or manifests with a column "image"; local
            paths or fsspec URLs.
        model: its name and version, for a column "model"; "" = no such column.
        store: of embeddings; known photos are not decoded, new embeddings are written.

    Returns:
        path, label, confidence in [0, 1], "prob:CLASS" for each class in order, error ("" = none).
        The label may be UNSURE, see prediction_table(). With an error, the label is empty and the
        numbers are missing.

    Raises:
        NoPhotos: the sources hold no photo, or a folder does not exist.
        ManifestError: a manifest without a column "image".
    """
    table = predict_paths(classifier, list_photos(sources), store).drop(columns="sha256")
    return table.assign(model=model) if model else table


def predict_paths(
    classifier: ImageClassifier, paths: Sequence[str], store: EmbedConfig = NO_STORE
) -> pd.DataFrame:
    """Return the table of predict() for photos that are listed already.

    Returns:
        path, sha256 of the file ("" if it cannot be opened), then the columns of predict().
    """
    with ThreadPoolExecutor(n_cores()) as pool:
        opened = list(tqdm(pool.map(_photo, paths), "read", len(paths), disable=None, delay=2))
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


def list_photos(sources: Sequence[str]) -> list[str]:
    """Return the paths of the photos in the order of the sources; a folder's are sorted by path.

    Files in a folder that ingest ignores are left out: hidden files, files of the operating system,
    and non-images. An unreachable URL counts as a photo.

    Raises:
        NoPhotos: there is no photo.
        ManifestError: a manifest without a column "image".
    """
    paths = [path for source in sources for path in _photos_of(source)]
    if not paths:
        raise NoPhotos(
            f"Expected photos in {', '.join(sources) or 'the sources'}, got none. Photos are "
            f"{PHOTO_FILES}."
        )
    return paths


def is_folder(place: str) -> bool:
    """Return whether the place is a folder; False if it cannot be reached.

    Args:
        place: as returned by absolute().
    """
    files, path = filesystem(place)
    web = place.startswith(
        ("http://", "https://")
    )  # has no folders; a request would read a whole page
    try:
        if web and _extension(urlsplit(place).path) in PHOTO_EXTENSIONS:
            return False
        return bool(files.isdir(path))
    except ValueError:  # not a URL
        return False
    except access_errors():  # reported in the photo's row when it is read
        return False


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


def _photos_of(source: str) -> list[str]:
    place = absolute(source)
    if is_manifest(place):
        return _manifest_photos(place)
    if not is_folder(place):
        return [place]
    return [file.uri for file in select_photos(find_files(place))]


def _extension(place: str) -> str:
    return os.path.splitext(place)[1].lower()


def _manifest_photos(place: str) -> list[str]:
    table = _read_manifest(place)
    if "image" not in table.columns:
        columns = ",".join(map(str, table.columns))
        raise ManifestError(
            f"Expected a column image in {place}, got {columns}. Rename the column."
        )
    folder = place.rpartition("/")[0]
    return [
        image if is_url(image) or os.path.isabs(image) else f"{folder}/{image}"
        for image in table.image
    ]


def _read_manifest(place: str) -> pd.DataFrame:
    """Return the table as text; unlike a training manifest, it needs no labels."""
    try:
        data = io.BytesIO(read_bytes(place))
        if place.lower().endswith(".parquet"):
            return pd.read_parquet(data)
        return pd.read_csv(data, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except UnusablePhoto as error:
        raise NoPhotos(f"Expected a manifest at {place}: {error.detail}. Check the path.") from None
    except (ValueError, pa.ArrowException) as error:  # pandas' parser errors are ValueErrors
        raise ManifestError(
            f"Expected a table with a header in {place}, got: {error}. Save the file again."
        ) from None


def _photo(path: str) -> Photo | UnusablePhoto:
    try:
        return Photo(path, hashlib.sha256(read_bytes(path)).hexdigest())
    except UnusablePhoto as error:
        return UnusablePhoto(error.reason, f"{error.detail} (in {path})")
    except ValueError as error:  # neither a path nor a URL: a port of 99999, a zero byte
        return UnusablePhoto("unreadable", f"{error} (in {path})")


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
