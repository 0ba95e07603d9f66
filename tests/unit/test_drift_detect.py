"""Drift of real files: reading, the stored reference, the report and its page."""

import hashlib
import logging
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image, ImageFilter
from tiny import CLASSES, POLICIES, SETTINGS, photo, splits_of

from regraft.core.config import Config, DriftConfig, EmbedConfig, IngestConfig
from regraft.core.errors import ManifestError, NoPhotos, RegistryError
from regraft.data.ingest.facts import extract_facts
from regraft.drift import (
    choose_reference_split,
    detect_drift,
    gather,
    load_reference,
    make_reference,
    watch,
)
from regraft.drift.page import render_drift_page
from regraft.drift.reference import Reference, distinct
from regraft.model.embed import Compute, choose_compute, judging_compute, logits
from regraft.model.freeze import freeze
from regraft.model.pixels import photos_of
from regraft.training.tune import fine_tune

pytestmark = pytest.mark.usefixtures("prepared_once")
COLOURS = {"amber": (220, 160, 30), "blue": (30, 60, 220), "green": (40, 200, 60)}


def draw(folder: Path, seed: int, n_per_class: int, change=lambda one: one) -> Path:
    for label, colour in COLOURS.items():
        (folder / label).mkdir(parents=True)
        for number in range(n_per_class):
            seed += 1
            change(photo(seed, colour=colour)).save(folder / label / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    """Ninety photos in three splits, as in the image table."""
    folder = draw(tmp_path_factory.mktemp("drift") / "photos", 100, 30)
    frame = gather(str(folder), IngestConfig()).photos
    sides = np.array(["train", "train", "train", "validation", "test"])
    label = [Path(path).parent.name for path in frame.path]
    return splits_of(frame.assign(label=label, split=sides[np.arange(len(frame)) % 5]))


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    place = tmp_path_factory.mktemp("a store")
    return Config(
        embed=EmbedConfig(store_url=str(place / "embeddings")),
        ingest=IngestConfig(memory_url=str(place / "photos")),
        drift=DriftConfig(level=0.02, n_reference=50, n_permutations=500, min_photos=10),
        tune=SETTINGS,
    )


def tuned(start, known, config, policy="probe"):
    plan = freeze(start, POLICIES[policy])
    made = fine_tune(start, plan, known, config.tune, lambda record: None, config.embed)
    judged = photos_of(pd.concat([known.validation, known.test]))
    logits(made.classifier, judged, config.embed)  # as evaluate() does
    return made


@pytest.fixture(scope="module")
def model(start, known, config):
    return tuned(start, known, config).classifier


@pytest.fixture(scope="module")
def reference(model, known, config):
    return make_reference(model, known, config, "train")


@pytest.fixture
def said(caplog):
    caplog.set_level(logging.INFO, "regraft.embed")
    return lambda: re.findall(r"(\d+) new", "\n".join(caplog.messages))


# the reference


@pytest.mark.parametrize("policy", ["probe", "last_block"])
def test_a_reference_is_made_of_what_the_store_knows(start, known, config, policy, said):
    once = config.tune.model_copy(update={"epochs": 1})
    made = tuned(start, known, config.model_copy(update={"tune": once}), policy)
    n_before = len(said())
    side = choose_reference_split(made.plan.thaws_backbone, False, choose_compute(config.tune))
    assert side == {"probe": "train", "last_block": "validation"}[policy]
    reference = make_reference(made.classifier, known, config, side)
    assert said()[n_before:] == ["0", "0"]
    assert reference.split == side


def test_a_backbone_that_ever_learned_its_training_photos_is_compared_with_others():
    whole = judging_compute()
    assert (
        choose_reference_split(thaws_backbone=False, learned_before=False, training=whole)
        == "train"
    )
    assert (
        choose_reference_split(thaws_backbone=False, learned_before=True, training=whole)
        == "validation"
    )
    assert (
        choose_reference_split(thaws_backbone=True, learned_before=False, training=whole)
        == "validation"
    )


def test_numbers_of_another_precision_are_not_compared():
    half = Compute(torch.device("cpu"), torch.bfloat16)
    assert (
        choose_reference_split(thaws_backbone=False, learned_before=False, training=half)
        == "validation"
    )


def test_the_photos_of_a_reference_are_those_of_lowest_sha256(model, known, config, reference):
    expected = known.train.sort_values("sha256").head(50)
    assert reference.photos.label.tolist() == expected.label.tolist()
    assert reference.photos.brightness.tolist() == expected.brightness.tolist()
    shuffled = replace(known, frame=known.frame.sample(frac=1, random_state=0))
    again = make_reference(model, shuffled, config, "train")
    assert torch.equal(again.embeddings, reference.embeddings)
    assert str(reference) == "50 photos of train"


def test_a_reference_knows_how_the_model_errs(reference, known):
    assert reference.errors.confusion.sum() == len(known.validation)
    assert reference.errors.training.tolist() == [18, 18, 18]
    assert reference.errors.learned.tolist() == [1 / 3] * 3


def test_a_reference_comes_back_as_it_was_saved(reference, tmp_path):
    reference.save(tmp_path / "drift")
    back = load_reference(tmp_path / "drift")
    assert torch.equal(back.embeddings, reference.embeddings)
    assert back.embeddings.dtype == torch.float16
    pd.testing.assert_frame_equal(back.photos, reference.photos)
    for name in ("confusion", "training", "learned"):
        assert np.array_equal(getattr(back.errors, name), getattr(reference.errors, name))
    assert (back.split, back.compute) == (reference.split, reference.compute)


def test_a_reference_holds_no_path_and_no_name_of_a_photo(reference, known, tmp_path):
    reference.save(tmp_path)
    held = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    for row in known.frame.itertuples():
        assert row.path.encode() not in held
        assert row.sha256.encode() not in held
    assert not {"path", "sha256", "thumbnail"} & set(reference.photos.columns)


def test_numbers_too_large_for_half_precision_are_kept_whole(start, known, config):
    large = start.weights["backbone.bn2.bias"] + 1e5
    loud = replace(start, weights=start.weights | {"backbone.bn2.bias": large})
    made = make_reference(loud, known, config, "validation")
    assert made.embeddings.dtype == torch.float32
    assert torch.isfinite(made.embeddings).all()


def test_a_damaged_reference_is_told(reference, tmp_path):
    reference.save(tmp_path)
    (tmp_path / "reference.safetensors").write_bytes(b"nothing")
    with pytest.raises(RegistryError, match=rf"{tmp_path}\b.*\("):
        load_reference(tmp_path)


def test_a_reference_of_a_newer_format_is_told(reference, tmp_path, monkeypatch):
    monkeypatch.setattr("regraft.drift.reference.FORMAT", "3")
    reference.save(tmp_path)
    monkeypatch.undo()
    with pytest.raises(RegistryError, match=rf"{tmp_path}\b.*\(format 3, expected format 2\)"):
        load_reference(tmp_path)


# the report


def seen(folder: Path, reference: Reference, model, config, known=frozenset()):
    return watch(str(folder), reference, model, known, config)


def test_photos_alike_are_quiet_and_blurred_ones_are_not(tmp_path, reference, model, config):
    alike = seen(draw(tmp_path / "alike", 500, 10), reference, model, config)
    assert alike.drifted is False
    assert alike.drifted_tests == ()
    assert re.findall(r"\d+", alike.reason) == ["30"]

    def blur(one):
        return one.filter(ImageFilter.GaussianBlur(3))

    other = seen(draw(tmp_path / "blurred", 600, 10, blur), reference, model, config)
    assert other.drifted is True
    assert {one.name for one in other.drifted_tests} >= {"content", "sharpness"}
    assert re.match(r"30\b", other.reason)
    for one in other.drifted_tests:
        assert f"{one.name}: {one.effect}" in other.reason
    assert "less sharp" in other.reason
    assert str(other).startswith(f"drift: {other.reason} (p = {other.p_value:.2g}, ")
    assert other.p_value <= config.drift.level


def test_photos_of_one_colour_have_other_class_shares(tmp_path, reference, model, config):
    folder = draw(tmp_path / "new", 700, 30)
    for label in ("amber", "blue"):
        shutil.rmtree(folder / label)
    report = seen(folder, reference, model, config)
    row = report.shares.set_index("label").loc["green"]
    assert row.training == pytest.approx(1 / 3)
    assert row.low > 0.6
    assert "class shares" in {one.name for one in report.drifted_tests}


def test_too_few_photos_say_nothing(tmp_path, reference, model, config):
    report = seen(draw(tmp_path / "few", 800, 3), reference, model, config)
    assert (report.drifted, report.p_value, report.tests) == (None, 1.0, ())
    assert re.search(r"^9\b.*\bdrift\.min_photos=10$", report.reason)
    assert len(report.photos) == 9


def test_copies_count_once_and_known_photos_not_at_all(tmp_path, reference, model, config, known):
    folder = draw(tmp_path / "new", 900, 5)
    shutil.copytree(folder / "amber", folder / "again")
    for at, path in enumerate(known.train.path.head(4)):
        shutil.copyfile(path, folder / f"known {at}.png")
    report = seen(folder, reference, model, config, frozenset(known.train.sha256))
    assert (report.n_photos, report.n_copies, report.n_known) == (15, 5, 4)


@pytest.mark.parametrize(
    "seed", [2000, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (2100, 2200))]
)
def test_pairs_of_near_copies_of_photos_alike_are_quiet(tmp_path, reference, model, config, seed):
    folder = draw(tmp_path / "new", seed, 10)
    for path in list(folder.rglob("*.png")):
        for n in range(3):
            near = Image.open(path).point(lambda level, n=n: level * (98 - n) // 100)
            near.save(path.with_name(f"{path.stem} {n}.png"))
    report = seen(folder, reference, model, config)
    assert (report.n_photos, report.n_copies, report.drifted) == (30, 90, False)


def test_near_copies_in_a_reference_count_once(model, known, config, reference):
    copies = known.train.assign(sha256="g" + known.train.sha256.str[1:])
    doubled = replace(known, frame=pd.concat([known.frame, copies], ignore_index=True))
    again = make_reference(model, doubled, config, "train")
    assert torch.equal(again.embeddings, reference.embeddings)
    assert again.errors.training.tolist() == [18, 18, 18]


def test_one_photo_of_a_group_counts_and_without_hashes_only_copies_do():
    photos = pd.DataFrame({"sha256": list("ebdaca"), "group": ["x", "y", "x", "", "y", ""]})
    assert distinct(photos, 4).sha256.tolist() == ["a", "b", "d"]
    assert distinct(photos[["sha256"]], 4).sha256.tolist() == list("abcde")


def test_a_manifest_says_which_photos_belong_together(tmp_path, reference, model, config):
    folder = draw(tmp_path / "new", 2300, 2)
    rows = "amber/0.png,a\nblue/0.png,a\ngreen/0.png,\nblue/1.png,\n"
    (folder / "todo.csv").write_text(f"image,group\n{rows}", encoding="utf-8")
    report = seen(folder / "todo.csv", reference, model, config)
    assert (report.n_photos, report.n_copies) == (3, 1)


def test_broken_photos_are_counted_with_their_reason(tmp_path, reference, model, config):
    folder = draw(tmp_path / "new", 1000, 5)
    (folder / "a.png").write_bytes(b"")
    (folder / "b.jpg").write_bytes(b"\xff\xd8\xff nothing")
    report = seen(folder, reference, model, config)
    assert report.n_photos == 15
    assert [Path(path).name for path in report.unusable.path] == ["a.png", "b.jpg"]
    assert report.unusable.reason.tolist() == ["empty file", "truncated"]


def test_only_broken_photos_say_nothing(tmp_path, reference, model, config):
    (tmp_path / "a.png").write_bytes(b"")
    report = seen(tmp_path, reference, model, config)
    assert (report.n_photos, len(report.unusable), report.drifted) == (0, 1, None)
    page = page_of(report)
    assert "a.png" in page
    assert "empty file" in page
    assert "data:image/jpeg" not in page


def test_what_the_store_knows_is_not_opened_again(reference, model, known, config):
    gone = known.test.assign(path="/nowhere/" + known.test.sha256)
    report = detect_drift(reference, model, gone, config, seed=0)
    assert len(report.photos) == len(known.test)
    lost = known.test.assign(path="/nowhere", sha256=[f"{n:064}" for n in range(18)])
    report = detect_drift(reference, model, lost, config, seed=0)
    assert (report.n_photos, report.unusable.reason.tolist()) == (0, ["missing"] * 18)


def test_more_photos_than_can_be_compared_are_drawn_by_their_hash(
    reference, model, known, config, monkeypatch
):
    monkeypatch.setattr(sys.modules["regraft.drift.detect"], "MAX_COMPARED", 12)
    report = detect_drift(reference, model, known.test, config, seed=0)
    assert (report.n_photos, report.n_compared) == (18, 12)
    assert re.search(r"\b18\b[^<]*\b12\b", page_of(report))


def test_the_least_alike_come_first(tmp_path, reference, model, config):
    folder = draw(tmp_path / "new", 1100, 5)
    photo(1, colour=(255, 0, 255)).point(lambda level: 255 - level).save(folder / "odd.png")
    report = seen(folder, reference, model, config)
    assert Path(report.photos.path[0]).name == "odd.png"
    assert report.photos.distance.is_monotonic_decreasing
    assert report.photos.distance[0] > 1


# the photos at a place


def test_a_manifest_without_labels_gives_slices(tmp_path, config):
    folder = draw(tmp_path / "new", 1200, 1)
    rows = "amber/0.png,old\nblue/0.png,new\nnowhere.png,new\n"
    (folder / "todo.csv").write_text(f"image,camera\n{rows}", encoding="utf-8")
    found = gather(str(folder / "todo.csv"), config.ingest)
    assert found.photos["slice:camera"].tolist() == ["old", "new"]
    assert (found.unusable.reason.tolist(), len(found.photos)) == (["missing"], 2)
    table = pd.DataFrame({"image": ["amber/0.png"], "label": ["x"], "hour": [7]})
    table.to_parquet(folder / "todo.parquet")
    found = gather(str(folder / "todo.parquet"), config.ingest)
    assert found.photos["slice:hour"].tolist() == ["7"]
    assert "slice:label" not in found.photos


def test_no_photos_are_told_as_everywhere(tmp_path, config):
    with pytest.raises(NoPhotos, match=rf"{tmp_path}\b"):
        gather(str(tmp_path), config.ingest)
    (tmp_path / "odd.csv").write_text("picture\n", encoding="utf-8")
    with pytest.raises(ManifestError, match=r"\bimage\b.*/odd\.csv\b.*\bpicture\b"):
        gather(str(tmp_path / "odd.csv"), config.ingest)


def test_what_a_photo_was_found_to_be_is_remembered(tmp_path, config, monkeypatch):
    folder = draw(tmp_path / "new", 1300, 1)
    first = gather(str(folder), config.ingest)
    monkeypatch.setattr("regraft.data.ingest.table.extract_facts", None)
    pd.testing.assert_frame_equal(gather(str(folder), config.ingest).photos, first.photos)


# the page


def page_of(report, n_gallery=3) -> str:
    return render_drift_page(report, "tiny, version <1>", "/photos", n_gallery, (("When", "now"),))


def test_the_page_says_what_was_found_and_shows_the_most_distant(reference, model, known, config):
    report = detect_drift(reference, model, known.test, config, seed=0)
    page = page_of(report)
    assert "tiny, version &lt;1&gt;" in page
    assert report.drifted is False
    assert report.reason[1:] in page  # its first letter is a capital there
    assert page.count("data:image/jpeg;base64,") == 3
    assert "<script" not in page
    assert "http:" not in page
    assert "https:" not in page
    for name in ("content", "brightness", "sharpness", "size", "class shares"):
        assert f'<th scope="row">{name}</th>' in page
    assert "data:image/jpeg" not in page_of(report, 0)


def test_the_page_shows_no_more_classes_and_files_than_can_be_read(reference, model, known, config):
    report = detect_drift(reference, model, known.test, config, seed=0)
    many = pd.DataFrame({"path": ["a<b.png"] * 60, "reason": "missing", "detail": "no file"})
    page = page_of(replace(report, unusable=many))
    assert page.count("a&lt;b.png") == 50
    assert re.search(r"\b10 more\b", page)
    wide = pd.concat([report.shares] * 11, ignore_index=True)
    assert re.search(r"\b3 more classes\b", page_of(replace(report, shares=wide)))


def test_a_photo_that_is_gone_keeps_its_name_on_the_page(reference, model, known, config):
    gone = known.test.assign(path="/nowhere/" + known.test.sha256 + ".png")
    page = page_of(detect_drift(reference, model, gone, config, seed=0))
    assert page.count("data:image/jpeg") == 0
    assert page.count('<span class="path">') == 3


# the facts


def facts_of(image, tmp_path):
    path = tmp_path / "one.png"
    image.save(path)
    data = path.read_bytes()
    return extract_facts(data, hashlib.sha256(data).hexdigest(), 10**8)


def test_brightness_is_the_mean_grey(tmp_path):
    flat = photo(0).point(lambda _: 51)
    assert facts_of(flat, tmp_path).brightness == pytest.approx(0.2)
    assert facts_of(flat, tmp_path).sharpness == pytest.approx(-2)


def test_sharpness_falls_with_blur_and_hardly_with_the_size(tmp_path):
    noisy = photo(3, (640, 512))
    sharp = facts_of(noisy, tmp_path).sharpness
    assert facts_of(noisy.filter(ImageFilter.GaussianBlur(8)), tmp_path).sharpness < sharp - 0.5
    assert facts_of(noisy.resize((320, 256)), tmp_path).sharpness == pytest.approx(sharp, abs=0.1)


def test_a_ribbon_and_a_single_pixel_have_facts(tmp_path):
    for size in ((1, 1), (4000, 2), (3, 900)):
        assert np.isfinite(facts_of(photo(0, size), tmp_path).sharpness)


def test_judging_compute_is_what_new_photos_pass(reference):
    assert reference.compute == str(judging_compute())
    assert tuple(COLOURS) == CLASSES
