"""Perturbed photos: one perturbation each, preprocessed as in testing, stored separately."""

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
    CacheKey,
    Compute,
    Perturbation,
    contents,
    embedding_code_fingerprint,
    embeddings_for,
    spec_for,
    try_embeddings_for,
)
from regraft.model.embed.perturbations import (
    BRIGHTER,
    DARKER,
    DEGREES,
    perturbed_batches,
    preprocess_perturbed,
)
from regraft.model.pixels import LoadSpec, Photo, photos_of, preprocess

pytestmark = pytest.mark.usefixtures("prepared_once")
FP32 = Compute(torch.device("cpu"), torch.float32)
PERTURBATIONS = Perturbation.__args__
SEEN = Preprocessing(
    size=32, resize=36, mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 0.2), interpolation="bicubic"
)
WHOLE = SEEN.model_copy(update={"resize": 32})  # the crop is all of the shorter side
ODD = SEEN.model_copy(update={"resize": 37, "interpolation": "bilinear"})
LARGE = SEEN.model_copy(update={"size": 224, "resize": 256})
SIZES = [(40, 32), (400, 301), (333, 500), (97, 1000), (20, 16), (36, 36)]


def dotted(x, y):
    """Return a black photo of 256 pixels with a white dot at this offset from its middle."""
    image = Image.new("RGB", (256, 256))
    box = (120 + x, 120 - y, 135 + x, 135 - y)  # Pillow draws the last pixel too
    ImageDraw.Draw(image).ellipse(box, fill="white")
    return image


def middle_of_the_white(tensor):
    """Return the offset of the white pixels from the middle of (3, S, S), right and up."""
    weight, side = tensor[0].double(), tensor.shape[-1]
    at = torch.arange(side, dtype=torch.float64) + 0.5 - side / 2
    return (
        float((weight.sum(0) * at).sum() / weight.sum()),
        float(-(weight.sum(1) * at).sum() / weight.sum()),
    )


@pytest.mark.parametrize("size", [(64, 32), (400, 300), (300, 900)])
def test_a_flipped_photo_is_mirrored_and_nothing_else(size):
    mirrored = preprocess(photo(1, size), SEEN).flip(-1).float()
    difference = preprocess_perturbed(photo(1, size), SEEN, "flip").float() - mirrored
    assert difference.abs().max() <= 1  # by rounding, at the edges


@pytest.mark.parametrize("preprocessing", [SEEN, WHOLE, ODD, LARGE])
@pytest.mark.parametrize("size", SIZES)
def test_a_change_of_brightness_moves_no_pixel_and_keeps_all_in_range(size, preprocessing):
    tested = preprocess(photo(2, size), preprocessing).float()
    for perturbation, factor in (("darker", DARKER), ("brighter", BRIGHTER)):
        changed = preprocess_perturbed(photo(2, size), preprocessing, perturbation).float()
        difference = (changed - (factor * tested).clamp(max=255)).abs()
        assert difference.max() <= 3  # of which 1 to 2 by rounding the edges of the crop
        assert difference.mean() < 0.6


def test_a_poor_jpeg_differs_a_little_everywhere_and_nowhere_much():
    image = photo(3, (40, 30)).resize((400, 300), Image.Resampling.BICUBIC)
    tested = preprocess(image, LARGE).float()
    difference = (preprocess_perturbed(image, LARGE, "jpeg").float() - tested).abs()
    assert 0.5 < difference.mean() < 6  # grey levels
    assert (difference.amax(dim=0) > 0).float().mean() > 0.5


@pytest.mark.parametrize(("perturbation", "turn"), [("turned_left", 1), ("turned_right", -1)])
def test_a_turned_photo_is_turned_by_the_stated_angle_and_not_zoomed(perturbation, turn):
    x, y = middle_of_the_white(preprocess_perturbed(dotted(80, 0), LARGE, perturbation))
    assert math.degrees(math.atan2(y, x)) == pytest.approx(turn * DEGREES, abs=0.3)
    assert math.hypot(x, y) == pytest.approx(80, abs=0.5)


@pytest.mark.parametrize("preprocessing", [SEEN, WHOLE, ODD, LARGE])
@pytest.mark.parametrize("perturbation", ["turned_left", "turned_right"])
def test_a_turned_photo_has_no_black_corners(perturbation, preprocessing):
    turned = preprocess_perturbed(Image.new("RGB", (90, 60), "white"), preprocessing, perturbation)
    assert bool((turned == 255).all())


def test_what_a_turned_photo_has_nothing_for_is_its_own_edge():
    striped = np.zeros((64, 64, 3), np.uint8)
    striped[:, -16:] = 255  # black, with a white right edge
    turned = preprocess_perturbed(Image.fromarray(striped), WHOLE, "turned_right")
    corners = turned[0, [0, 0, -1, -1], [0, -1, 0, -1]]
    assert corners.tolist() == [0, 255, 0, 255]


@pytest.mark.parametrize("perturbation", PERTURBATIONS)
@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (20_000, 3), (36, 36)])
def test_any_shape_of_photo_becomes_a_changed_square(size, perturbation):
    tensor = preprocess_perturbed(Image.new("RGB", size, (200, 0, 0)), SEEN, perturbation)
    assert (tensor.shape, tensor.dtype) == ((3, 32, 32), torch.uint8)
    red = {"darker": 160, "brighter": 240}.get(perturbation, 200)
    assert (tensor.float() - torch.tensor([red, 0, 0]).view(3, 1, 1)).abs().max() <= 3


def test_a_large_photo_is_changed_as_cheaply_as_a_small_one():
    began = time.process_time()
    preprocess_perturbed(Image.new("RGB", (1, 60_000)), LARGE, "turned_left")
    preprocess_perturbed(Image.new("RGB", (4000, 3000)), LARGE, "jpeg")
    assert time.process_time() - began < 1


@pytest.mark.parametrize("perturbation", PERTURBATIONS)
def test_a_perturbation_is_deterministic(perturbation):
    one, other = (preprocess_perturbed(photo(4), SEEN, perturbation) for _ in range(2))
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
    load_spec = LoadSpec(SEEN, max_pixels=2000)
    first, second = perturbed_batches(photos, [[1, 0], [2, 3]], load_spec, "darker")
    assert [int(one[0, 0, 0]) for one in first] == [80, 0]
    assert [type(one) for one in second] == [UnusablePhoto, UnusablePhoto]
    assert [one.reason for one in second] == ["too many pixels", "changed"]


def test_the_cache_key_of_plain_photos_has_a_fixed_digest():
    """Adding a perturbation must not make stored embeddings of plain photos unusable."""
    made = {"architecture": "timm:test_efficientnet", "weights": "w" * 64, "preprocessing": SEEN}
    cache_key = CacheKey(**made, compute="float32 on cpu", code_fingerprint="m")
    assert cache_key.digest == "01369d0ad86849ddd140399b1783ce8a010d9e763f06949717e29ffc3a5d79d1"
    assert '"view":"","until":"","code_fingerprint":"m"}' in cache_key.model_dump_json()


def test_only_perturbed_photos_depend_on_the_code_of_perturbations(start):
    assert spec_for(start, FP32).cache_key.code_fingerprint == embedding_code_fingerprint()
    assert (
        spec_for(start, FP32, perturbation="flip").cache_key.code_fingerprint
        == embedding_code_fingerprint("model/embed/perturbations.py")
        != embedding_code_fingerprint()
    )


def test_each_perturbation_is_computed_once_and_stored_separately(start, splits, tmp_path, caplog):
    caplog.set_level("INFO", "regraft.embed")
    config = EmbedConfig(store_url=str(tmp_path / "rows"))
    photos = photos_of(splits.frame)[:4]
    specs = [
        spec_for(start, FP32, perturbation=perturbation) for perturbation in (None, *PERTURBATIONS)
    ]
    rows = [embeddings_for(spec, photos, config).all() for spec in specs]
    assert len({tuple(one.flatten().tolist()) for one in rows}) == len(specs)
    caplog.clear()
    again = [embeddings_for(spec, photos, config).all() for spec in specs]
    assert all(torch.equal(one, other) for one, other in zip(rows, again, strict=True))
    assert len(caplog.messages) == len(specs)
    for message, expected in zip(caplog.messages, (None, *PERTURBATIONS), strict=True):
        n_photos, n_known, n_new = re.findall(r"\b\d+\b", message)[:3]
        assert (n_photos, n_known, n_new) == ("4", "4", "0")
        named = [name for name in PERTURBATIONS if name in message]
        assert named == ([expected] if expected else [])
    assert {partition.cache_key.view for partition in contents(config.store_url)} == {
        "",
        *PERTURBATIONS,
    }


def test_a_changed_photo_that_cannot_be_read_is_told(start, splits, tmp_path):
    gone = Photo(str(tmp_path / "gone.png"), "0" * 64)
    photos = [*photos_of(splits.frame)[:1], gone]
    found = try_embeddings_for(spec_for(start, FP32, perturbation="jpeg"), photos, EmbedConfig())
    assert len(found.rows) == 1
    assert list(found.refused) == [gone.sha256]
