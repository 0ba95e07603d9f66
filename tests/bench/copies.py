"""The search for near copies: seconds and memory against the number of photos."""

import resource
import time
from collections.abc import Iterator

import numpy as np
import pandas as pd

from regraft.core.config import SplitConfig
from regraft.data.split.copies import connected, find_near_pairs
from tests.bench.measure import Row

KINDS = (
    "different photos",
    "one scene",
    "one scene, noisy",
    "100 scenes, one hash",
    "one scene, no copies",
)


def copies(sizes: list[int], seeds: list[int]) -> Iterator[Row]:
    """The search alone, on generated hashes and thumbnails of each kind.

    Of a noisy scene, every second frame or fewer is a near copy of another one. In "one scene, no
    copies" the frames' hashes agree and no two thumbnails do: the worst case.
    """
    for kind in KINDS:
        for size in sizes:
            for seed in seeds:
                photos = generate_photos(kind, size, seed)
                began = time.perf_counter()
                pairs = find_near_pairs(photos, SplitConfig().near_duplicate_bits)
                seconds = time.perf_counter() - began
                peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
                chains = len(set(connected(size, pairs.first, pairs.second).tolist()))
                figures = {"search_s": seconds, "peak_mb": peak_mb, "chains": chains}
                yield {"bench": "copies", "who": f"{size} {kind}", "seed": seed} | figures


def generate_photos(kind: str, n: int, seed: int) -> pd.DataFrame:
    """Generate n rows of a kind: phash and thumbnail, as ingest computes them from photos."""
    rng = np.random.default_rng(seed)
    n_scenes = {"different photos": n, "100 scenes, one hash": 100}.get(kind, 1)
    noise = {"one scene": 2.0, "one scene, no copies": 9.0, "different photos": 0.0}.get(
        kind, 3.0
    )  # grey levels
    scene = rng.integers(n_scenes, size=n) if n_scenes < n else np.arange(n)
    greys = rng.integers(40, 200, (n_scenes, 256), dtype=np.uint8)[scene].astype(np.float32)
    greys += noise * rng.standard_normal(greys.shape, dtype=np.float32)
    hashes = rng.integers(0, 2**64, n if n_scenes == n else 1, dtype=np.uint64)
    hashes = np.resize(hashes, n)
    if n_scenes < n:
        for _ in range(2):
            flipped = np.uint64(1) << rng.integers(0, 64, n, dtype=np.uint64)
            hashes ^= np.where(rng.random(n) < 0.8, flipped, np.uint64(0))
    thumbnails = [grey.tobytes() for grey in greys.clip(0, 255).astype(np.uint8)]
    return pd.DataFrame(
        {"phash": [f"{int(each):016x}" for each in hashes], "thumbnail": thumbnails}
    )
