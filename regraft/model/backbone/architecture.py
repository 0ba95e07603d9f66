"""An architecture by name ("timm:NAME", "torchvision:NAME"), without classifier and weights."""

import difflib
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import timm
import torch
import torchvision
from timm.data import resolve_data_config
from timm.models import is_model_pretrained
from torch import nn

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
    """The module without classifiers, (B, 3, S, S) -> (B, D); their names; its input side S."""

    module: nn.Module
    head_prefixes: tuple[str, ...]
    side: int

    @cached_property
    def embedding_dim(self) -> int:
        """Return D, computed by a forward pass of zeros on first access."""
        self.module.eval()
        with torch.inference_mode():
            return int(self.module(torch.zeros(1, 3, self.side, self.side)).shape[-1])


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
        return _timm_body(name)
    if library == "torchvision" and name in _torchvision_names():
        return _torchvision_body(name)
    raise UnknownBackbone(_unknown(architecture, library, name))


def preprocessing_of(architecture: str, version: str = "") -> Preprocessing:
    """Return the preprocessing that the library declares for its weights of this architecture.

    Args:
        version: torchvision's name of the weights, such as IMAGENET1K_V1; "" = the default.
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
    size = int(stated["input_size"][-1])
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


def _timm_body(name: str) -> Body:
    module = timm.create_model(name, pretrained=False, num_classes=0)
    head = module.pretrained_cfg.get("classifier") or ()
    heads = (head,) if isinstance(head, str) else tuple(head)
    return Body(module, heads, preprocessing_of(f"timm:{name}").size)


def _torchvision_body(name: str) -> Body:
    if name in TWO_CLASSIFIERS:
        raise _without_embedding(name)
    module = torchvision.models.get_model(name, weights=None)
    linears = [path for path, part in module.named_modules() if isinstance(part, nn.Linear)]
    head = linears[-1] if linears else ""
    if not head:
        raise _without_embedding(name)
    parent, _, last = head.rpartition(".")
    setattr(module.get_submodule(parent), last, nn.Identity())
    return Body(module, (head,), preprocessing_of(f"torchvision:{name}").size)


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
