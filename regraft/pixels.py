"""From a photo to the tensor that a backbone expects; training and test side by side."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import islice

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from regraft.backbone import Preprocessing
from regraft.ingest import NO_LIMIT, read_photo

CROP_AREA = (0.5, 1.0)  # share of the photo in a training crop; a guess
CROP_ASPECT = (3 / 4, 4 / 3)  # Source: Szegedy et al. 2015, as in torchvision's RandomResizedCrop
MAX_ASPECT = 8  # of what is resized: a 1 x 9999 photo would otherwise need gigabytes
N_PREFETCHED = 3  # batches decoded ahead of the one in use; more costs memory and gains nothing


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
    resized = photo.resize((size[0], size[1]), _filter(preprocessing))
    left, top = ((side - preprocessing.size) // 2 for side in resized.size)
    box = (left, top, left + preprocessing.size, top + preprocessing.size)
    return _tensor(resized.crop(box))


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
    return ((pixels.float() - mean) / std).to(memory_format=torch.channels_last)


def test_batches(
    paths: Sequence[str], preprocessing: Preprocessing, batch_size: int
) -> Iterator[Tensor]:
    """The photos in order, as they are tested: (B, 3, S, S) uint8 a batch, the last one smaller."""
    load = partial(_test_photo, preprocessing=preprocessing)
    chunks = [paths[at : at + batch_size] for at in range(0, len(paths), batch_size)]
    return _prefetched([[partial(load, path) for path in chunk] for chunk in chunks])


def train_batches(
    paths: Sequence[str],
    preprocessing: Preprocessing,
    order: list[list[int]],
    seed: tuple[int, int] | None,
) -> Iterator[Tensor]:
    """The photos as they are trained on, in the given batches of positions.

    A photo's crop depends on (seed, position) alone, so a resumed epoch sees the same pixels.

    Args:
        order: positions into paths, a list a batch.
        seed: of the run and of the epoch; None: the photos as they are tested.
    """
    if seed is None:
        plain = partial(_test_photo, preprocessing=preprocessing)
        return _prefetched([[partial(plain, paths[at]) for at in batch] for batch in order])
    load = partial(_train_photo, preprocessing=preprocessing)
    return _prefetched(
        [[partial(load, paths[at], seed=(*seed, at)) for at in batch] for batch in order]
    )


def _test_photo(path: str, preprocessing: Preprocessing) -> Tensor:
    return preprocess(read_photo(path, NO_LIMIT), preprocessing)


def _train_photo(path: str, preprocessing: Preprocessing, seed: tuple[int, ...]) -> Tensor:
    return augment(read_photo(path, NO_LIMIT), preprocessing, np.random.default_rng(seed))


def _prefetched(batches: list[list[Callable[[], Tensor]]]) -> Iterator[Tensor]:
    """Threads decode ahead while the caller computes; Pillow lets the others run meanwhile."""
    with ThreadPoolExecutor() as pool:
        todo = iter(batches)
        waiting = [_submit(pool, batch) for batch in islice(todo, N_PREFETCHED)]
        while waiting:
            pixels = torch.stack([photo.result() for photo in waiting.pop(0)])
            waiting += [_submit(pool, batch) for batch in islice(todo, 1)]
            yield pixels


def _submit(pool: ThreadPoolExecutor, batch: list[Callable[[], Tensor]]) -> list[Future[Tensor]]:
    return [pool.submit(load) for load in batch]


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
