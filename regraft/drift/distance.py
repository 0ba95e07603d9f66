"""The distance of each new photo to the photos of a reference."""

import numpy as np
from torch import Tensor

from regraft.drift.two_sample import Floats, squared_distances
from regraft.model.embed import Rows

NEAREST = 5  # a photo's distance is measured to its fifth nearest reference photo. Guess
USUAL = 0.95  # share of the reference whose distance to the rest of it counts as usual. Guess
_CHUNK = 2048  # photos measured at once: 8 MB of distances to 1000
_LEAST_STD = 0.1  # of the median std: a nearly constant number must not dominate. Guess


def measure_distances(reference: Tensor, rows: Rows) -> Floats:
    """Return the distance of each photo to its NEAREST-th nearest of the reference, (M,).

    The unit is the distance within which the USUAL share of the reference has its own NEAREST-th
    neighbour. A photo above 1 is far.

    Args:
        reference: (R, D) embeddings, at least two.
        rows: (M, D) embeddings of the photos.
    """
    stored = reference.float().numpy()  # (R, D)
    std = stored.std(axis=0)  # (D,)
    scale = np.maximum(std, max(_LEAST_STD * float(np.median(std)), 1e-6))  # (D,)
    scaled = stored / scale
    apart = squared_distances(scaled, scaled)  # (R, R)
    np.fill_diagonal(apart, np.inf)
    usual = max(float(np.quantile(_to_nearest(apart), USUAL)), 1e-6)
    chunks = [chunk.float().numpy() / scale for chunk in rows.chunks(_CHUNK)]
    measured = [_to_nearest(squared_distances(chunk, scaled)) for chunk in chunks]
    return np.concatenate([np.zeros(0), *measured]) / usual


def _to_nearest(apart: Floats) -> Floats:
    """Return the distance to the NEAREST-th nearest, (M,).

    Args:
        apart: (M, R) squared distances.
    """
    at = min(NEAREST, apart.shape[1] - 1) - 1
    nearest: Floats = np.sqrt(np.partition(apart, at, axis=1)[:, at])
    return nearest
