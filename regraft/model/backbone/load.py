"""Loading a backbone with its weights from the name of a source."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import timm
import torch
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
    state_dict_of,
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


def _fill(body: Body, tensors: Mapping[str, Tensor], source: str) -> None:
    """Copy the network's tensors into the body; only those of the old classifiers may remain.

    torch compares the names, because its modules map their own older names of the same tensors.
    """
    own = body.module.state_dict()
    prefix = _network_prefix(own, tensors, source)
    network = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
    wanted = {
        name: tensor
        for name, tensor in network.items()
        if not f"{name}.".startswith(body.classifier_prefixes)
    }
    misfit = sorted(name for name, t in wanted.items() if name in own and not _fits(t, own[name]))
    fitting = {name: tensor for name, tensor in wanted.items() if name not in misfit}
    try:
        compared = body.module.load_state_dict(state_dict_of(fitting, body.module), strict=False)
    except RuntimeError as error:  # an older name of a tensor of another shape
        reason = str(error).splitlines()[-1].strip()
        raise WeightsMismatch(
            f"{source} does not fit {body.architecture}: {reason}. Correct backbone.architecture."
        ) from None
    missing, unexpected = sorted({*compared.missing_keys} - {*misfit}), compared.unexpected_keys
    if missing or unexpected or misfit:
        where = f" below {prefix!r}" if prefix else ""
        raise WeightsMismatch(
            f"{source} does not fit {body.architecture}: {len(own) - len(missing) - len(misfit)} "
            f"of its {len(own)} tensors fit{where}, {len(missing)} missing, {len(unexpected)} "
            f"unexpected, {len(misfit)} of another shape or type "
            f"(first: {(missing + unexpected + misfit)[0]}). Correct backbone.architecture; if it "
            "is right, the network in the file was changed and cannot be used."
        )


def _network_prefix(own: Mapping[str, Tensor], tensors: Mapping[str, Tensor], source: str) -> str:
    """Return what precedes the network's names in the file: "", or a path that ends in a dot.

    A network can be a part of another one or of a mapping: torch.compile adds "_orig_mod.",
    DistributedDataParallel "module.", a training script "state_dict." or "model_ema.".

    Raises:
        WeightsMismatch: several networks in the file fit equally well.
    """
    counts: Counter[str] = Counter()
    for name in tensors:
        parts = name.split(".")
        suffixes = {".".join(parts[n:]): n for n in range(len(parts))}
        counts.update(name.removesuffix(suffix) for suffix in suffixes if suffix in own)
    best = max(counts.values(), default=0)
    rivals = sorted(prefix for prefix, count in counts.items() if count == best)
    if len(rivals) > 1 and best > len(own) / 2:
        names = ", ".join(prefix.rstrip(".") or "the file itself" for prefix in rivals)
        raise WeightsMismatch(
            f"{source} holds {len(rivals)} networks that fit: {names}. Which of them is meant "
            "cannot be known: save the tensors of one of them alone, and use that file."
        )
    return rivals[0] if len(rivals) == 1 else ""


def _fits(tensor: Tensor, own: Tensor) -> bool:
    """Return whether the tensor's values can become those of the network's tensor."""
    is_plain = tensor.layout is torch.strided and not (tensor.is_quantized or tensor.is_meta)
    same_kind = tensor.is_floating_point() == own.is_floating_point()
    return is_plain and same_kind and tensor.shape == own.shape


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
