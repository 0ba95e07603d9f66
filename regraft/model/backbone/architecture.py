"""An architecture by name ("timm:NAME", "torchvision:NAME"), without classifier and weights."""

import difflib
import math
import re
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from types import MappingProxyType

import timm
import torch
import torchvision
from timm.data import resolve_data_config
from timm.models import is_model_pretrained
from torch import Tensor, nn

from regraft.core.errors import UnknownBackbone
from regraft.model.backbone.info import Preprocessing

LIBRARIES = ("timm", "torchvision")
# With default weights these architectures also rescale their input.
TWO_CLASSIFIERS = ("googlenet", "inception_v3")


@dataclass(frozen=True)
class Block:
    """A part of the backbone that is frozen or thawed as a whole; parameter names in order."""

    name: str
    parameters: tuple[str, ...]


@dataclass(frozen=True)
class Body:
    """The module without classifiers, (B, 3, S, S) -> (B, D), and its input side S, pixels."""

    architecture: str
    module: nn.Module
    side: int

    @cached_property
    def embedding_dim(self) -> int:
        """Return D, computed by a forward pass of zeros on first access.

        Raises:
            UnknownBackbone: the output for a photo is not one vector.
        """
        self.module.eval()
        with torch.inference_mode():
            output = self.module(torch.zeros(1, 3, self.side, self.side))
        shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        if len(shape) != 2:
            raise UnknownBackbone(
                f"Expected {self.architecture} to return an embedding of shape (1, D) for a photo, "
                f"got {shape}. Choose another architecture, such as torchvision:resnet18."
            )
        return int(shape[1])

    @cached_property
    def classifier_prefixes(self) -> tuple[str, ...]:
        """Return the paths, each ending in a dot, at which a whole network has its classifiers.

        These are the outermost parts of the library's network of which the body has no tensor.
        """
        body = self.module.state_dict().keys()
        shared = {prefix for name in body for prefix in _prefixes(name)}
        whole = _without_weights(lambda: whole_network(self.architecture))
        names = whole.state_dict().keys() - body
        paths = {next((p for p in _prefixes(name) if p not in shared), name) for name in names}
        return tuple(sorted(f"{path}." for path in paths))


def build_body(architecture: str) -> Body:
    """Return the architecture with random weights; its classifier is an identity.

    Args:
        architecture: "timm:NAME" or "torchvision:NAME".

    Raises:
        UnknownBackbone: unknown library or name; the message lists the nearest names.

    >>> build_body("torchvision:resnet18").embedding_dim
    512
    """
    library, _, name = architecture.partition(":")
    if library == "timm" and timm.is_model(name) and ("." not in name or is_model_pretrained(name)):
        module = timm.create_model(name, pretrained=False, num_classes=0)
    elif library == "torchvision" and name in _torchvision_names():
        module = _torchvision_body(name)
    else:
        raise UnknownBackbone(_unknown(architecture, library, name))
    return Body(architecture, module, preprocessing_of(architecture).size)


@cache
def tensor_specs(architecture: str) -> Mapping[str, tuple[torch.dtype, tuple[int, ...]]]:
    """Return dtype and shape of each tensor of the body by name; no weights are made.

    Raises:
        UnknownBackbone: as build_body().
    """
    state = _without_weights(lambda: build_body(architecture).module).state_dict()
    return MappingProxyType({name: (t.dtype, tuple(t.shape)) for name, t in state.items()})


def state_dict_of(
    tensors: Mapping[str, Tensor], network: nn.Module, root: str = ""
) -> OrderedDict[str, Tensor]:
    """Return the tensors as a state dict for the network, in the present version of its class.

    A file of tensors does not hold the versions of the classes that torch keeps beside a state
    dict, and without one torchvision's MNASNet cannot be loaded. The layers get no version: they
    detect the older names of their tensors themselves.

    Args:
        root: the path of the library's network in this network.
    """
    state = OrderedDict(tensors)
    versions = {root: {"version": network.get_submodule(root)._version}}
    state._metadata = versions  # type: ignore[attr-defined]
    return state


def preprocessing_of(architecture: str, version: str = "") -> Preprocessing:
    """Return the preprocessing that the library declares for its weights of this architecture.

    Args:
        version: torchvision's name of the weights, such as IMAGENET1K_V1; "" = the default.

    Raises:
        UnknownBackbone: the input is not square.
    """
    library, _, name = architecture.partition(":")
    if library == "torchvision":
        weights = torchvision.models.get_model_weights(name)[version or "DEFAULT"]
        preset = weights.transforms()
        return Preprocessing(
            size=preset.crop_size[0],
            resize=preset.resize_size[0],
            mean=tuple(preset.mean),
            std=tuple(preset.std),
            interpolation=preset.interpolation.value,
        )
    stated = resolve_data_config(timm.get_pretrained_cfg(name).to_dict())
    _, height, size = stated["input_size"]
    if height != size:
        raise UnknownBackbone(
            f"timm:{name} expects photos of {height} x {size} pixels, and Regraft crops squares. "
            "Choose another architecture."
        )
    return Preprocessing(
        size=size,
        resize=math.floor(size / stated["crop_pct"]),
        mean=stated["mean"],
        std=stated["std"],
        interpolation="bilinear" if stated["interpolation"] == "bilinear" else "bicubic",
    )


def ordered_blocks(module: nn.Module) -> tuple[Block, ...]:
    """Return the module's parameters grouped into blocks, input side first.

    A block is the outermost numbered submodule that has submodules with parameters ("blocks.6",
    "layer4", "features.3"). Parameters before the first block are "stem". A norm or a 1x1 layer
    after a block belongs to that block. A module without numbered submodules is one block.
    """
    owners = dict(_numbered_parts(module, ""))
    blocks: dict[str, list[str]] = {}
    current = "stem"
    for name, _ in module.named_parameters():
        current = next((owners[p] for p in _prefixes(name) if p in owners), current)
        blocks.setdefault(current, []).append(name)
    return tuple(Block(name, tuple(parameters)) for name, parameters in blocks.items())


def _numbered_parts(module: nn.Module, prefix: str) -> Iterator[tuple[str, str]]:
    for name, child in module.named_children():
        path = f"{prefix}{name}"
        has_parts = any(True for part in child.children() for _ in part.parameters())
        if re.search(r"\d$", name) and has_parts:
            yield path, path
        else:
            yield from _numbered_parts(child, f"{path}.")


def _prefixes(parameter: str) -> Iterator[str]:
    parts = parameter.split(".")
    return (".".join(parts[:n]) for n in range(1, len(parts)))


def _torchvision_body(name: str) -> nn.Module:
    if name in TWO_CLASSIFIERS:
        raise _without_embedding(name)
    module: nn.Module = torchvision.models.get_model(name, weights=None)
    linears = [path for path, part in module.named_modules() if isinstance(part, nn.Linear)]
    if not linears:
        raise _without_embedding(name)
    module.set_submodule(linears[-1], nn.Identity())
    return module


def whole_network(architecture: str) -> nn.Module:
    """Return the library's own network, with its classifiers."""
    library, _, name = architecture.partition(":")
    network: nn.Module = (
        timm.create_model(name, num_classes=2)  # some have no classifier by default
        if library == "timm"
        else torchvision.models.get_model(name, weights=None)
    )
    return network


def _without_weights(build: Callable[[], nn.Module]) -> nn.Module:
    """Return the module for its names and shapes: without the time and memory of its weights."""
    try:
        with torch.device("meta"):
            return build()
    except NotImplementedError:  # torchvision's regnet computes its widths with tensors
        return build()


def _without_embedding(name: str) -> UnknownBackbone:
    return UnknownBackbone(
        f"torchvision:{name} does not end in one linear layer, so it has no embedding. "
        "Choose another architecture, such as torchvision:resnet18."
    )


def _torchvision_names() -> list[str]:
    names: list[str] = torchvision.models.list_models(module=torchvision.models)
    return names


def _unknown(architecture: str, library: str, name: str) -> str:
    if library not in LIBRARIES:
        return f"Expected an architecture timm:NAME or torchvision:NAME, got {architecture!r}."
    names = timm.list_models(pretrained="." in name) if library == "timm" else _torchvision_names()
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.4)
    return f"{library} has no architecture {name!r}. Nearest: {', '.join(near) or 'none'}."
