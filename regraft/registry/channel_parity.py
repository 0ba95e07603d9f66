"""The difference between the predictions of a way to serve a model and the expected ones."""

from dataclasses import dataclass
from typing import Literal

Channel = Literal["pyfunc", "predict", "server"]


@dataclass(frozen=True)
class ChannelParity:
    """The difference between the predictions of one channel and the expected predictions.

    channel: pyfunc = loaded by MLflow into this process, called with the bytes of the files;
        predict = the bundle behind `regraft predict`, called with paths; server = `mlflow models
        serve` over HTTP.
    n: number of photos.
    max_difference: largest difference of a probability; infinite if the classes, their order or the
        photos differ, or if the channel failed.
    agreement: share of photos with the same label, in [0, 1].
    error: why the channel failed, one line; "" if it worked.
    """

    channel: Channel
    n: int
    max_difference: float
    agreement: float
    error: str = ""
