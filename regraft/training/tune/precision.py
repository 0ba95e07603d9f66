"""Which precision trains faster here: found out by a few steps, where enough of them follow."""

import copy
import logging
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from regraft.model.embed import Compute
from regraft.training.tune.feed import Settings

logger = logging.getLogger("regraft.fine_tune")

FEWEST_STEPS = 50  # the trial costs about one and a half steps of 32 photos
N_PHOTOS, N_TIMED = 8, 2
# bf16 must be this much faster: near the balance a trial would choose by the noise of the machine.
WORTH_IT = 1.25


def training_compute(
    part: nn.Module, batch: Callable[[], Tensor], settings: Settings, n_steps: int
) -> Compute:
    """The settings' compute, or fp32 where bf16 is not clearly faster.

    On CPUs bf16 is faster in dense layers and slower in the gradient of depthwise ones, so it
    depends on which blocks are thawed. The choice is part of the Arrangement.

    Args:
        part: what is trained, on its device; it is not changed.
        batch: gives (B, ...) what it reads; asked only if a trial is made.
        n_steps: of the whole training; where few follow, no trial is made.
    """
    compute, wish = settings.compute, settings.config.precision
    if compute.dtype is torch.float32 or wish != "auto" or n_steps < FEWEST_STEPS:
        return compute
    exact = Compute(compute.device, torch.float32)
    photos = batch()[:N_PHOTOS]
    with torch.random.fork_rng():
        slow, fast = (_seconds(part, photos, one) for one in (exact, compute))
    logger.info("fine_tune: a step in bf16 takes %.2f of one in fp32", fast / slow)
    return compute if slow > WORTH_IT * fast else exact


def _seconds(part: nn.Module, batch: Tensor, compute: Compute) -> float:
    """Of the fastest of a few forward and backward passes, on a copy."""
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
