"""How far each new photo lies from those of a reference."""

import numpy as np
from torch import Tensor

from regraft.drift.two_sample import Floats, squared_distances
from regraft.model.embed import Rows

NEAREST = 5  # reference photos that a photo's distance is measured to. Guess
USUAL = 0.95  # share of the reference that counts as usually near to the rest of it. Guess
_CHUNK = 2048  # photos measured at once: 8 MB of distances to 1000
_LEAST_SPREAD = 0.1  # of the middle number's: one that hardly varies must not decide alone. Guess


def distances(reference: Tensor, rows: Rows) -> Floats:
    """(M,) distance of each photo to its NEAREST-th nearest of the reference.

    In units of the distance that the USUAL share of the reference keeps from the rest of it: above
    1 a photo is far.

    Args:
        reference: (R, D) embeddings, at least two.
        rows: (M, D) embeddings of the photos.
    """
    kept = reference.float().numpy()
    spread = kept.std(axis=0)
    scale = np.maximum(spread, max(_LEAST_SPREAD * float(np.median(spread)), 1e-6))
    scaled = kept / scale
    apart = squared_distances(scaled, scaled)
    np.fill_diagonal(apart, np.inf)
    usual = max(float(np.quantile(_to_nearest(apart), USUAL)), 1e-6)
    chunks = [chunk.float().numpy() / scale for chunk in rows.chunks(_CHUNK)]
    measured = [_to_nearest(squared_distances(chunk, scaled)) for chunk in chunks]
    return np.concatenate([np.zeros(0), *measured]) / usual


def _to_nearest(apart: Floats) -> Floats:
    """(M,) distance to the NEAREST-th nearest of the R, of (M, R) squared distances."""
    at = min(NEAREST, apart.shape[1] - 1) - 1
    nearest: Floats = np.sqrt(np.partition(apart, at, axis=1)[:, at])
    return nearest
