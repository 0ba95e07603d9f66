"""The faster precision for training on this machine, measured by a few steps."""

import copy
import logging
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from regraft.model.embed import Compute
from regraft.training.tune.batch_source import TrainContext

logger = logging.getLogger("regraft.fine_tune")

MIN_STEPS = 50  # a measurement takes as long as 1.5 steps of 32 photos
N_PHOTOS, N_TIMED = 8, 2
# bf16 must be faster by this factor; otherwise noise could decide. Guess
MIN_SPEEDUP = 1.25


def training_compute(
    part: nn.Module, batch: Callable[[], Tensor], context: TrainContext, n_steps: int
) -> Compute:
    """Return the context's compute, or fp32 if bf16 is not clearly faster.

    On CPUs bf16 is faster in dense layers and slower in the gradient of depthwise layers, so the
    result depends on the thawed blocks. It is part of the TrainingSetup.

    Args:
        part: the trained part, on its device; it is not changed.
        batch: returns a batch (B, ...) of its input; called only for a measurement.
        n_steps: of the whole training; a short training is not measured.
    """
    compute, precision = context.compute, context.config.precision
    if compute.dtype is torch.float32 or precision != "auto" or n_steps < MIN_STEPS:
        return compute
    exact = Compute(compute.device, torch.float32)
    photos = batch()[:N_PHOTOS]
    with torch.random.fork_rng():
        slow, fast = (_seconds(part, photos, candidate) for candidate in (exact, compute))
    logger.info("fine_tune: a step in bf16 takes %.2f times as long as in fp32", fast / slow)
    return compute if slow > MIN_SPEEDUP * fast else exact


def _seconds(part: nn.Module, batch: Tensor, compute: Compute) -> float:
    """Return the seconds of the fastest of a few forward and backward passes, on a copy."""
    tried = copy.deepcopy(part)
    targets = torch.zeros(len(batch), dtype=torch.int64, device=batch.device)
    seconds = []
    for _ in range(1 + N_TIMED):
        began = time.monotonic()
        with torch.autocast(compute.device.type, compute.dtype, compute.dtype != torch.float32):
            logits = tried(batch)
        functional.cross_entropy(logits.float(), targets).backward()  # type: ignore[no-untyped-call]
        if compute.device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.monotonic() - began)
    return min(seconds[1:])
