"""Pixels: nothing is squashed, nothing depends on threads, order is kept."""

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from tiny import photo

from regraft import pixels as room
from regraft.backbone import Preprocessing
from regraft.errors import UnusablePhoto

SEEN = Preprocessing(
    size=32, resize=36, mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 0.2), interpolation="bicubic"
)


@pytest.fixture
def paths(tmp_path):
    """Seven grey photos, each of its own brightness."""
    files = [tmp_path / f"{number}.png" for number in range(7)]
    for number, file in enumerate(files):
        Image.new("RGB", (40, 48), (number * 30,) * 3).save(file)
    return [str(file) for file in files]


def disc(width, height):
    """A black photo with a white disc in its middle, as wide as half of the shorter side."""
    image = Image.new("RGB", (width, height))
    radius = min(width, height) / 4
    box = (width / 2 - radius, height / 2 - radius, width / 2 + radius, height / 2 + radius)
    ImageDraw.Draw(image).ellipse(box, fill="white")
    return image


def extent(tensor):
    """Columns and rows that hold anything bright."""
    bright = tensor[0] > 127
    return int(bright.any(0).sum()), int(bright.any(1).sum())


@pytest.mark.parametrize(
    "size", [(200, 200), (300, 200), (200, 300), (1000, 100), (90, 2000), (40, 800)]
)
def test_preprocessing_never_distorts(size):
    columns, rows = extent(room.preprocess(disc(*size), SEEN))
    assert abs(columns - rows) <= 1
    assert abs(columns - 18) <= 2  # half of the 36 pixels that the shorter side becomes


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (3, 20_000), (1, 2), (36, 36)])
def test_any_shape_of_photo_becomes_a_square(size):
    for tensor in (
        room.preprocess(Image.new("RGB", size, "red"), SEEN),
        room.augment(Image.new("RGB", size, "red"), SEEN, np.random.default_rng(0)),
    ):
        assert (tensor.shape, tensor.dtype) == ((3, 32, 32), torch.uint8)
        assert torch.equal(tensor, torch.tensor([255, 0, 0]).view(3, 1, 1).expand(3, 32, 32))


def test_a_ribbon_does_not_cost_gigabytes():
    began = time.perf_counter()
    room.preprocess(Image.new("RGB", (1, 60_000)), SEEN.model_copy(update={"resize": 256}))
    assert time.perf_counter() - began < 1  # resizing it whole would fill 12 GB


def test_the_test_crop_is_the_centre():
    image = Image.new("RGB", (72, 36), "black")
    image.paste("white", (20, 2, 52, 34))
    assert bool((room.preprocess(image, SEEN) == 255).all())


@pytest.mark.parametrize("size", [(400, 400), (900, 300), (300, 900)])
def test_augmentation_distorts_no_more_than_stated(size):
    """Also in long photos, where a crop of the wished area does not fit."""
    width, height = size
    stripes = np.zeros((height, width, 3), np.uint8)
    stripes[..., 0], stripes[..., 1] = (
        np.linspace(0, 255, width)[None, :],
        np.linspace(0, 255, height)[:, None],
    )
    generator = np.random.default_rng(0)
    for _ in range(20):
        crop = room.augment(Image.fromarray(stripes), SEEN, generator).float()
        shown_width = float(crop[0].amax() - crop[0].amin()) / 255 * width
        shown_height = float(crop[1].amax() - crop[1].amin()) / 255 * height
        assert 0.7 < shown_width / shown_height < 1.43


def test_a_training_crop_shows_half_of_a_square_photo_at_least_and_half_are_mirrored():
    ramp = np.broadcast_to(np.linspace(0, 255, 200)[None, :, None], (200, 200, 3)).astype(np.uint8)
    generator = np.random.default_rng(0)
    crops = [room.augment(Image.fromarray(ramp), SEEN, generator).float() for _ in range(60)]
    n_mirrored = sum(float(crop[0, 0, 0]) > float(crop[0, 0, -1]) for crop in crops)
    assert 20 <= n_mirrored <= 40


def test_normalise_is_the_cards_own_arithmetic():
    white = torch.full((2, 3, 4, 4), 255, dtype=torch.uint8)
    normal = room.normalise(white, SEEN)
    assert normal[1, :, 2, 2].tolist() == pytest.approx([1.8, 3.2, 3.5])
    assert normal.is_contiguous(memory_format=torch.channels_last)
    assert normal.dtype == torch.float32


def test_test_batches_keep_the_order_and_the_last_is_smaller(paths):
    batches = list(room.test_batches(paths, SEEN, 3))
    assert [len(batch) for batch in batches] == [3, 3, 1]
    assert torch.cat(batches)[:, 0, 0, 0].tolist() == [0, 30, 60, 90, 120, 150, 180]


def test_train_batches_follow_the_given_positions(paths):
    batches = list(room.train_batches(paths, SEEN, [[6, 0], [3, 1, 2]], (0, 1)))
    assert [batch[:, 0, 0, 0].tolist() for batch in batches] == [[180, 0], [90, 30, 60]]


def test_without_a_seed_training_sees_what_testing_sees(paths):
    (plain,) = room.train_batches(paths, SEEN, [[2, 1]], None)
    (tested,) = room.test_batches([paths[2], paths[1]], SEEN, 2)
    assert torch.equal(plain, tested)


def test_no_photos_make_no_batch():
    assert list(room.test_batches([], SEEN, 3)) == []


def test_a_crop_depends_on_seed_epoch_and_position_alone(tmp_path, monkeypatch):
    files = [str(tmp_path / f"{number}.png") for number in range(6)]
    for number, file in enumerate(files):
        photo(number).save(file)

    def crops(order, seed=(0, 1)):
        batches = list(room.train_batches(files, SEEN, order, seed))
        flat = [at for batch in order for at in batch]
        return dict(zip(flat, torch.cat(batches), strict=True))

    first = crops([[0, 1, 2], [3, 4, 5]])
    monkeypatch.setattr(room, "ThreadPoolExecutor", lambda: ThreadPoolExecutor(1))
    again = crops([[5, 3], [1, 0], [4, 2]])
    assert all(torch.equal(first[at], again[at]) for at in range(6))
    for other in (crops([[0]], (0, 2)), crops([[0]], (1, 1))):
        assert not torch.equal(other[0], first[0])


def test_the_readers_error_reaches_the_caller(paths, tmp_path):
    (tmp_path / "3.png").write_bytes(b"no photo")
    batches = room.test_batches(paths, SEEN, 3)
    assert len(next(batches)) == 3
    with pytest.raises(UnusablePhoto):
        list(batches)


def test_a_reader_that_leaves_early_leaves_no_thread_behind(paths):
    batches = room.test_batches(paths, SEEN, 1)
    next(batches)
    batches.close()
    assert list(batches) == []


@pytest.mark.parametrize("width", [333, 400, 401, 997])
def test_no_crop_reaches_beyond_its_photo(width):
    """Sizes and seeds of which some did, by a rounding error, and ended the training."""
    photo = Image.new("RGB", (width, 300))
    for seed in range(400):
        room.augment(photo, SEEN, np.random.default_rng(seed))
