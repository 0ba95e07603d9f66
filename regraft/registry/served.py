"""The served model. MLflow copies this file into the model and runs it where it is served.

A request has one column "image"; each cell is one image, in one of three forms:
    bytes: the image file as it is;
    text that begins as an image file does in base64 (or a data: URL): that file;
    any other text: a local path or an fsspec URL, read where the model is served.
The answer has a row an image: label, confidence, "prob:CLASS" for each class in order; the label
is "unsure" where the model's card says that the confidence is too low for an answer. If one image
cannot be read, the whole request fails and says which and why: nothing is replaced.
"""

import base64
import binascii
from pathlib import Path

import pandas as pd
import torch
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext
from torch import Tensor

from regraft.classifier import Card, load_classifier
from regraft.embed import BATCH_SIZE, forward, judging_compute, prepared
from regraft.errors import ConfigError, UnusablePhoto
from regraft.ingest import decode, read_bytes
from regraft.pixels import batch_of, least_side, preprocess
from regraft.predict import answers, max_pixels_of

# How JPEG, PNG, GIF, WebP, BMP, TIFF and BigTIFF files begin when they are written in base64.
BASE64_STARTS = (
    "/9j/",
    "iVBORw0KGg",
    "R0lGOD",
    "UklGR",
    "Qk0",
    "Qk1",
    "Qk2",
    "Qk3",
    "SUkqA",
    "TU0AK",
    "SUkrA",
)


class ServedClassifier(PythonModel):  # type: ignore[misc]  # mlflow has no types
    """Our bundle behind MLflow's protocol."""

    def load_context(self, context: PythonModelContext) -> None:
        """Reads the bundle, once."""
        classifier = load_classifier(Path(context.artifacts["bundle"]))
        self.card = classifier.card
        self.network = prepared(classifier.build(), judging_compute())

    def predict(
        self,
        context: PythonModelContext,
        model_input: pd.DataFrame,
        params: dict[str, str] | None = None,
    ) -> pd.DataFrame:
        """A row an image; see the head of this file.

        Raises:
            MlflowException: an image that cannot be read; over HTTP it is a 400 with this text.
        """
        preprocessing = self.card.backbone.preprocessing
        cells = enumerate(model_input["image"])
        pixels = [_pixels(cell, at, self.card) for at, cell in cells]
        batches = torch.split(batch_of(pixels), BATCH_SIZE)
        scores = forward(self.network, batches, preprocessing, judging_compute())
        return answers(torch.cat(list(scores)), self.card)


def image_bytes(cell: object) -> bytes:
    """The image file that one cell of a request means; the forms are at the head of this file.

    Raises:
        UnusablePhoto: neither bytes nor text, or a path where nothing can be read.
    """
    if isinstance(cell, bytes | bytearray | memoryview):
        return bytes(cell)
    if not isinstance(cell, str):
        kind = type(cell).__name__
        raise UnusablePhoto("no image", f"expected bytes, base64 text, a path or URL, got {kind}")
    return _from_base64(cell) or _from_place(cell)


def _pixels(cell: object, at: int, card: Card) -> Tensor:
    try:
        preprocessing = card.backbone.preprocessing
        side = least_side(preprocessing)  # else other pixels would be judged than are served
        photo = decode(image_bytes(cell), max_pixels_of(card), side)
        return preprocess(photo, preprocessing)
    except UnusablePhoto as error:
        raise MlflowException.invalid_parameter_value(f"Image {at}: {error}") from None


def _from_base64(text: str) -> bytes:
    """The decoded bytes, or none if the text is not an image in base64."""
    if text.startswith("data:"):
        text = text.partition(",")[2]
    compact = "".join(text.split())  # base64 is often written in lines
    if not compact.startswith(BASE64_STARTS):
        return b""
    try:
        return base64.b64decode(compact, validate=True)
    except binascii.Error:
        return b""


def _from_place(text: str) -> bytes:
    shown = text if len(text) <= 80 else f"{text[:80]}..."
    try:
        return read_bytes(text)
    except UnusablePhoto:
        detail = f"neither base64 of an image nor a file that can be read: {shown!r}"
    except (ConfigError, ValueError) as error:  # an unknown kind of URL; a path no system takes
        detail = f"cannot read {shown!r}: {error}"
    raise UnusablePhoto("no image", detail)


set_model(ServedClassifier())
