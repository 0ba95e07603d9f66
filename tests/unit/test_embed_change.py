"""Changed photos: changed in one way only, seen as they are tested, kept apart."""

import hashlib
import math
import re
import time

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from tiny import photo

from regraft.core.config import EmbedConfig
from regraft.core.errors import UnusablePhoto
from regraft.model.backbone import Preprocessing
from regraft.model.embed import (
    Change,
    Compute,
    Recipe,
    contents,
    find_rows,
    maker,
    passage,
    rows_of,
)
from regraft.model.embed.change import (
    BRIGHTER,
    DARKER,
    DEGREES,
    changed_batches,
    preprocess_changed,
)
from regraft.model.pixels import Look, Photo, photos_of, preprocess

pytestmark = pytest.mark.usefixtures("prepared_once")
FP32 = Compute(torch.device("cpu"), torch.float32)
CHANGES = Change.__args__
SEEN = Preprocessing(
    size=32, resize=36, mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 0.2), interpolation="bicubic"
)
WHOLE = SEEN.model_copy(update={"resize": 32})  # the crop is all of the shorter side
ODD = SEEN.model_copy(update={"resize": 37, "interpolation": "bilinear"})
LARGE = SEEN.model_copy(update={"size": 224, "resize": 256})
SIZES = [(40, 32), (400, 301), (333, 500), (97, 1000), (20, 16), (36, 36)]


def dotted(x, y):
    """A black photo of 256 pixels with a white dot this far right of and above its middle."""
    image = Image.new("RGB", (256, 256))
    box = (120 + x, 120 - y, 135 + x, 135 - y)  # Pillow draws the last pixel too
    ImageDraw.Draw(image).ellipse(box, fill="white")
    return image


def middle_of_the_white(tensor):
    """Pixels right of and above the middle of (3, S, S)."""
    weight, side = tensor[0].double(), tensor.shape[-1]
    at = torch.arange(side, dtype=torch.float64) + 0.5 - side / 2
    return (
        float((weight.sum(0) * at).sum() / weight.sum()),
        float(-(weight.sum(1) * at).sum() / weight.sum()),
    )


@pytest.mark.parametrize("size", [(64, 32), (400, 300), (300, 900)])
def test_a_flipped_photo_is_mirrored_and_nothing_else(size):
    mirrored = preprocess(photo(1, size), SEEN).flip(-1).float()
    difference = preprocess_changed(photo(1, size), SEEN, "flip").float() - mirrored
    assert difference.abs().max() <= 1  # by rounding, at the edges


@pytest.mark.parametrize("preprocessing", [SEEN, WHOLE, ODD, LARGE])
@pytest.mark.parametrize("size", SIZES)
def test_a_change_of_brightness_moves_no_pixel_and_keeps_all_in_range(size, preprocessing):
    tested = preprocess(photo(2, size), preprocessing).float()
    for change, factor in (("darker", DARKER), ("brighter", BRIGHTER)):
        changed = preprocess_changed(photo(2, size), preprocessing, change).float()
        difference = (changed - (factor * tested).clamp(max=255)).abs()
        assert difference.max() <= 3  # of which 1 to 2 by rounding the edges of the crop
        assert difference.mean() < 0.6


def test_a_poor_jpeg_differs_a_little_everywhere_and_nowhere_much():
    image = photo(3, (40, 30)).resize((400, 300), Image.Resampling.BICUBIC)
    tested = preprocess(image, LARGE).float()
    difference = (preprocess_changed(image, LARGE, "jpeg").float() - tested).abs()
    assert 0.5 < difference.mean() < 6  # grey levels
    assert (difference.amax(dim=0) > 0).float().mean() > 0.5


@pytest.mark.parametrize(("change", "turn"), [("turned_left", 1), ("turned_right", -1)])
def test_a_turned_photo_is_turned_by_the_stated_angle_and_not_zoomed(change, turn):
    x, y = middle_of_the_white(preprocess_changed(dotted(80, 0), LARGE, change))
    assert math.degrees(math.atan2(y, x)) == pytest.approx(turn * DEGREES, abs=0.3)
    assert math.hypot(x, y) == pytest.approx(80, abs=0.5)


@pytest.mark.parametrize("preprocessing", [SEEN, WHOLE, ODD, LARGE])
@pytest.mark.parametrize("change", ["turned_left", "turned_right"])
def test_a_turned_photo_has_no_black_corners(change, preprocessing):
    turned = preprocess_changed(Image.new("RGB", (90, 60), "white"), preprocessing, change)
    assert bool((turned == 255).all())


def test_what_a_turned_photo_has_nothing_for_is_its_own_edge():
    striped = np.zeros((64, 64, 3), np.uint8)
    striped[:, -16:] = 255  # black, with a white right edge
    turned = preprocess_changed(Image.fromarray(striped), WHOLE, "turned_right")
    corners = turned[0, [0, 0, -1, -1], [0, -1, 0, -1]]
    assert corners.tolist() == [0, 255, 0, 255]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (20_000, 3), (36, 36)])
def test_any_shape_of_photo_becomes_a_changed_square(size, change):
    tensor = preprocess_changed(Image.new("RGB", size, (200, 0, 0)), SEEN, change)
    assert (tensor.shape, tensor.dtype) == ((3, 32, 32), torch.uint8)
    red = {"darker": 160, "brighter": 240}.get(change, 200)
    assert (tensor.float() - torch.tensor([red, 0, 0]).view(3, 1, 1)).abs().max() <= 3


def test_a_large_photo_is_changed_as_cheaply_as_a_small_one():
    began = time.process_time()
    preprocess_changed(Image.new("RGB", (1, 60_000)), LARGE, "turned_left")
    preprocess_changed(Image.new("RGB", (4000, 3000)), LARGE, "jpeg")
    assert time.process_time() - began < 1


@pytest.mark.parametrize("change", CHANGES)
def test_there_are_no_dice(change):
    one, other = (preprocess_changed(photo(4), SEEN, change) for _ in range(2))
    assert torch.equal(one, other)
    assert not torch.equal(one, preprocess(photo(4), SEEN))


def saved(image, file):
    image.save(file)
    return Photo(str(file), hashlib.sha256(file.read_bytes()).hexdigest())


def test_changed_photos_come_in_order_and_the_unusable_stand_in_their_places(tmp_path):
    photos = [
        saved(Image.new("RGB", (40, 40), (100 * at,) * 3), tmp_path / f"{at}.png") for at in (0, 1)
    ]
    photos.append(saved(Image.new("RGB", (200, 40)), tmp_path / "large.png"))
    photos.append(photos[0]._replace(sha256="0" * 64))
    look = Look(SEEN, max_pixels=2000)
    first, second = changed_batches(photos, [[1, 0], [2, 3]], look, "darker")
    assert [int(one[0, 0, 0]) for one in first] == [80, 0]
    assert [type(one) for one in second] == [UnusablePhoto, UnusablePhoto]
    assert [one.reason for one in second] == ["too many pixels", "changed"]


def test_what_is_kept_of_unchanged_photos_keeps_its_name():
    """The key as the version before changes computed it, and its maker without their code."""
    made = {"architecture": "timm:test_efficientnet", "weights": "w" * 64, "preprocessing": SEEN}
    recipe = Recipe(**made, compute="float32 on cpu", maker="m")
    assert recipe.key == "2ff8b3e766e84d89b01182fcac9f949a58150ffddfdcbacdfdbcb46337aefe16"
    assert '"view":"","until":"","maker":"m"}' in recipe.model_dump_json()


def test_only_changed_photos_depend_on_the_code_of_changes(start):
    assert passage(start, FP32).recipe.maker == maker()
    assert (
        passage(start, FP32, change="flip").recipe.maker
        == maker("model/embed/change.py")
        != maker()
    )


def test_each_change_is_computed_once_and_kept_apart(start, splits, tmp_path, caplog):
    caplog.set_level("INFO", "regraft.embed")
    config = EmbedConfig(store_url=str(tmp_path / "rows"))
    photos = photos_of(splits.frame)[:4]
    ways = [passage(start, FP32, change=change) for change in (None, *CHANGES)]
    rows = [rows_of(way, photos, config).all() for way in ways]
    assert len({tuple(one.flatten().tolist()) for one in rows}) == len(ways)
    caplog.clear()
    again = [rows_of(way, photos, config).all() for way in ways]
    assert all(torch.equal(one, other) for one, other in zip(rows, again, strict=True))
    assert len(caplog.messages) == len(ways)
    for message, change in zip(caplog.messages, (None, *CHANGES), strict=True):
        n_photos, n_known, n_new = re.findall(r"\b\d+\b", message)[:3]
        assert (n_photos, n_known, n_new) == ("4", "4", "0")
        assert [name for name in CHANGES if name in message] == [change] * bool(change)
    assert {shelf.recipe.view for shelf in contents(config.store_url)} == {"", *CHANGES}


def test_a_changed_photo_that_cannot_be_read_is_told(start, splits, tmp_path):
    gone = Photo(str(tmp_path / "gone.png"), "0" * 64)
    photos = [*photos_of(splits.frame)[:1], gone]
    found = find_rows(passage(start, FP32, change="jpeg"), photos, EmbedConfig())
    assert len(found.rows) == 1
    assert list(found.refused) == [gone.sha256]
