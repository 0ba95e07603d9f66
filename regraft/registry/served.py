"""The served model. MLflow copies this file into the model and runs it where it is served.

A request has one column "image"; each cell is one image file, as bytes or as base64 text (also as a
data: URL). Text is never taken for a path or URL, unless whoever loads the model for local scoring
says so:

    mlflow.pyfunc.load_model(URI, model_config={"image_schemes": ["file", "s3"]})

The answer has a row an image: label, confidence, "prob:CLASS" for each class in order; the label
is "unsure" where the model's card says that the confidence is too low for an answer. If one image
cannot be read, the whole request fails and says which and why: nothing is replaced.
"""

import base64
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd
import torch
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext
from torch import Tensor

from regraft.core.errors import UnusablePhoto
from regraft.data.ingest import decode
from regraft.data.ingest.read_policy import ReadPolicy, read_allowed
from regraft.evaluation.predict import answers, max_pixels_of
from regraft.model.classifier import Card, load_classifier
from regraft.model.embed import BATCH_SIZE, forward, judging_compute, prepared
from regraft.model.pixels import batch_of, consecutive, least_side, preprocess

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
        """Reads the bundle and the read policy, once."""
        self.policy = ReadPolicy.from_model_config(context.model_config)
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

        Memory does not grow with the number of images: one batch of pixels is held at a time.

        Raises:
            MlflowException: an image that cannot be read; over HTTP it is a 400 with this text.
        """
        batches = self._batches(list(model_input["image"]))
        preprocessing = self.card.backbone.preprocessing
        scores = list(forward(self.network, batches, preprocessing, judging_compute()))
        none = torch.zeros(0, len(self.card.classes))  # (0, K)
        return answers(torch.cat(scores or [none]), self.card)

    def _batches(self, cells: Sequence[object]) -> Iterator[Tensor]:
        for batch in consecutive(len(cells), BATCH_SIZE):
            yield batch_of([_pixels(cells[at], at, self.card, self.policy) for at in batch])


def image_bytes(cell: object, policy: ReadPolicy) -> bytes:
    """The image file that one cell of a request means; the forms are at the head of this file.

    Raises:
        UnusablePhoto: neither bytes nor base64 text, or a path or URL that the policy does not
            allow, or that cannot be read.
    """
    if isinstance(cell, bytes | bytearray | memoryview):
        return bytes(cell)
    if not isinstance(cell, str):
        kind = type(cell).__name__
        raise UnusablePhoto("no image", f"expected an image file as bytes or base64, got {kind}")
    if image := _from_base64(cell):
        return image
    if not policy.schemes:
        detail = "expected an image file as bytes or base64, got text that is neither"
        raise UnusablePhoto("no image", detail)
    return read_allowed(cell, policy)


def _pixels(cell: object, at: int, card: Card, policy: ReadPolicy) -> Tensor:
    try:
        preprocessing = card.backbone.preprocessing
        side = least_side(preprocessing)  # else other pixels would be judged than are served
        photo = decode(image_bytes(cell, policy), max_pixels_of(card), side)
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
    except ValueError:  # no base64, or text outside ASCII
        return b""


set_model(ServedClassifier())
