"""The number of decoding threads."""

import os


def n_cores() -> int:
    """Return the number of cores of this process, which a container or taskset may limit."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
