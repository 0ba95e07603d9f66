"""A registered model in this process, for images from anywhere."""

import io
import os
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from regraft.core.errors import UnusablePhoto
from regraft.data.ingest import decode, read_bytes
from regraft.evaluation.predict import max_pixels_of, prediction_table
from regraft.model.card import Card
from regraft.model.classifier import ImageClassifier
from regraft.model.embed import BATCH_SIZE, forward, head_scores, judging_compute, prepared
from regraft.model.embed.rows import Rows
from regraft.model.pixels import batch_of, consecutive, least_side, preprocess

ImageLike = str | os.PathLike[str] | bytes | Image.Image | NDArray[np.uint8]
"""A path or URL, the bytes of an image file, a PIL image, or an array (H, W, 3) or (H, W)."""

# PIL modes by the format that keeps their values. PNG would cut the 32 bits of I to 16.
_PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")
_TIFF_MODES = ("I", "F", "CMYK", "YCbCr", "LAB")


class LoadedModel:
    """A registered model that predicts images of any kind.

    Args:
        classifier: weights and card.
        reference: "name/version".
    """

    def __init__(self, classifier: ImageClassifier, reference: str) -> None:
        self.reference = reference
        self._classifier = classifier
        self._body = prepared(classifier.build().backbone, judging_compute())

    @property
    def card(self) -> Card:
        """The metadata that travel with the weights."""
        return self._classifier.card

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names, in the order of the probabilities."""
        return self.card.classes

    def predict(self, images: ImageLike | Iterable[ImageLike]) -> pd.DataFrame:
        """Return the label of each image.

        Args:
            images: one image, or several.

        Returns:
            label, confidence in [0, 1], "prob:CLASS" for each class in order; N rows. The label is
            "unsure" below the card's abstain_below.

        Raises:
            UnusablePhoto: an image cannot be read; the message names its position.
        """
        scores = head_scores(self._classifier, Rows.of(self._embeddings(images)))  # (N, K)
        return prediction_table(scores, self.card)

    def predict_proba(self, images: ImageLike | Iterable[ImageLike]) -> NDArray[np.float64]:
        """Return the probabilities (N, K) of the classes, in their order; each row has the sum 1.

        Raises:
            UnusablePhoto: as predict().
        """
        table = self.predict(images)
        return table[[f"prob:{name}" for name in self.classes]].to_numpy(np.float64)

    def embed(self, images: ImageLike | Iterable[ImageLike]) -> NDArray[np.float32]:
        """Return the embeddings (N, D) of the images under the model's backbone.

        Raises:
            UnusablePhoto: as predict().
        """
        embeddings: NDArray[np.float32] = self._embeddings(images).float().numpy()
        return embeddings

    def _embeddings(self, images: ImageLike | Iterable[ImageLike]) -> Tensor:
        several = _as_list(images)
        batches = self._batches(several)
        preprocessing = self.card.backbone.preprocessing
        rows = list(forward(self._body, batches, preprocessing, judging_compute()))
        none = torch.zeros(0, self.card.backbone.embedding_dim)
        return torch.cat(rows) if rows else none  # (N, D)

    def _batches(self, images: Sequence[ImageLike]) -> Iterator[Tensor]:
        for positions in consecutive(len(images), BATCH_SIZE):
            yield batch_of([self._pixels(images[at], at) for at in positions])

    def _pixels(self, image: ImageLike, at: int) -> Tensor:
        try:
            preprocessing = self.card.backbone.preprocessing
            side = least_side(preprocessing)
            photo = decode(_file_bytes(image), max_pixels_of(self.card), side)
            return preprocess(photo, preprocessing)
        except UnusablePhoto as error:
            raise UnusablePhoto(error.reason, f"image {at}: {error.detail}") from None

    def __repr__(self) -> str:
        return f"LoadedModel({self.reference!r}, {len(self.classes)} classes)"

    def _repr_html_(self) -> str:
        backbone = escape(self.card.backbone.architecture)
        classes = escape(", ".join(self.classes))
        return (
            f"<table><tr><th>model</th><td>{escape(self.reference)}</td></tr>"
            f"<tr><th>backbone</th><td>{backbone}</td></tr>"
            f"<tr><th>classes</th><td>{classes}</td></tr></table>"
        )


def _as_list(images: ImageLike | Iterable[ImageLike]) -> list[ImageLike]:
    is_single = isinstance(images, str | os.PathLike | bytes | Image.Image)
    if is_single or (isinstance(images, np.ndarray) and images.ndim in (2, 3)):
        return [images]  # type: ignore[list-item]
    return list(images)  # type: ignore[arg-type]


def _file_bytes(image: ImageLike) -> bytes:
    """Return the image as a file: the same decoder and the same checks for every kind.

    An array of (N, H, W, 3) is several images, see _as_list(). PNG and TIFF keep every value. The
    orientation of a PIL image that is not upright yet goes with it.
    """
    if isinstance(image, bytes):
        return image
    if isinstance(image, str | os.PathLike):
        return read_bytes(os.fspath(image) if isinstance(image, Path) else str(image))
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim not in (2, 3):
            raise UnusablePhoto(
                "unsupported array",
                f"expected uint8 (H, W, 3) or (H, W), got {image.dtype} {image.shape}",
            )
        image = Image.fromarray(image)
    if not isinstance(image, Image.Image):
        kind = type(image).__name__
        raise UnusablePhoto("no image", f"expected a path, bytes, PIL image or array, got {kind}")
    if image.mode not in _PNG_MODES + _TIFF_MODES:
        modes = ", ".join(_PNG_MODES + _TIFF_MODES)
        raise UnusablePhoto("no image", f"expected a PIL mode of {modes}, got {image.mode}")
    file = io.BytesIO()
    image.save(file, "PNG" if image.mode in _PNG_MODES else "TIFF", exif=image.getexif())
    return file.getvalue()
