"""How many threads decode."""

import os


def n_cores() -> int:
    """The cores that this process may use, which a container or taskset may have limited."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
