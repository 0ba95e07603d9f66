"""Loading a backbone with its weights from the name of a source."""

from dataclasses import dataclass

import timm
import torchvision
from torch import Tensor, nn

from regraft.core.config import BackboneConfig
from regraft.core.errors import WeightsMismatch
from regraft.model.backbone.architecture import (
    Block,
    Body,
    build_body,
    ordered_blocks,
    preprocessing_of,
)
from regraft.model.backbone.info import BackboneInfo, SourceTask
from regraft.model.backbone.weights import (
    WeightsFile,
    bundled_weights,
    read_weights,
    timm_weights,
    torchvision_weights,
)


@dataclass(frozen=True)
class Backbone:
    """The pretrained body, (B, 3, S, S) -> (B, D), and its metadata."""

    info: BackboneInfo
    module: nn.Module

    @property
    def blocks(self) -> tuple[Block, ...]:
        """Return the blocks, input side first."""
        return ordered_blocks(self.module)


def pinned(config: BackboneConfig) -> BackboneConfig:
    """Return the configuration with the sha256 of the present file, if the source is a file.

    With another file under the same name, the network would change and a cache would not notice.

    Raises:
        WeightsError: as read_weights().
    """
    kind, _, place = config.source.partition(":")
    if kind != "file" or config.sha256:
        return config
    return config.model_copy(update={"sha256": read_weights(place).sha256})


def load_backbone(config: BackboneConfig) -> Backbone:
    """Return the backbone with its pretrained weights, verified.

    Raises:
        UnknownBackbone: unknown source or architecture.
        WeightsNotFound, WeightsMismatch, UnsafeWeights: as read_weights().
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
    """Return the network of a package; its tensors are in timm's order, with other names."""
    file = bundled_weights(name)
    architecture = f"timm:tf_{name}"
    names = timm.create_model(f"tf_{name}", pretrained=False).state_dict()
    tensors = dict(zip(names, file.tensors.values(), strict=True))
    return build_body(architecture), architecture, WeightsFile(tensors, file.sha256)


def _check(config: BackboneConfig, file: WeightsFile) -> None:
    if config.sha256 and file.sha256 != config.sha256:
        raise WeightsMismatch(
            f"Expected sha256 {config.sha256} for {config.source}, got {file.sha256}. "
            "Correct backbone.sha256, or find out why the file changed."
        )


def _fill(body: Body, tensors: dict[str, Tensor], source: str) -> None:
    """Copy the tensors into the body; only those of the old classifiers may remain.

    torch compares the names, because its modules map their own older names of the same tensors.
    """
    heads = tuple(f"{prefix}." for prefix in body.head_prefixes)
    wanted = {name: tensor for name, tensor in tensors.items() if not name.startswith(heads)}
    shapes = {name: tensor.shape for name, tensor in body.module.state_dict().items()}
    misshapen = sorted(n for n, t in wanted.items() if shapes.get(n, t.shape) != t.shape)
    fitting = {name: tensor for name, tensor in wanted.items() if name not in misshapen}
    compared = body.module.load_state_dict(fitting, strict=False)
    missing, unexpected = sorted({*compared.missing_keys} - {*misshapen}), compared.unexpected_keys
    if missing or unexpected or misshapen:
        raise WeightsMismatch(
            f"{source} does not fit the architecture: {len(missing)} tensors missing, "
            f"{len(unexpected)} unexpected, {len(misshapen)} of another shape "
            f"(first: {(missing + unexpected + misshapen)[0]}). Correct backbone.architecture."
        )


def _source_task(source: str, architecture: str) -> SourceTask:
    library, _, name = architecture.partition(":")
    if source.startswith("file:"):
        return SourceTask(data="unknown (weights from a file)", n_classes=0, licence="unknown")
    if library == "torchvision":
        meta = torchvision.models.get_model_weights(name).DEFAULT.meta
        n_classes = len(meta["categories"])
        return SourceTask(data="ImageNet-1k", n_classes=n_classes, licence="see torchvision")
    stated = timm.get_pretrained_cfg(name)
    licence = "Apache-2.0" if source.startswith("bundled:") else str(stated.license or "unknown")
    data = "ImageNet-1k" if stated.num_classes == 1000 else f"timm tag {stated.tag or 'none'}"
    return SourceTask(data=data, n_classes=int(stated.num_classes), licence=licence)
