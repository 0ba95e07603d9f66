"""The metadata of a backbone: its preprocessing and the task that its weights were trained on."""

from typing import Literal

from pydantic import BaseModel, ConfigDict


class Preprocessing(BaseModel):
    """The preprocessing of a photo for the backbone, as in the training of its weights.

    size: side of the square crop, pixels. resize: the shorter side before the crop, pixels.
    mean, std: of red, green, blue on the scale [0, 1].
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    size: int
    resize: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: Literal["bilinear", "bicubic"]


class SourceTask(BaseModel):
    """The task that the weights were trained on: data, number of classes, licence."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    data: str
    n_classes: int
    licence: str


class BackboneInfo(BaseModel):
    """The metadata of a backbone; sha256 is that of the weights file."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    source: str
    architecture: str
    embedding_dim: int
    preprocessing: Preprocessing
    source_task: SourceTask
    sha256: str
