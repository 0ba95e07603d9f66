"""From a photo to the backbone's input tensor, for training and for testing."""

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

CROP_AREA = (0.5, 1.0)  # range of a training crop's share of the photo; guess
CROP_ASPECT = (3 / 4, 4 / 3)  # Source: Szegedy et al. 2015, as in torchvision's RandomResizedCrop
MAX_ASPECT = 8  # of a resized photo: a 1 x 9999 photo would otherwise need gigabytes
# Least length of the decoded shorter side, relative to its length after resizing. Measured on
# enlarged photos of clothes (48 of 12 megapixels, 24 of 5.6, 32 of 3.1) with efficientnet_lite0 in
# fp32: relative L2 difference between the embeddings of the photo decoded at reduced and at full
# scale. Median: 13 % at 1, 5-6 % at 1.5, 4.0 % at 2, 2.3-2.6 % at 2.95, 2.2 % at 4, 1.7-1.9 % at 6.
# For comparison: bf16 4 %, JPEG saved again at quality 95 3 %, a crop by one pixel 10 %. The
# largest difference is 20 % at 2.95 and also at 6; bf16 changes that photo by 14 %. With 2.9, a
# photo of 4032 x 3024 pixels is decoded at a quarter of its scale (2.95 times 256 pixels) and
# becomes a tensor four times faster (in 48 ms, not 189).
OVERSAMPLING = 2.9
N_PREFETCHED = 3  # batches decoded ahead; more need memory and are not faster


class Photo(NamedTuple):
    """The location of a photo (local path or URL) and the sha256 of its file."""

    path: str
    sha256: str


class View(NamedTuple):
    """A random view of every photo; `number`, from 1, is the epoch that trains on the view."""

    seed: int
    number: int


def least_side(preprocessing: Preprocessing, augmented: bool = False) -> int:
    """Return the least length in pixels of the shorter side of a photo decoded at reduced scale.

    Args:
        augmented: for augment(), which resizes a crop and not the whole photo. The side of its
            smallest crop is sqrt(0.5 * 3/4) = 0.61 of the side of a square photo; of a long photo
            it is up to 3/4 of the shorter side.
    """
    if not augmented:
        return math.ceil(OVERSAMPLING * preprocessing.resize)
    smallest_crop = math.sqrt(CROP_AREA[0] * CROP_ASPECT[0])  # share of the photo's shorter side
    return math.ceil(OVERSAMPLING * preprocessing.size / smallest_crop)


def preprocess(photo: Image.Image, preprocessing: Preprocessing) -> Tensor:
    """Return the pixels for testing and serving: shorter side resized, centre cropped.

    Args:
        photo: RGB, any size.

    Returns:
        (3, S, S) uint8, the input of normalise().
    """
    photo = _middle(photo)
    scale = preprocessing.resize / min(photo.size)
    size = tuple(max(preprocessing.size, round(side * scale)) for side in photo.size)
    left, top = ((side - preprocessing.size) // 2 for side in size)
    # The size of a resized pixel, in pixels of the photo.
    wide, high = photo.width / size[0], photo.height / size[1]
    right, bottom = (left + preprocessing.size) * wide, (top + preprocessing.size) * high
    # Only the crop is resized: half of the work, and the same pixels as resizing the whole photo.
    box = (left * wide, top * high, min(photo.width, right), min(photo.height, bottom))
    return _tensor(photo.resize((preprocessing.size,) * 2, _filter(preprocessing), box=box))


def augment(
    photo: Image.Image, preprocessing: Preprocessing, generator: np.random.Generator
) -> Tensor:
    """Return the pixels for training: a random crop of random aspect, mirrored half of the time.

    A crop that does not fit into a long photo is made smaller, not distorted, as in preprocess().

    Returns:
        (3, S, S) uint8.
    """
    width, height = photo.size
    area = width * height * generator.uniform(*CROP_AREA)
    aspect = np.exp(generator.uniform(*np.log(CROP_ASPECT)))
    crop_width, crop_height = np.sqrt(area * aspect), np.sqrt(area / aspect)
    fit = min(1.0, width / crop_width, height / crop_height)
    # Rounding could move the edge of the largest crop outside of the photo: PIL would raise.
    crop_width, crop_height = min(width, fit * crop_width), min(height, fit * crop_height)
    left = generator.uniform(0, width - crop_width)
    top = generator.uniform(0, height - crop_height)
    box = (left, top, min(width, left + crop_width), min(height, top + crop_height))
    side = preprocessing.size
    crop = photo.resize((side, side), _filter(preprocessing), box=box)
    mirrored = generator.random() < 0.5
    return _tensor(crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirrored else crop)


def normalise(pixels: Tensor, preprocessing: Preprocessing) -> Tensor:
    """Return the pixels on the scale of the backbone's training.

    Args:
        pixels: (B, 3, S, S) uint8, on any device.

    Returns:
        (B, 3, S, S) float32, channels last.
    """
    mean = torch.tensor(preprocessing.mean, device=pixels.device).view(1, 3, 1, 1) * 255
    std = torch.tensor(preprocessing.std, device=pixels.device).view(1, 3, 1, 1) * 255
    normal = pixels.float().sub_(mean).div_(std)  # in place: allocating memory is slower
    return normal.to(memory_format=torch.channels_last)


@dataclass(frozen=True)
class LoadSpec:
    """How photos are loaded.

    view: None = the pixels for testing. A random view depends only on the view and on the photo's
        content, so a resumed or a later training gets the same pixels.
    max_pixels: limit of width * height.
    """

    preprocessing: Preprocessing
    view: View | None = None
    max_pixels: int = NO_LIMIT


def photos_of(frame: pd.DataFrame) -> list[Photo]:
    """Return the photos of a table with the columns path and sha256, in its order."""
    return [Photo(*pair) for pair in zip(frame["path"], frame["sha256"], strict=True)]


def consecutive(n_photos: int, batch_size: int) -> list[list[int]]:
    """Return all positions in order, one list per batch; the last batch may be smaller.

    >>> consecutive(5, 2)
    [[0, 1], [2, 3], [4]]
    """
    starts = range(0, n_photos, batch_size)
    return [list(range(at, min(at + batch_size, n_photos))) for at in starts]


def photo_batches(
    photos: Sequence[Photo], order: list[list[int]], load_spec: LoadSpec
) -> Iterator[list[Tensor | UnusablePhoto]]:
    """Yield the photos in batches of the given positions, decoded ahead by threads.

    Args:
        order: positions in photos, one list per batch.

    Yields:
        For each photo of a batch (3, S, S) uint8, the input of normalise(), or the error.
    """
    with ThreadPoolExecutor(n_cores()) as pool:
        todo = iter(order)

        def submit(positions: list[int]) -> list[Future[Tensor | UnusablePhoto]]:
            return [pool.submit(_load, photos[at], load_spec) for at in positions]

        waiting = [submit(batch) for batch in islice(todo, N_PREFETCHED)]
        while waiting:
            loaded = [photo.result() for photo in waiting.pop(0)]
            waiting += [submit(batch) for batch in islice(todo, 1)]
            yield loaded


def stacked(loaded: list[Tensor | UnusablePhoto]) -> Tensor:
    """Return the photos as a batch (B, 3, S, S) uint8, channels last.

    Raises:
        UnusablePhoto: a photo could not be read; training must not skip it silently.
    """
    for photo in loaded:
        if isinstance(photo, UnusablePhoto):
            raise photo
    return batch_of([photo for photo in loaded if isinstance(photo, Tensor)])


def batch_of(photos: list[Tensor]) -> Tensor:
    """Return (B, 3, S, S) uint8, channels last as decoded, without a transposition."""
    return torch.stack([photo.permute(1, 2, 0) for photo in photos]).permute(0, 3, 1, 2)


def _load(photo: Photo, load_spec: LoadSpec) -> Tensor | UnusablePhoto:
    side = least_side(load_spec.preprocessing, augmented=load_spec.view is not None)
    try:
        pixels = read_photo(photo.path, load_spec.max_pixels, side, photo.sha256)
    except UnusablePhoto as error:
        return error
    if load_spec.view is None:
        return preprocess(pixels, load_spec.preprocessing)
    content = int(photo.sha256[:16], 16)
    generator = np.random.default_rng((load_spec.view.seed, load_spec.view.number, content))
    return augment(pixels, load_spec.preprocessing, generator)


def _middle(photo: Image.Image) -> Image.Image:
    """Return the photo, cropped to its middle if it is much longer than wide."""
    width, height = (min(side, MAX_ASPECT * min(photo.size)) for side in photo.size)
    left, top = (photo.width - width) // 2, (photo.height - height) // 2
    return photo.crop((left, top, left + width, top + height))


def _filter(preprocessing: Preprocessing) -> Image.Resampling:
    bicubic = preprocessing.interpolation == "bicubic"
    return Image.Resampling.BICUBIC if bicubic else Image.Resampling.BILINEAR


def _tensor(photo: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(photo)).permute(2, 0, 1)  # (3, S, S)
