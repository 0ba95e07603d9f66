"""The metadata of a backbone: its preprocessing and the task that its weights were trained on."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

# Of a photo's side, pixels. Largest in torchvision 0.29 and timm 1.0.31: 1024. Twice that, a guess.
MAX_SIDE = 2048
# Of an embedding; a guess.
MAX_EMBEDDING_DIM = 65_536
Side = Annotated[int, Field(ge=1, le=MAX_SIDE)]
Name = Annotated[str, Field(min_length=1)]
# In timm 1.0.31 and torchvision 0.29: means 0 to 0.5, stds 0.224 to 1. The bounds are guesses.
ChannelMean = Annotated[float, Field(ge=0.0, le=1.0)]
ChannelStd = Annotated[float, Field(ge=1e-3, le=1e3)]


class Preprocessing(BaseModel):
    """The preprocessing of a photo for the backbone, as in the training of its weights.

    size: side of the square crop, pixels. resize: the shorter side before the crop, pixels. Both
        in [1, MAX_SIDE].
    mean, std: of red, green, blue on the scale [0, 1]; mean in [0, 1], std in [1e-3, 1e3].
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    size: Side
    resize: Side
    mean: tuple[ChannelMean, ChannelMean, ChannelMean]
    std: tuple[ChannelStd, ChannelStd, ChannelStd]
    interpolation: Literal["bilinear", "bicubic"]


class SourceTask(BaseModel):
    """The task that the weights were trained on: data, number of classes (0 = unknown), licence."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    data: str
    n_classes: Annotated[int, Field(ge=0)]
    licence: str


class BackboneInfo(BaseModel):
    """The metadata of a backbone; sha256 is that of the weights file."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    source: Name
    architecture: Name
    embedding_dim: Annotated[int, Field(ge=1, le=MAX_EMBEDDING_DIM)]
    preprocessing: Preprocessing
    source_task: SourceTask
    sha256: str
