"""Small pictures for the report: the worst mistakes, likely label errors, and leaks."""

import io
from collections.abc import Iterator

import pandas as pd
from PIL import Image

from regraft.data.ingest import NO_LIMIT, read_photo

THUMBNAIL_SIDE = 160  # px of the longer side: a phone shows two in a row, each about 8 kB
COLUMNS = ["kind", "path", "label", "predicted", "confidence", "note", "jpeg"]

_Row = tuple[str, str, str, str, float, str]


def thumbnail(path: str) -> bytes:
    """Return the photo as JPEG, its longer side at most THUMBNAIL_SIDE pixels."""
    photo = read_photo(path, NO_LIMIT, 2 * THUMBNAIL_SIDE)
    photo.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    photo.save(buffer, "JPEG", quality=80, optimize=True)
    return buffer.getvalue()


def worst_mistakes(predictions: pd.DataFrame) -> pd.DataFrame:
    """Return the wrongly predicted test photos, the highest loss first."""
    test = predictions[predictions.split == "test"]
    wrong = test[test.predicted != test.label]
    return wrong.sort_values("loss", ascending=False, kind="stable", ignore_index=True)


def make_gallery(
    predictions: pd.DataFrame, label_errors: pd.DataFrame, leaks: pd.DataFrame, n_photos: int
) -> pd.DataFrame:
    """Return a row a picture with its JPEG: at most n_photos of each kind, of leaks n_photos pairs.

    Returns:
        kind ("mistake", "label_error", "leak"), path, label, predicted, confidence, note, jpeg.
    """
    rows = [
        *_mistakes(worst_mistakes(predictions).head(n_photos)),
        *_label_errors(label_errors.head(n_photos)),
        *_leaks(leaks.head(n_photos)),
    ]
    pictures = {path: thumbnail(path) for path in {row[1] for row in rows}}
    return pd.DataFrame([(*row, pictures[row[1]]) for row in rows], columns=COLUMNS)


def _mistakes(wrong: pd.DataFrame) -> Iterator[_Row]:
    for photo in wrong.to_dict("records"):
        of_label = photo[f"prob:{photo['label']}"]
        note = f"{100 * of_label:.1f} % for its label"
        yield (
            "mistake",
            photo["path"],
            photo["label"],
            photo["predicted"],
            photo["confidence"],
            note,
        )


def _label_errors(doubtful: pd.DataFrame) -> Iterator[_Row]:
    for photo in doubtful.to_dict("records"):
        note = f"{100 * photo['self_confidence']:.1f} % for its label, in {photo['split']}"
        suggested, confidence = photo["suggested"], photo["suggested_confidence"]
        yield "label_error", photo["path"], photo["label"], suggested, confidence, note


def _leaks(leaks: pd.DataFrame) -> Iterator[_Row]:
    shown: set[str] = set()
    for leak in leaks.to_dict("records"):
        for prefix in ("", "other_"):
            path = leak[f"{prefix}path"]
            if path not in shown:
                shown.add(path)
                split, label = leak[f"{prefix}split"], leak[f"{prefix}label"]
                yield "leak", path, label, "", float("nan"), split
