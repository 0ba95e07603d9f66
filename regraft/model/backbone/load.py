"""From a source's name to a backbone with its weights in place."""

from dataclasses import dataclass

import timm
import torchvision
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from regraft.core.config import BackboneConfig
from regraft.core.errors import WeightsMismatch
from regraft.model.backbone.architecture import (
    Block,
    Body,
    Preprocessing,
    build_body,
    ordered_blocks,
    preprocessing_of,
)
from regraft.model.backbone.weights import (
    WeightsFile,
    bundled_weights,
    read_weights,
    timm_weights,
    torchvision_weights,
)


class SourceTask(BaseModel):
    """What the backbone learned before: the data, how many classes, under which licence."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    data: str
    n_classes: int
    licence: str


class BackboneInfo(BaseModel):
    """All about a backbone but its weights; sha256 is the weights file's."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    source: str
    architecture: str
    embedding_dim: int
    preprocessing: Preprocessing
    source_task: SourceTask
    sha256: str


@dataclass(frozen=True)
class Backbone:
    """The pretrained body, (B, 3, S, S) -> (B, D), and what must travel with it."""

    info: BackboneInfo
    module: nn.Module

    @property
    def blocks(self) -> tuple[Block, ...]:
        """Its blocks, input side first."""
        return ordered_blocks(self.module)


def pinned(config: BackboneConfig) -> BackboneConfig:
    """A source that is a file, with the sha256 of what it holds now; any other as it is.

    Another file under its name would be another network, and a cache would not notice.

    Raises:
        WeightsError: as read_weights().
    """
    kind, _, place = config.source.partition(":")
    if kind != "file" or config.sha256:
        return config
    return config.model_copy(update={"sha256": read_weights(place).sha256})


def load_backbone(config: BackboneConfig) -> Backbone:
    """The backbone with its pretrained weights, checked.

    Raises:
        UnknownBackbone: a source or a name that nobody knows.
        WeightsNotFound, WeightsMismatch, UnsafeWeights: as read_weights.
    """
    library, _, name = config.source.partition(":")
    version = ""
    if library == "bundled":
        body, architecture, file = _bundled(name)
    elif library == "file":
        architecture = config.architecture
        body, file = build_body(architecture), read_weights(name, config.sha256)
    else:
        name, _, version = name.partition("/")
        architecture = f"{library}:{name}"
        body = build_body(architecture)
        file = timm_weights(name) if library == "timm" else torchvision_weights(name, version)
    _check(config, file)
    _fill(body, file.tensors, config.source)
    preprocessing = preprocessing_of(architecture, version)
    info = BackboneInfo(
        source=config.source,
        architecture=architecture,
        embedding_dim=body.embedding_dim,
        preprocessing=preprocessing,
        source_task=_source_task(config.source, architecture),
        sha256=file.sha256,
    )
    return Backbone(info, body.module)


def _bundled(name: str) -> tuple[Body, str, WeightsFile]:
    """These packages name the tensors otherwise than timm, but keep its order."""
    file = bundled_weights(name)
    architecture = f"timm:tf_{name}"
    names = timm.create_model(f"tf_{name}", pretrained=False).state_dict()
    tensors = dict(zip(names, file.tensors.values(), strict=True))
    return build_body(architecture), architecture, WeightsFile(tensors, file.sha256)


def _check(config: BackboneConfig, file: WeightsFile) -> None:
    if config.sha256 and file.sha256 != config.sha256:
        raise WeightsMismatch(
            f"Expected sha256 {config.sha256} for {config.source}, got {file.sha256}. "
            "Correct backbone.sha256, or find out who changed the file."
        )


def _fill(body: Body, tensors: dict[str, Tensor], source: str) -> None:
    """Copies the tensors into the body; only the old classifiers' may be left over.

    torch compares the names, since its modules know their own older names for the same tensors.
    """
    heads = tuple(f"{prefix}." for prefix in body.head_prefixes)
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith(heads)}
    shapes = {name: tensor.shape for name, tensor in body.module.state_dict().items()}
    misshapen = sorted(n for n, t in kept.items() if shapes.get(n, t.shape) != t.shape)
    fitting = {name: tensor for name, tensor in kept.items() if name not in misshapen}
    compared = body.module.load_state_dict(fitting, strict=False)
    missing, left_over = sorted({*compared.missing_keys} - {*misshapen}), compared.unexpected_keys
    if missing or left_over or misshapen:
        raise WeightsMismatch(
            f"{source} does not fit the architecture: {len(missing)} tensors missing, "
            f"{len(left_over)} left over, {len(misshapen)} of another shape "
            f"(first: {(missing + left_over + misshapen)[0]}). Correct backbone.architecture."
        )


def _source_task(source: str, architecture: str) -> SourceTask:
    library, _, name = architecture.partition(":")
    if source.startswith("file:"):
        return SourceTask(data="stated by whoever made the file", n_classes=0, licence="unknown")
    if library == "torchvision":
        meta = torchvision.models.get_model_weights(name).DEFAULT.meta
        n_classes = len(meta["categories"])
        return SourceTask(data="ImageNet-1k", n_classes=n_classes, licence="see torchvision")
    stated = timm.get_pretrained_cfg(name)
    licence = "Apache-2.0" if source.startswith("bundled:") else str(stated.license or "unknown")
    data = "ImageNet-1k" if stated.num_classes == 1000 else f"timm tag {stated.tag or 'none'}"
    return SourceTask(data=data, n_classes=int(stated.num_classes), licence=licence)
