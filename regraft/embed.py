"""Photos through a network: embeddings to learn from, logits to judge by."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from tqdm import tqdm

from regraft.backbone import Preprocessing
from regraft.classifier import ImageClassifier
from regraft.config import TuneConfig
from regraft.errors import ConfigError
from regraft.pixels import normalise, test_batches

BATCH_SIZE = 32  # for a pass without gradients; larger was no faster on CPU cores (measured)


@dataclass(frozen=True)
class Compute:
    """Where and how precisely a network computes."""

    device: torch.device
    dtype: torch.dtype


def choose_compute(config: TuneConfig) -> Compute:
    """The device and precision that the configuration means on this machine.

    Raises:
        ConfigError: cuda asked for and none there.
    """
    cuda = torch.cuda.is_available()
    if config.device == "cuda" and not cuda:
        raise ConfigError("tune.device is cuda, but torch sees no GPU here. Use auto or cpu.")
    device = torch.device("cuda" if cuda and config.device != "cpu" else "cpu")
    if config.precision == "auto":
        fast_bf16 = torch.cuda.is_bf16_supported() if device.type == "cuda" else _cpu_has_bf16()
    else:
        fast_bf16 = config.precision == "bf16"
    return Compute(device, torch.bfloat16 if fast_bf16 else torch.float32)


def judging_compute() -> Compute:
    """fp32 on the best device: what is judged and served is the same with and without bf16."""
    return Compute(torch.device("cuda" if torch.cuda.is_available() else "cpu"), torch.float32)


def forward_photos(
    network: nn.Module, paths: Sequence[str], preprocessing: Preprocessing, compute: Compute
) -> Tensor:
    """The network's output for every photo, in order, without gradients.

    Args:
        network: (B, 3, S, S) -> (B, F); put in eval mode, on the device and in the precision.
        paths: (N,) local paths or URLs.

    Returns:
        (N, F) float32 on the CPU; (0, 0) for no photo.
    """
    n_batches = -(-len(paths) // BATCH_SIZE)
    batches = test_batches(paths, preprocessing, BATCH_SIZE)
    shown = tqdm(batches, desc="photos", total=n_batches, disable=None, delay=2)
    return forward_batches(network, shown, preprocessing, compute)


def forward_batches(
    network: nn.Module, batches: Iterable[Tensor], preprocessing: Preprocessing, compute: Compute
) -> Tensor:
    """The network's output for every photo of the batches, in order, without gradients.

    Args:
        batches: each (B, 3, S, S) uint8, preprocessed but not normalised.

    Returns:
        (N, F) float32 on the CPU; (0, 0) for no photo.
    """
    network = network.to(compute.device, compute.dtype).to(memory_format=torch.channels_last).eval()
    outputs: list[Tensor] = []
    with torch.inference_mode():
        for pixels in batches:
            normal = normalise(pixels.to(compute.device), preprocessing)
            outputs.append(network(normal.to(compute.dtype)).float().cpu())  # (B, F)
    return torch.cat(outputs) if outputs else torch.zeros(0, 0)


def embed(classifier: ImageClassifier, paths: Sequence[str], compute: Compute) -> Tensor:
    """(N, D) embeddings of the photos under the classifier's backbone."""
    backbone = classifier.build().backbone
    return forward_photos(backbone, paths, classifier.card.backbone.preprocessing, compute)


def logits(classifier: ImageClassifier, paths: Sequence[str]) -> Tensor:
    """(N, K) scores of the photos before softmax and before the temperature, computed in fp32."""
    preprocessing = classifier.card.backbone.preprocessing
    return forward_photos(classifier.build(), paths, preprocessing, judging_compute())


def probabilities(scores: Tensor, temperature: float) -> Tensor:
    """(N, K) probabilities, rows sum to 1. Source: Guo et al. 2017, eq. 9."""
    return torch.softmax(scores.double() / temperature, dim=-1)


def _cpu_has_bf16() -> bool:
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
