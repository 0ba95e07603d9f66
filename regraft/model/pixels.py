"""From a photo to the tensor that a backbone expects; training and test side by side."""

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor

from regraft.core.errors import UnusablePhoto
from regraft.data.ingest import NO_LIMIT, n_cores, read_photo
from regraft.model.backbone import Preprocessing

CROP_AREA = (0.5, 1.0)  # share of the photo in a training crop; a guess
CROP_ASPECT = (3 / 4, 4 / 3)  # Source: Szegedy et al. 2015, as in torchvision's RandomResizedCrop
MAX_ASPECT = 8  # of what is resized: a 1 x 9999 photo would otherwise need gigabytes
# How many times as long as the side that it is resized to a photo's shorter side must be after
# decoding. Measured on enlarged photos of clothes (48 of 12 megapixels, 24 of 5.6, 32 of 3.1) with
# efficientnet_lite0 in fp32: by how much an embedding differs from that of the photo decoded whole,
# relative L2, median: 13 % at 1, 5-6 % at 1.5, 4.0 % at 2, 2.3-2.6 % at 2.95, 2.2 % at 4, 1.7-1.9 %
# at 6. For comparison: bf16 4 %, JPEG anew at quality 95 3 %, cropped by one pixel 10 %. The worst
# photo differs by 20 % at 2.95, and still by that at 6; bf16 changes it by 14 %. At 2.9 a phone's
# 4032 x 3024, at a quarter 2.95 times 256, becomes a tensor four times as fast (48 ms for 189).
OVERSAMPLING = 2.9
N_PREFETCHED = 3  # batches decoded ahead of the one in use; more costs memory and gains nothing


class Photo(NamedTuple):
    """Where a photo lies (local path or URL), and the sha256 of its file."""

    path: str
    sha256: str


class View(NamedTuple):
    """A random view of every photo. number: from 1; the view that epoch `number` trains on."""

    seed: int
    number: int


def least_side(preprocessing: Preprocessing, augmented: bool = False) -> int:
    """Pixels that the shorter side of a photo must keep when it is decoded at a reduced scale.

    Args:
        augmented: for augment(), whose smallest crop is resized, and not the whole photo. Of a
            square photo it has sqrt(0.5 * 3/4) = 0.61 of the side; of a long one more of the
            shorter side, up to 3/4.
    """
    if not augmented:
        return math.ceil(OVERSAMPLING * preprocessing.resize)
    smallest_crop = math.sqrt(CROP_AREA[0] * CROP_ASPECT[0])  # share of the photo's shorter side
    return math.ceil(OVERSAMPLING * preprocessing.size / smallest_crop)


def preprocess(photo: Image.Image, preprocessing: Preprocessing) -> Tensor:
    """The photo as it is tested and served: shorter side resized, centre cropped; no distortion.

    Args:
        photo: RGB, any size.

    Returns:
        (3, S, S) uint8; normalise() belongs to it.
    """
    photo = _middle(photo)
    scale = preprocessing.resize / min(photo.size)
    size = tuple(max(preprocessing.size, round(side * scale)) for side in photo.size)
    left, top = ((side - preprocessing.size) // 2 for side in size)
    wide, high = photo.width / size[0], photo.height / size[1]  # of a resized pixel, in the photo
    right, bottom = (left + preprocessing.size) * wide, (top + preprocessing.size) * high
    # Only the crop is computed, half of the work; the pixels are those of the whole, cropped.
    box = (left * wide, top * high, min(photo.width, right), min(photo.height, bottom))
    return _tensor(photo.resize((preprocessing.size,) * 2, _filter(preprocessing), box=box))


def augment(
    photo: Image.Image, preprocessing: Preprocessing, generator: np.random.Generator
) -> Tensor:
    """The photo as it is trained on: a random crop of random aspect, mirrored half of the time.

    A crop that does not fit into a long photo is made smaller, not squashed: testing does the same.

    Returns:
        (3, S, S) uint8.
    """
    width, height = photo.size
    area = width * height * generator.uniform(*CROP_AREA)
    aspect = np.exp(generator.uniform(*np.log(CROP_ASPECT)))
    crop_width, crop_height = np.sqrt(area * aspect), np.sqrt(area / aspect)
    fit = min(1.0, width / crop_width, height / crop_height)
    # Rounding may carry a crop that just fits a hair beyond the photo, which nobody accepts.
    crop_width, crop_height = min(width, fit * crop_width), min(height, fit * crop_height)
    left = generator.uniform(0, width - crop_width)
    top = generator.uniform(0, height - crop_height)
    box = (left, top, min(width, left + crop_width), min(height, top + crop_height))
    side = preprocessing.size
    crop = photo.resize((side, side), _filter(preprocessing), box=box)
    mirrored = generator.random() < 0.5
    return _tensor(crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirrored else crop)


def normalise(pixels: Tensor, preprocessing: Preprocessing) -> Tensor:
    """The pixels on the scale that the weights were trained on.

    Args:
        pixels: (B, 3, S, S) uint8, on any device.

    Returns:
        (B, 3, S, S) float32, channels last.
    """
    mean = torch.tensor(preprocessing.mean, device=pixels.device).view(1, 3, 1, 1) * 255
    std = torch.tensor(preprocessing.std, device=pixels.device).view(1, 3, 1, 1) * 255
    normal = pixels.float().sub_(mean).div_(std)  # in place: memory that is new costs more
    return normal.to(memory_format=torch.channels_last)


@dataclass(frozen=True)
class Look:
    """How photos are looked at.

    view: None = as they are tested. A view of a photo depends on the view and on the photo's
        content alone, so a resumed or a later training sees the same pixels.
    max_pixels: width * height at most.
    """

    preprocessing: Preprocessing
    view: View | None = None
    max_pixels: int = NO_LIMIT


def photos_of(frame: pd.DataFrame) -> list[Photo]:
    """The photos of a table with the columns path and sha256, in its order."""
    return [Photo(*pair) for pair in zip(frame["path"], frame["sha256"], strict=True)]


def consecutive(n_photos: int, batch_size: int) -> list[list[int]]:
    """Positions in order, a list a batch, the last one smaller.

    >>> consecutive(5, 2)
    [[0, 1], [2, 3], [4]]
    """
    starts = range(0, n_photos, batch_size)
    return [list(range(at, min(at + batch_size, n_photos))) for at in starts]


def photo_batches(
    photos: Sequence[Photo], order: list[list[int]], look: Look
) -> Iterator[list[Tensor | UnusablePhoto]]:
    """The photos in the given batches of positions, decoded ahead of the caller by threads.

    Args:
        order: positions into photos, a list a batch.

    Yields:
        For each photo of a batch (3, S, S) uint8, or why there is none; normalise() belongs to it.
    """
    with ThreadPoolExecutor(n_cores()) as pool:
        todo = iter(order)

        def submit(positions: list[int]) -> list[Future[Tensor | UnusablePhoto]]:
            return [pool.submit(_load, photos[at], look) for at in positions]

        waiting = [submit(batch) for batch in islice(todo, N_PREFETCHED)]
        while waiting:
            loaded = [photo.result() for photo in waiting.pop(0)]
            waiting += [submit(batch) for batch in islice(todo, 1)]
            yield loaded


def stacked(loaded: list[Tensor | UnusablePhoto]) -> Tensor:
    """(B, 3, S, S) uint8, channels last.

    Raises:
        UnusablePhoto: one of them is none; training would miss it in silence.
    """
    for photo in loaded:
        if isinstance(photo, UnusablePhoto):
            raise photo
    return batch_of([photo for photo in loaded if isinstance(photo, Tensor)])


def batch_of(photos: list[Tensor]) -> Tensor:
    """(B, 3, S, S) uint8, channels last as the decoder left them: nothing is transposed."""
    return torch.stack([photo.permute(1, 2, 0) for photo in photos]).permute(0, 3, 1, 2)


def _load(photo: Photo, look: Look) -> Tensor | UnusablePhoto:
    side = least_side(look.preprocessing, augmented=look.view is not None)
    try:
        pixels = read_photo(photo.path, look.max_pixels, side, photo.sha256)
    except UnusablePhoto as error:
        return error
    if look.view is None:
        return preprocess(pixels, look.preprocessing)
    content = int(photo.sha256[:16], 16)
    generator = np.random.default_rng((look.view.seed, look.view.number, content))
    return augment(pixels, look.preprocessing, generator)


def _middle(photo: Image.Image) -> Image.Image:
    """The photo; the middle of it, if it is a ribbon whose ends no centre crop would show."""
    width, height = (min(side, MAX_ASPECT * min(photo.size)) for side in photo.size)
    left, top = (photo.width - width) // 2, (photo.height - height) // 2
    return photo.crop((left, top, left + width, top + height))


def _filter(preprocessing: Preprocessing) -> Image.Resampling:
    bicubic = preprocessing.interpolation == "bicubic"
    return Image.Resampling.BICUBIC if bicubic else Image.Resampling.BILINEAR


def _tensor(photo: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(photo)).permute(2, 0, 1)  # (3, S, S)
