"""Photos in, a table of answers out: the label, how sure, or why the photo cannot be read."""

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
from regraft.core.files import absolute, access_errors, filesystem, is_url, write_whole
from regraft.data.ingest import n_cores, read_bytes
from regraft.data.ingest.manifest import is_manifest
from regraft.data.ingest.sources import EXTENSIONS, is_candidate, printable
from regraft.data.ingest.walk import find_files
from regraft.model.classifier import UNSURE, Card, ImageClassifier
from regraft.model.embed import (
    NO_STORE,
    find_rows,
    head_scores,
    judging_compute,
    passage,
    probabilities,
)
from regraft.model.pixels import Photo

FORMATS = (".parquet", ".csv", ".json")


def predict(
    classifier: ImageClassifier,
    sources: Sequence[str],
    model: str = "",
    store: EmbedConfig = NO_STORE,
) -> pd.DataFrame:
    """A row a photo, in the order of the sources; a photo that cannot be read says why.

    Args:
        classifier: the model that is asked.
        sources: photos, folders (searched to the bottom) or manifests with a column "image"; local
            paths or fsspec URLs.
        model: its name and version, kept in a column "model"; "" = no such column.
        store: where a photo's numbers may already be, and are kept.

    Returns:
        path, label, confidence in [0, 1], "prob:CLASS" for each class in order, error ("" = none).
        The label may be UNSURE, see answers(). With an error it is empty and the numbers are
        missing.

    Raises:
        NoPhotos: nothing to read in the sources, or no such folder.
        ManifestError: a manifest without a column "image".
    """
    table = label(classifier, list_photos(sources), store).drop(columns="sha256")
    return table.assign(model=model) if model else table


def label(
    classifier: ImageClassifier, paths: Sequence[str], store: EmbedConfig = NO_STORE
) -> pd.DataFrame:
    """As predict(), for photos that are listed already.

    Returns:
        path, sha256 of the file ("" if it cannot be opened), then what predict() says.
    """
    with ThreadPoolExecutor(n_cores()) as pool:
        read = list(tqdm(pool.map(_photo, paths), "read", len(paths), disable=None, delay=2))
    photos = [one for one in read if isinstance(one, Photo)]
    way = passage(classifier, judging_compute(), max_pixels_of(classifier.card))
    found = find_rows(way, photos, store)
    errors = [_error(one, found.refused) for one in read]
    usable = [at for at, error in enumerate(errors) if not error]
    table = answers(head_scores(classifier, found.rows), classifier.card).set_axis(usable, axis=0)
    table = table.reindex(range(len(paths)))
    table["label"] = table.label.astype(object).where(table.label.notna(), "").astype(str)
    table.insert(0, "path", [printable(path) for path in paths])
    table.insert(1, "sha256", [one.sha256 if isinstance(one, Photo) else "" for one in read])
    return table.assign(error=errors)


def list_photos(sources: Sequence[str]) -> list[str]:
    """The photos that the sources name, in their order; a folder's sorted by path.

    In a folder, what ingest would ignore is passed over: hidden files, a system's litter, and
    files that are no photos by their extension. A URL that cannot be asked counts as a photo.

    Raises:
        NoPhotos: there is none.
        ManifestError: a manifest without a column "image".
    """
    paths = [path for source in sources for path in _photos_of(source)]
    if not paths:
        raise NoPhotos(
            f"Expected photos in {', '.join(sources) or 'the sources'}, found none. Photos are "
            f"files ending in {', '.join(sorted(EXTENSIONS))}."
        )
    return paths


def is_folder(place: str) -> bool:
    """Whether photos lie in this place; what cannot be asked is none.

    Args:
        place: as `absolute` gives it.
    """
    files, path = filesystem(place)
    web = place.startswith(("http://", "https://"))  # has no folders: asking reads a whole page
    try:
        if web and _extension(urlsplit(place).path) in EXTENSIONS:
            return False
        return bool(files.isdir(path))
    except ValueError:  # no URL at all
        return False
    except access_errors():  # told in its row, when it is read
        return False


def answers(scores: Tensor, card: Card) -> pd.DataFrame:
    """What scores mean in the card's words.

    Args:
        scores: (N, K) logits, before the temperature.
        card: its classes are the columns in order, its temperature divides, below its abstain_below
            the label is UNSURE.

    Returns:
        label, confidence of the likeliest class, "prob:CLASS" for each class in order; N rows.
    """
    probs = probabilities(scores, card.temperature)  # (N, K)
    classes = np.array(card.classes, dtype=object)[probs.argmax(dim=1).numpy()]  # (N,)
    confidence = probs.amax(dim=1).numpy()  # (N,)
    labels = np.where(confidence < card.abstain_below, UNSURE, classes).tolist()
    table = pd.DataFrame({"label": labels, "confidence": confidence})
    columns = [f"prob:{name}" for name in card.classes]
    return pd.concat([table, pd.DataFrame(probs.numpy(), columns=columns)], axis=1)


def abstaining(classifier: ImageClassifier, below: float) -> ImageClassifier:
    """The classifier that says UNSURE where its confidence is lower.

    Args:
        below: in [0, 1]; 0 = it answers every photo.

    Raises:
        ConfigError: a class of that name.
    """
    if below and UNSURE in classifier.card.classes:
        raise ConfigError(
            f"A class is called {UNSURE!r}, so nobody could tell it from an answer withheld "
            f"below the confidence {below:.3g}. Rename the class, or set predict.abstain_below and "
            "predict.target_risk to 0."
        )
    return classifier.with_card(abstain_below=below)


def max_pixels_of(card: Card) -> int:
    """The pixels that a photo may have: as many as when the model was trained."""
    return int(card.config.get("ingest.max_pixels", IngestConfig().max_pixels))


def check_format(url: str) -> None:
    """Refuses a place that write_predictions() would refuse.

    Args:
        url: local path or fsspec URL.

    Raises:
        ConfigError: its extension is none of FORMATS.
    """
    if _extension(url) not in FORMATS:
        raise ConfigError(
            f"Expected a file ending in {', '.join(FORMATS)} for the predictions, got {url!r}."
        )


def write_predictions(table: pd.DataFrame, url: str) -> None:
    """The table as a file, whole or not at all; the extension says how.

    Args:
        table: of predict().
        url: local path or fsspec URL ending in .parquet, .csv or .json (a list of rows).

    Raises:
        ConfigError: another extension.
    """
    check_format(url)
    write_whole(absolute(url), _encoded(table, _extension(url)))


def _photos_of(source: str) -> list[str]:
    place = absolute(source)
    if is_manifest(place):
        return _manifest_photos(place)
    if not is_folder(place):
        return [place]
    return [file.uri for file in find_files(place) if is_candidate(file)]


def _extension(place: str) -> str:
    return os.path.splitext(place)[1].lower()


def _manifest_photos(place: str) -> list[str]:
    table = _read_manifest(place)
    if "image" not in table.columns:
        found = ",".join(map(str, table.columns))
        raise ManifestError(f"Expected a column image in {place}, got {found}. Rename the column.")
    folder = place.rpartition("/")[0]
    return [
        image if is_url(image) or os.path.isabs(image) else f"{folder}/{image}"
        for image in table.image
    ]


def _read_manifest(place: str) -> pd.DataFrame:
    """The table as text; unlike a manifest to train on, it needs no labels."""
    try:
        data = io.BytesIO(read_bytes(place))
        if place.lower().endswith(".parquet"):
            return pd.read_parquet(data)
        return pd.read_csv(data, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except UnusablePhoto as error:
        raise NoPhotos(f"Expected a manifest at {place}: {error.detail}. Check the path.") from None
    except (ValueError, pa.ArrowException) as error:  # pandas' parser errors are ValueErrors
        raise ManifestError(f"{place} is no table with a header: {error}. Save it anew.") from None


def _photo(path: str) -> Photo | UnusablePhoto:
    try:
        return Photo(path, hashlib.sha256(read_bytes(path)).hexdigest())
    except UnusablePhoto as error:
        return UnusablePhoto(error.reason, f"{error.detail} (in {path})")
    except ValueError as error:  # no path or URL at all: a port of 99999, a zero byte
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
        return table.to_csv(index=False).encode()
    return table.to_json(orient="records", indent=1).encode()
