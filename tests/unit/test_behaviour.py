"""Behaviour tests: perturbed photos and must-pass photos, computed once, none skipped."""

import hashlib
import os
import re
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from test_embed_store import counted
from tiny import CLASSES, COLOURS, classifier_of, photo

from regraft.core.config import BehaviourConfig, EmbedConfig
from regraft.core.errors import ManifestError, NoPhotos, UnusablePhoto
from regraft.evaluation.behaviour import check_behaviour
from regraft.evaluation.behaviour_result import Behaviour, MustPass
from regraft.model.embed import NO_STORE, embed, judging_compute
from regraft.model.pixels import photos_of

pytestmark = pytest.mark.usefixtures("prepared_once")
FEW = BehaviourConfig(n_photos=6)
N_PASSES = 7  # a photo as it is, and under six changes


def taught(classifier, frame):
    """The classifier with the head that names the nearest class mean of these photos."""
    rows = embed(classifier, photos_of(frame), judging_compute(), NO_STORE).all()
    labels = frame.label.to_numpy()
    means = torch.stack([rows[labels == name].mean(0) for name in classifier.card.classes])
    head = {"head.weight": means, "head.bias": -means.square().sum(1) / 2}
    return replace(classifier, weights=classifier.weights | head)


def table_of(folder, images):
    """The table of images, a list a label, saved as PNG."""
    rows = []
    for label, of_class in images.items():
        for image in of_class:
            path = folder / f"{len(rows)}.png"
            image.save(path)
            sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
            rows.append({"path": str(path), "label": label, "sha256": sha256})
    return pd.DataFrame(rows)


def ramp(seed):
    """A photo that is bright at its right, and a little noisy."""
    noise = np.asarray(photo(seed, (36, 36)), dtype=float) - 128
    grey = np.linspace(40, 200, 36)[None, :, None] + 0.1 * noise  # (36, 36, 3)
    return Image.fromarray(grey.clip(0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    """A store that the tests of this module share: what it holds decides no answer."""
    return EmbedConfig(store_url=str(tmp_path_factory.mktemp("rows")))


@pytest.fixture
def only_flip(monkeypatch):
    """Of the changes only the flip: N_PASSES becomes two."""
    monkeypatch.setattr("regraft.evaluation.behaviour.PERTURBATIONS", {"flip": ("flip",)})


@pytest.fixture(scope="module")
def colourful(start, splits):
    """A classifier that tells colours apart."""
    return taught(start, splits.train)


@pytest.fixture
def must_pass(tmp_path):
    """A folder with two photos a class that the test photos do not have."""
    for at, (label, colour) in enumerate(COLOURS.items()):
        folder = tmp_path / "must pass" / label
        folder.mkdir(parents=True)
        for number in range(2):
            photo(100 + 2 * at + number, colour=colour).save(folder / f"{number}.png")
    return tmp_path / "must pass"


def asked(classifier, place, store=NO_STORE):
    config = BehaviourConfig(must_pass=str(place), n_photos=0)
    return check_behaviour(
        classifier, pd.DataFrame(columns=["path", "sha256", "label"]), config, store
    )


def test_a_model_that_sees_colour_answers_alike_under_flip_and_rotation(colourful, splits, known):
    behaviour = check_behaviour(colourful, splits.frame, BehaviourConfig(n_photos=30), known)
    assert behaviour.n_photos == 30
    assert list(behaviour.agreement) == ["flip", "jpeg", "brightness", "rotation"]
    assert behaviour.agreement["flip"] == 1.0
    assert behaviour.agreement["rotation"] > 0.9
    assert behaviour.must_pass == ()


def test_a_model_that_sees_left_and_right_does_not_stand_a_flip(weights_path, tmp_path):
    ramps = [ramp(seed) for seed in range(6)]
    mirrored = [one.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for one in ramps]
    frame = table_of(tmp_path, {"left": mirrored, "right": ramps})
    sided = taught(classifier_of(weights_path, ("left", "right")), frame)
    agreement = check_behaviour(sided, frame, BehaviourConfig(n_photos=12)).agreement
    assert agreement["flip"] == 0.0
    assert agreement["brightness"] > 0.8


def test_a_model_that_sees_brightness_must_stand_both_darker_and_brighter(weights_path, tmp_path):
    shades = {"dark": 108, "light": 132}  # each passes the middle, 120, under one of the two only
    frame = table_of(
        tmp_path,
        {
            label: [Image.new("RGB", (40, 40), (grey + at, grey, grey)) for at in range(3)]
            for label, grey in shades.items()
        },
    )
    shady = taught(classifier_of(weights_path, ("dark", "light")), frame)
    agreement = check_behaviour(shady, frame, FEW).agreement
    assert agreement["brightness"] == 0.0
    assert agreement["flip"] == agreement["jpeg"] == agreement["rotation"] == 1.0


def test_the_share_is_of_the_photos_that_were_changed(colourful, splits, known):
    """A head for which every photo is of the first class: nothing changes that."""
    head = {"head.weight": torch.zeros(3, 256), "head.bias": torch.tensor([1.0, 0.0, 0.0])}
    constant = replace(colourful, weights=colourful.weights | head)
    behaviour = check_behaviour(constant, splits.test, BehaviourConfig(n_photos=1000), known)
    assert behaviour.n_photos == len(splits.test)
    assert set(behaviour.agreement.values()) == {1.0}


def test_the_changed_photos_are_of_each_class_and_by_content(colourful, splits, only_flip):
    """The others need not even be there."""
    frame = splits.frame.sample(frac=1, random_state=0)
    lowest = frame.sort_values("sha256").groupby("label").head(1).index
    frame.loc[~frame.index.isin(lowest), "path"] = "/nowhere.png"
    assert check_behaviour(colourful, frame, BehaviourConfig(n_photos=3)).n_photos == 3
    with pytest.raises(UnusablePhoto, match=r"^missing: .*/nowhere\.png"):
        check_behaviour(colourful, frame, BehaviourConfig(n_photos=4))


def test_nothing_is_asked_where_nothing_is_wanted(colourful, splits, tmp_path):
    store = EmbedConfig(store_url=str(tmp_path / "rows"))
    behaviour = check_behaviour(colourful, splits.test, BehaviourConfig(n_photos=0), store)
    assert behaviour == Behaviour(0, {}, ())
    assert not re.search(r"\d", str(behaviour))  # no share of nothing
    assert not (tmp_path / "rows").exists()


def test_it_is_told_in_one_line():
    right = MustPass("a", "amber", "amber", 0.9, "")
    both = Behaviour(40, {"flip": 0.95, "jpeg": 1.0}, (right, replace(right, predicted="blue")))
    assert re.findall(r"\d+(?:\.\d+)?%?", str(both)) == ["95.0%", "100.0%", "40", "1", "2"]
    assert str(both).index("flip") < str(both).index("jpeg")
    assert re.findall(r"\d+", str(Behaviour(0, {}, (right,)))) == ["1", "1"]
    assert not re.search(r"[\r\n]", str(both))


def test_a_second_time_and_under_another_head_nothing_is_computed(
    colourful, start, splits, must_pass, tmp_path
):
    store = EmbedConfig(store_url=str(tmp_path / "rows"))
    config = BehaviourConfig(n_photos=6, must_pass=str(must_pass))
    with counted() as passed:
        first = check_behaviour(colourful, splits.frame, config, store)
    assert sum(passed) == 6 * N_PASSES + 6
    with counted() as passed:
        assert check_behaviour(colourful, splits.frame, config, store) == first
        retrained = check_behaviour(start, splits.frame, config, store)
    assert passed == []
    assert retrained != first


def test_what_the_evaluation_has_seen_is_not_computed_again(colourful, splits, tmp_path, only_flip):
    store = EmbedConfig(store_url=str(tmp_path / "rows"))
    embed(colourful, photos_of(splits.frame), judging_compute(), store)
    with counted() as passed:
        check_behaviour(colourful, splits.frame, FEW, store)
    assert sum(passed) == 6  # the flipped ones; as they are they are known


def test_must_pass_photos_are_answered_and_told_in_the_order_of_their_paths(colourful, must_pass):
    answers = asked(colourful, must_pass).must_pass
    assert [one.label for one in answers] == [name for name in CLASSES for _ in range(2)]
    assert [one.predicted for one in answers] == [one.label for one in answers]
    assert all(one.is_right for one in answers)
    assert all(1 / 3 < one.confidence <= 1 for one in answers)
    assert answers[0].path == str(must_pass / "amber" / "0.png")


def test_a_must_pass_photo_that_is_answered_wrongly_is_told(colourful, must_pass):
    shutil.move(must_pass / "blue" / "0.png", must_pass / "green" / "a blue one.png")
    wrong = [one for one in asked(colourful, must_pass).must_pass if not one.is_right]
    assert [(one.label, one.predicted, one.error) for one in wrong] == [("green", "blue", "")]


def test_a_must_pass_photo_is_answered_however_unsure_the_model_is(colourful, must_pass):
    hot = colourful.with_card(temperature=1e6)
    answers = asked(hot, must_pass).must_pass
    assert all(one.is_right for one in answers)
    assert max(one.confidence for one in answers) < 0.34


def test_a_must_pass_photo_that_cannot_be_used_fails_and_is_never_skipped(colourful, must_pass):
    for path in (must_pass / "amber").iterdir():
        path.write_bytes(b"no photo")  # none is left of its class
    (must_pass / "blue" / "0.png").write_bytes(b"")
    photo(9).save(must_pass / "in no class.png")
    answers = asked(colourful, must_pass).must_pass
    assert len(answers) == 7
    bad = [one for one in answers if not one.is_right]
    assert [(one.label, one.predicted, one.confidence) for one in bad] == [
        *[("amber", "", 0.0)] * 2,
        ("blue", "", 0.0),
        ("", "", 0.0),
    ]
    reasons = [one.error.partition(": ")[0] for one in bad]
    assert reasons == ["unreadable", "unreadable", "empty file", "no class folder"]
    assert "PNG" in bad[0].error  # what would be readable


def test_must_pass_photos_may_be_a_manifest(colourful, must_pass):
    wanted = must_pass / "wanted.csv"
    rows = ("blue/0.png,blue", "blue/1.png,green", "gone.png,amber", "http://h:99999/x.png,amber")
    wanted.write_text("\n".join(("image,label", *rows)))
    answers = asked(colourful, wanted).must_pass
    assert [(os.path.basename(one.path), one.is_right) for one in answers] == [
        *(("0.png", True), ("1.png", False), ("gone.png", False), ("x.png", False))
    ]
    assert answers[2].error.startswith("missing: ")
    assert str(must_pass / "gone.png") in answers[2].error
    assert answers[3].error.startswith("not allowed: ")


def test_the_same_photo_under_two_labels_is_judged_under_both(colourful, must_pass):
    shutil.copy(must_pass / "blue" / "0.png", must_pass / "green" / "copy.png")
    answers = asked(colourful, must_pass).must_pass
    assert [one.is_right for one in answers].count(False) == 1
    assert len(answers) == 7


def test_a_photo_over_the_models_limit_of_pixels_fails(colourful, must_pass):
    config = {"ingest.max_pixels": str(40 * 32)}
    photo(7, (41, 32), COLOURS["blue"]).save(must_pass / "blue" / "large.png")
    answers = asked(colourful.with_card(config=config), must_pass).must_pass
    [large] = [one for one in answers if not one.is_right]
    assert large.error.startswith("too many pixels: ")
    assert re.search(r"\b41 x 32\b.*\bingest\.max_pixels\b.*\b1280\b", large.error)


def test_a_must_pass_photo_of_a_class_that_the_model_lacks_is_answered_wrongly(
    colourful, must_pass
):
    (must_pass / "green").rename(must_pass / "purple")
    wrong = [one for one in asked(colourful, must_pass).must_pass if not one.is_right]
    assert [one.label for one in wrong] == ["purple", "purple"]
    assert "'purple'" in wrong[0].error
    assert wrong[0].predicted in CLASSES  # it was asked all the same


def test_a_must_pass_place_that_cannot_be_listed_is_refused(colourful, tmp_path):
    with pytest.raises(NoPhotos, match=r"folder .*/nowhere\b"):
        asked(colourful, tmp_path / "nowhere")
    (tmp_path / "bad.csv").write_text("picture,label\na.png,amber\n")
    with pytest.raises(ManifestError, match=r"\bimage\b.*/bad\.csv.*\bpicture,label\b"):
        asked(colourful, tmp_path / "bad.csv")
