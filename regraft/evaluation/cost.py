"""The cost of serving a network: milliseconds, parameters and memory."""

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
from regraft.model.pixels import LoadSpec, Photo, photo_batches, stacked

N_TIMED = 5  # batches; the median of five tolerates two disturbed measurements. Guess
N_SERVED = 9  # photos, a single photo at a time. Guess
MEGABYTE = 1e6


@dataclass(frozen=True)
class Cost:
    """The cost of a backbone without its head, in fp32, as it serves.

    ms, ms_low, ms_high: milliseconds a photo in batches of BATCH_SIZE, from pixels to embedding;
        median and quartiles over N_TIMED batches. Decoding is not included.
    million_parameters, weights_mb: of the backbone; 1 MB = 1e6 bytes.
    memory_mb: the weights and the largest sum of tensors that are alive during a batch; memory that
        a library allocates internally is not included.
    """

    ms: float
    ms_low: float
    ms_high: float
    million_parameters: float
    weights_mb: float
    memory_mb: float


def measure_cost(classifier: ImageClassifier, photos: Sequence[Photo]) -> Cost:
    """Return the cost of the classifier's backbone on this machine, measured on real photos.

    Args:
        photos: N >= 1; the first BATCH_SIZE are used, repeatedly if there are fewer.

    Raises:
        UnusablePhoto: a photo cannot be read any more.
    """
    info, body = classifier.card.backbone, classifier.build().backbone
    compute = judging_compute()
    network = prepared(body, compute)
    order = [[at % len(photos) for at in range(BATCH_SIZE)]]
    [loaded] = photo_batches(photos, order, LoadSpec(info.preprocessing))
    pixels = stacked(loaded)  # (BATCH_SIZE, 3, S, S)

    def run_batch() -> list[Tensor]:
        return list(forward(network, [pixels], info.preprocessing, compute))

    with _MemoryPeak() as memory:
        run_batch()  # also the warm-up
    ms = [1000 * _seconds(run_batch) / BATCH_SIZE for _ in range(N_TIMED)]
    low, median, high = np.percentile(ms, (25, 50, 75))
    n_bytes = sum(t.nbytes for n, t in classifier.weights.items() if n.startswith("backbone."))
    return Cost(
        ms=float(median),
        ms_low=float(low),
        ms_high=float(high),
        million_parameters=sum(p.numel() for p in body.parameters()) / 1e6,
        weights_mb=n_bytes / MEGABYTE,
        memory_mb=(n_bytes + memory.peak) / MEGABYTE,
    )


def measure_serving_ms(classifier: ImageClassifier) -> float:
    """Return the milliseconds of the whole network for a single photo, in fp32, as a request.

    It is the median of N_SERVED runs on this machine after a warm-up; decoding is not included.
    """
    preprocessing, compute = classifier.card.backbone.preprocessing, judging_compute()
    network = prepared(classifier.build(), compute)
    pixels = torch.zeros(1, 3, preprocessing.size, preprocessing.size, dtype=torch.uint8)
    seconds = [
        _seconds(lambda: list(forward(network, [pixels], preprocessing, compute)))
        for _ in range(1 + N_SERVED)
    ]
    return float(1000 * np.median(seconds[1:]))


def _seconds(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


class _MemoryPeak(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch has no types here
    """Record of the largest number of bytes of tensors that are made and alive in the context."""

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
