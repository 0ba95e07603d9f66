"""The device and the precision of a network's computation."""

import ctypes
import os
import platform
from dataclasses import dataclass
from functools import cache

import torch

from regraft.core.config import TuneConfig
from regraft.core.errors import ConfigError

# Option numbers of glibc. Source: malloc.h. Releases before 2.35 accept 32 MiB at most.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_MAX_INT, _MAX_BEFORE_2_35 = 2**31 - 1, 32 * 2**20


@dataclass(frozen=True)
class Compute:
    """A device and a precision."""

    device: torch.device
    dtype: torch.dtype

    def __str__(self) -> str:
        return f"{str(self.dtype).removeprefix('torch.')} on {self.device.type}"


def choose_compute(config: TuneConfig) -> Compute:
    """Return the device and the precision that the configuration selects on this machine.

    Raises:
        ConfigError: the configuration requires cuda and torch finds no GPU.
    """
    cuda = torch.cuda.is_available()
    if config.device == "cuda" and not cuda:
        raise ConfigError("tune.device is cuda, but torch finds no GPU. Use auto or cpu.")
    device = torch.device("cuda" if cuda and config.device != "cpu" else "cpu")
    if config.precision == "auto":
        fast_bf16 = torch.cuda.is_bf16_supported() if device.type == "cuda" else _cpu_has_bf16()
    else:
        fast_bf16 = config.precision == "bf16"
    return Compute(device, torch.bfloat16 if fast_bf16 else torch.float32)


def judging_compute() -> Compute:
    """Return fp32 on the best device, for evaluation and prediction.

    Their results are therefore the same on machines with and without bf16.
    """
    return Compute(torch.device("cuda" if torch.cuda.is_available() else "cpu"), torch.float32)


def _cpu_has_bf16() -> bool:
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


@cache
def keep_freed_memory() -> None:
    """Configure glibc to reuse freed memory, for the rest of the process.

    By default glibc returns large blocks to the system, which maps and clears them again for each
    layer of each batch. Without that a pass is about twice as fast (measured,
    docs/performance.md). Nothing changes on other systems, with another allocator, or if the user
    has set glibc's own variables.
    """
    is_set = any(
        name in os.environ for name in ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_")
    )
    if platform.libc_ver()[0] != "glibc" or is_set:
        return
    allocator = ctypes.CDLL(None)
    # mallopt returns 0 on failure. Setting the second option alone would fix the first at 128 kB.
    sizes = (_MAX_INT, _MAX_BEFORE_2_35)
    if any(allocator.mallopt(_M_MMAP_THRESHOLD, size) for size in sizes):
        allocator.mallopt(_M_TRIM_THRESHOLD, _MAX_INT)
