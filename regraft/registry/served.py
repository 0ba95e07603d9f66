"""The served model. MLflow copies this file into the model and runs it on the server.

A request has one column "image". Each cell is one image file, as bytes or as base64 text (also as a
data: URL). Text is not used as a path or URL, unless the caller allows this when loading the model
for local scoring:

    mlflow.pyfunc.load_model(URI, model_config={"image_schemes": ["file", "s3"]})

The answer has a row for each image: label, confidence and "prob:CLASS" for each class in order. The
label is "unsure" if the confidence is below the threshold in the model's card. If an image cannot
be read, the whole request fails with the position of the image and the reason. No image is skipped
or replaced.
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
from regraft.data.ingest.formats import N_HEAD, format_of
from regraft.data.ingest.read_policy import ReadPolicy, read_allowed
from regraft.evaluation.predict import max_pixels_of, prediction_table
from regraft.model.card import Card
from regraft.model.classifier import load_classifier
from regraft.model.embed import BATCH_SIZE, forward, judging_compute, prepared
from regraft.model.pixels import batch_of, consecutive, least_side, preprocess

_N_HEAD_CHARACTERS = 4 * N_HEAD // 3  # of base64


class ServedClassifier(PythonModel):  # type: ignore[misc]  # mlflow has no types
    """A bundle as an MLflow pyfunc model."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the bundle and the read policy once."""
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
        """Return a row for each image, as the docstring of this file describes.

        Memory does not grow with the number of images: one batch of pixels is in memory at a time.

        Raises:
            MlflowException: an image cannot be read. Over HTTP, this is status 400 with its text.
        """
        batches = self._batches(list(model_input["image"]))
        preprocessing = self.card.backbone.preprocessing
        scores = list(forward(self.network, batches, preprocessing, judging_compute()))
        none = torch.zeros(0, len(self.card.classes))  # (0, K)
        return prediction_table(torch.cat(scores or [none]), self.card)

    def _batches(self, cells: Sequence[object]) -> Iterator[Tensor]:
        for batch in consecutive(len(cells), BATCH_SIZE):
            yield batch_of([_pixels(cells[at], at, self.card, self.policy) for at in batch])


def image_bytes(cell: object, policy: ReadPolicy) -> bytes:
    """Return the image file of one cell of a request, in any format that this file describes.

    Raises:
        UnusablePhoto: the cell is neither bytes nor base64 text, or it is a path or URL that the
            policy does not allow or that cannot be read.
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
        min_size = least_side(preprocessing)  # as in the evaluation, for identical pixels
        photo = decode(image_bytes(cell, policy), max_pixels_of(card), min_size)
        return preprocess(photo, preprocessing)
    except UnusablePhoto as error:
        raise MlflowException.invalid_parameter_value(f"Image {at}: {error}") from None


def _from_base64(text: str) -> bytes:
    """Return the decoded bytes, empty if the text is not an image in base64.

    The image may have a format that is not read: then the answer names the format.
    """
    if text.startswith("data:"):
        text = text.partition(",")[2]
    compact = "".join(text.split())  # base64 is often split into lines
    try:
        head = base64.b64decode(compact[:_N_HEAD_CHARACTERS], validate=True)
        if format_of(head) is None:
            return b""
        return base64.b64decode(compact, validate=True)
    except ValueError:  # not base64, or text outside ASCII
        return b""


set_model(ServedClassifier())
