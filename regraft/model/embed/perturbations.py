"""Small perturbations that should not change the predicted class; without randomness.

They are in a separate file, so that the cache keys of plain photos do not depend on this code.
"""

import io
import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor

from regraft.core.errors import UnusablePhoto
from regraft.data.ingest import n_cores, read_photo
from regraft.model.backbone import Preprocessing
from regraft.model.pixels import LoadSpec, Photo, least_side, preprocess

Perturbation = Literal["flip", "jpeg", "darker", "brighter", "turned_left", "turned_right"]

# Source: Hendrycks & Dietterich 2019 (ImageNet-C), the mildest of 5 levels, also at 224 pixels.
JPEG_QUALITY = 25
DARKER, BRIGHTER = 0.8, 1.2  # factors of each pixel value, clipped at white; guess
DEGREES = 8  # to either side; guess: a typical tilt of a hand-held camera


def perturbed_batches(
    photos: Sequence[Photo], order: list[list[int]], load_spec: LoadSpec, perturbation: Perturbation
) -> Iterator[list[Tensor | UnusablePhoto]]:
    """Yield batches like photo_batches(), of perturbed photos.

    Nothing is decoded ahead, because the photos are few.

    Args:
        order: positions in photos, one list per batch.
        load_spec: without a view.
    """

    def load(at: int) -> Tensor | UnusablePhoto:
        path, sha256 = photos[at]
        try:
            photo = read_photo(
                path, load_spec.max_pixels, least_side(load_spec.preprocessing), sha256
            )
        except UnusablePhoto as error:
            return error
        return preprocess_perturbed(photo, load_spec.preprocessing, perturbation)

    with ThreadPoolExecutor(n_cores()) as pool:
        for positions in order:
            yield list(pool.map(load, positions))


def preprocess_perturbed(
    photo: Image.Image, preprocessing: Preprocessing, perturbation: Perturbation
) -> Tensor:
    """Return the preprocessed photo, perturbed at the scale of the network's input.

    At that scale a perturbation has the same effect on photos of all sizes: in a photo of 12
    megapixels, JPEG artifacts would disappear when the photo is resized.

    Args:
        photo: RGB, any size.

    Returns:
        (3, S, S) uint8; apart from the perturbation equal to preprocess(), within 1 grey level.
    """
    size = preprocessing.size
    # Pixels around the network's input, for perturbations that move the edge.
    margin = max(0, preprocessing.resize - size) // 2
    wide = preprocess(photo, preprocessing.model_copy(update={"size": size + 2 * margin}))
    perturbed = _perturb(Image.fromarray(wide.permute(1, 2, 0).numpy()), perturbation)
    crop = perturbed.crop((margin, margin, margin + size, margin + size))
    return torch.from_numpy(np.array(crop)).permute(2, 0, 1)  # (3, S, S)


def _perturb(photo: Image.Image, perturbation: Perturbation) -> Image.Image:
    match perturbation:
        case "flip":
            return ImageOps.mirror(photo)
        case "jpeg":
            return _compress(photo)
        case "darker":
            return ImageEnhance.Brightness(photo).enhance(DARKER)
        case "brighter":
            return ImageEnhance.Brightness(photo).enhance(BRIGHTER)
        case "turned_left":
            return _rotate(photo, DEGREES)
        case "turned_right":
            return _rotate(photo, -DEGREES)


def _compress(photo: Image.Image) -> Image.Image:
    file = io.BytesIO()
    photo.save(file, "JPEG", quality=JPEG_QUALITY)
    return Image.open(file, formats=["JPEG"]).convert("RGB")


def _rotate(photo: Image.Image, degrees: float) -> Image.Image:
    """Return the square photo rotated about its centre, not zoomed.

    The corners are filled with the mirrored edge: black corners would be a second perturbation.
    With the usual crop of 7/8 of the photo's side, the network does not receive the corners.
    """
    side = photo.width
    angle = math.radians(abs(degrees))
    beyond = side / 2 * (math.cos(angle) + math.sin(angle) - 1)
    edge = math.ceil(beyond) + 2  # bicubic reads two more pixels
    filled = np.pad(np.array(photo), ((edge, edge), (edge, edge), (0, 0)), "symmetric")
    whole = Image.fromarray(filled).rotate(degrees, Image.Resampling.BICUBIC)
    return whole.crop((edge, edge, edge + side, edge + side))
