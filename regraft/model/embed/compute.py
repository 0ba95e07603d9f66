"""Where and how precisely a network computes."""

import ctypes
import os
import platform
from dataclasses import dataclass
from functools import cache

import torch

from regraft.core.config import TuneConfig
from regraft.core.errors import ConfigError

# Numbers of glibc's options. Source: its malloc.h. Releases before 2.35 take 32 MiB at most.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGEST_INT, _LARGEST_OF_OLD = 2**31 - 1, 32 * 2**20


@dataclass(frozen=True)
class Compute:
    """A device and a precision."""

    device: torch.device
    dtype: torch.dtype

    def __str__(self) -> str:
        return f"{str(self.dtype).removeprefix('torch.')} on {self.device.type}"


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


def _cpu_has_bf16() -> bool:
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


@cache
def keep_freed_memory() -> None:
    """Lets what one layer or batch has freed serve the next, for the rest of the process.

    By default glibc gives large blocks back to the system, which must map and clear them anew for
    each layer of each batch: about twice as fast without (measured, docs/performance.md).
    Elsewhere, with another allocator, or where the user set glibc's own variables, nothing changes.
    """
    is_set = any(
        name in os.environ for name in ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_")
    )
    if platform.libc_ver()[0] != "glibc" or is_set:
        return
    allocator = ctypes.CDLL(None)
    # A refusal is 0. The second option alone would fix the first where it stands, at 128 kB.
    sizes = (_LARGEST_INT, _LARGEST_OF_OLD)
    if any(allocator.mallopt(_M_MMAP_THRESHOLD, size) for size in sizes):
        allocator.mallopt(_M_TRIM_THRESHOLD, _LARGEST_INT)
