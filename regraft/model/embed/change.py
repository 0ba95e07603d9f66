"""The small changes of a photo that should not change what it shows; no dice.

They have a file of their own, so that what is kept of unchanged photos does not depend on it.
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
from regraft.model.pixels import Look, Photo, least_side, preprocess

Change = Literal["flip", "jpeg", "darker", "brighter", "turned_left", "turned_right"]

# Source: Hendrycks & Dietterich 2019 (ImageNet-C), the mildest of their five, of 224 pixels too.
JPEG_QUALITY = 25
DARKER, BRIGHTER = 0.8, 1.2  # times each pixel, white stays white; a guess
DEGREES = 8  # to either side; a guess: about as far as a hand holds a camera askew


def changed_batches(
    photos: Sequence[Photo], order: list[list[int]], look: Look, change: Change
) -> Iterator[list[Tensor | UnusablePhoto]]:
    """As photo_batches(), of changed photos; for few of them, nothing is decoded ahead.

    Args:
        order: positions into photos, a list a batch.
        look: without a view.
    """

    def load(at: int) -> Tensor | UnusablePhoto:
        path, sha256 = photos[at]
        try:
            photo = read_photo(path, look.max_pixels, least_side(look.preprocessing), sha256)
        except UnusablePhoto as error:
            return error
        return preprocess_changed(photo, look.preprocessing, change)

    with ThreadPoolExecutor(n_cores()) as pool:
        for positions in order:
            yield list(pool.map(load, positions))


def preprocess_changed(photo: Image.Image, preprocessing: Preprocessing, change: Change) -> Tensor:
    """As preprocess(), of the photo changed at the scale at which the network sees it.

    At that scale a change means the same for a photo of a phone as for a small one: a poor JPEG of
    12 megapixels, made small, shows nothing of it.

    Args:
        photo: RGB, any size.

    Returns:
        (3, S, S) uint8; the pixels of preprocess(), give or take a grey level, but for the change.
    """
    size = preprocessing.size
    margin = max(0, preprocessing.resize - size) // 2  # seen by the change, not by the network
    wide = preprocess(photo, preprocessing.model_copy(update={"size": size + 2 * margin}))
    changed = _changed(Image.fromarray(wide.permute(1, 2, 0).numpy()), change)
    crop = changed.crop((margin, margin, margin + size, margin + size))
    return torch.from_numpy(np.array(crop)).permute(2, 0, 1)  # (3, S, S)


def _changed(photo: Image.Image, change: Change) -> Image.Image:
    match change:
        case "flip":
            return ImageOps.mirror(photo)
        case "jpeg":
            return _saved_poorly(photo)
        case "darker":
            return ImageEnhance.Brightness(photo).enhance(DARKER)
        case "brighter":
            return ImageEnhance.Brightness(photo).enhance(BRIGHTER)
        case "turned_left":
            return _turned(photo, DEGREES)
        case "turned_right":
            return _turned(photo, -DEGREES)


def _saved_poorly(photo: Image.Image) -> Image.Image:
    file = io.BytesIO()
    photo.save(file, "JPEG", quality=JPEG_QUALITY)
    return Image.open(file, formats=["JPEG"]).convert("RGB")


def _turned(photo: Image.Image, degrees: float) -> Image.Image:
    """The square photo turned about its centre, not zoomed.

    What it has nothing for is its own mirrored edge: black corners would be a test of something
    else. With the usual crop of 7/8 of the photo's side, the network does not even see that.
    """
    side = photo.width
    turned = math.radians(abs(degrees))
    beyond = side / 2 * (math.cos(turned) + math.sin(turned) - 1)
    edge = math.ceil(beyond) + 2  # bicubic looks at two pixels more
    filled = np.pad(np.array(photo), ((edge, edge), (edge, edge), (0, 0)), "symmetric")
    whole = Image.fromarray(filled).rotate(degrees, Image.Resampling.BICUBIC)
    return whole.crop((edge, edge, edge + side, edge + side))
