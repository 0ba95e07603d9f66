"""What a backbone costs whoever serves it: milliseconds, parameters, memory."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from regraft.model.classifier import ImageClassifier
from regraft.model.embed import BATCH_SIZE, forward, judging_compute, prepared
from regraft.model.pixels import Look, Photo, photo_batches, stacked

N_TIMED = 5  # batches; the median of five stands two disturbed ones. Guess
N_SERVED = 9  # photos, one at a time. Guess
MEGABYTE = 1e6


@dataclass(frozen=True)
class Cost:
    """Of the backbone alone, in fp32, as it serves.

    ms, ms_low, ms_high: milliseconds a photo in batches of BATCH_SIZE, from pixels to embedding;
        median and quartiles over N_TIMED batches. Decoding is not in it.
    million_parameters, weights_mb: of the backbone; 1 MB = 1e6 bytes.
    memory_mb: weights and the tensors that are alive at once while a batch passes; a library's own
        scratch memory is not seen.
    """

    ms: float
    ms_low: float
    ms_high: float
    million_parameters: float
    weights_mb: float
    memory_mb: float


def cost_of(classifier: ImageClassifier, photos: Sequence[Photo]) -> Cost:
    """What the classifier's backbone costs on this machine, measured on photos really pushed.

    Args:
        photos: N >= 1; the first BATCH_SIZE are used, again and again if there are fewer.

    Raises:
        UnusablePhoto: one of them cannot be read any more.
    """
    info, body = classifier.card.backbone, classifier.build().backbone
    compute = judging_compute()
    network = prepared(body, compute)
    order = [[at % len(photos) for at in range(BATCH_SIZE)]]
    [loaded] = photo_batches(photos, order, Look(info.preprocessing))
    pixels = stacked(loaded)  # (BATCH_SIZE, 3, S, S)

    def push() -> list[Tensor]:
        return list(forward(network, [pixels], info.preprocessing, compute))

    with _Alive() as alive:
        push()  # also the warm-up
    ms = [1000 * _seconds(push) / BATCH_SIZE for _ in range(N_TIMED)]
    low, median, high = np.percentile(ms, (25, 50, 75))
    n_bytes = sum(t.nbytes for n, t in classifier.weights.items() if n.startswith("backbone."))
    return Cost(
        ms=float(median),
        ms_low=float(low),
        ms_high=float(high),
        million_parameters=sum(p.numel() for p in body.parameters()) / 1e6,
        weights_mb=n_bytes / MEGABYTE,
        memory_mb=(n_bytes + alive.peak) / MEGABYTE,
    )


def serving_ms(classifier: ImageClassifier) -> float:
    """Milliseconds that the whole network takes for one photo, in fp32, as a request asks it.

    The median of N_SERVED, after one to warm up, on this machine; decoding is not in it.
    """
    preprocessing, compute = classifier.card.backbone.preprocessing, judging_compute()
    network = prepared(classifier.build(), compute)
    pixels = torch.zeros(1, 3, preprocessing.size, preprocessing.size, dtype=torch.uint8)
    seconds = [
        _seconds(lambda: list(forward(network, [pixels], preprocessing, compute)))
        for _ in range(1 + N_SERVED)
    ]
    return float(1000 * np.median(seconds[1:]))


def _seconds(push: Callable[[], object]) -> float:
    began = time.perf_counter()
    push()
    return time.perf_counter() - began


class _Alive(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch has no types here
    """Counts the bytes of tensors that are made while it is entered and not yet gone."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = 0
        self._storages = WeakIdKeyDictionary()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401 - torch's signature
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                self._storages[storage] = storage.nbytes()
        self.peak = max(self.peak, sum(self._storages[storage] for storage in self._storages))
        return made
