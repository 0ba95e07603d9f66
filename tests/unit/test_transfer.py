"""The transfer gain: compared with random weights, on a stable sample, computed once."""

import hashlib
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from tiny import COLOURS, SETTINGS, draw_splits, splits_of

from regraft.core.config import EmbedConfig
from regraft.model.embed import NO_STORE, Compute, choose_compute, embed, judging_compute
from regraft.model.pixels import photos_of
from regraft.stats import TransferGain
from regraft.training.transfer import (
    N_TEST,
    N_TRAIN,
    N_VALIDATION,
    draw_sample,
    measure_transfer,
    with_random_weights,
)

pytestmark = pytest.mark.usefixtures("prepared_once")

SIDES = ("train",) * 8 + ("validation",) * 4 + ("test",) * 12  # of each class
N_HELD_OUT = 3 * 16
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def colours(tmp_path_factory):
    """Seventy-two photos of three colours, half of them for testing."""
    return draw_splits(tmp_path_factory.mktemp("colours"), SIDES)


def blind(classifier):
    """Return the network with weights that give the same embedding for every photo."""
    zeros = {n: torch.zeros_like(t) for n, t in classifier.weights.items()}
    return replace(classifier, weights=zeros)


@pytest.fixture(scope="module")
def shared_store(tmp_path_factory):
    """A store for all tests of the file that do not count computed photos."""
    return EmbedConfig(store_url=str(tmp_path_factory.mktemp("store")))


def measured(classifier, splits, store):
    return measure_transfer(classifier, splits, SETTINGS, store)


def test_weights_that_see_colour_gain_over_weights_that_see_nothing(
    start, colours, shared_store, monkeypatch
):
    monkeypatch.setattr("regraft.training.transfer.with_random_weights", blind)
    gain = measured(start, colours, shared_store)
    assert (gain.n_train, gain.n_test) == (24, 36)
    assert gain.pretrained_accuracy > 0.9
    assert gain.random_accuracy == pytest.approx(1 / 3)
    assert gain.majority_accuracy == pytest.approx(1 / 3)
    assert gain.gain == pytest.approx(gain.pretrained_accuracy - 1 / 3)
    assert 0 < gain.gain_low < gain.gain < gain.gain_high
    assert not gain.is_negative
    assert not gain.is_unproven


def test_pretrained_weights_that_see_nothing_are_negative_transfer(start, colours, shared_store):
    gain = measured(blind(start), colours, shared_store)
    assert gain.pretrained_accuracy == pytest.approx(1 / 3)
    assert gain.random_accuracy > 0.9
    assert gain.gain_high < 0
    assert gain.is_negative
    assert not gain.is_unproven


def test_weights_no_better_than_random_ones_are_unproven(start, colours, shared_store):
    gain = measured(with_random_weights(start), colours, shared_store)
    assert gain.gain == 0
    assert gain.is_unproven
    assert not gain.is_negative


def test_the_majority_class_is_that_of_all_training_photos(start, colours, shared_store):
    frame = colours.frame
    train, test = frame[frame.split == "train"], frame[frame.split == "test"]
    fewer = pd.concat([train[train.label == "blue"][3:], test[test.label == "green"][6:]])
    gain = measured(start, replace(colours, frame=frame.drop(fewer.index)), shared_store)
    assert gain.majority_accuracy == pytest.approx(12 / 30)  # amber, the first of two largest


def test_very_small_embeddings_do_not_count_as_constant(start, colours, shared_store, monkeypatch):
    monkeypatch.setattr("regraft.training.transfer.with_random_weights", blind)
    last = {n: t * 1e-9 for n, t in start.weights.items() if n.startswith("backbone.bn2.")}
    still = {n: start.weights[n] for n in last if "running" in n or "tracked" in n}
    assert len(last) == 5
    dust = replace(start, weights=start.weights | last | still)
    seen = embed(dust, photos_of(colours.test), Compute(CPU, torch.float32), NO_STORE).all()
    assert seen.abs().max() < 1e-10
    assert measured(dust, colours, shared_store).pretrained_accuracy > 0.9


def test_embeddings_that_are_not_finite_have_no_effect(start, colours, shared_store):
    broken = {n: torch.full_like(t, torch.nan) for n, t in start.weights.items() if ".bn2.w" in n}
    gain = measured(replace(start, weights=start.weights | broken), colours, shared_store)
    assert gain.pretrained_accuracy == gain.majority_accuracy


def test_a_second_measurement_computes_nothing(start, colours, tmp_path, passed):
    store = EmbedConfig(store_url=str(tmp_path))
    first = measured(start, colours, store)
    assert sum(passed) == 2 * 72
    assert measured(start, colours, store) == first
    assert sum(passed) == 2 * 72


def test_training_and_evaluation_use_the_stored_embeddings(start, colours, tmp_path, passed):
    store = EmbedConfig(store_url=str(tmp_path))
    measured(start, colours, store)
    passed.clear()
    held_out = pd.concat([colours.validation, colours.test])
    embed(start, photos_of(colours.train), choose_compute(SETTINGS), store)
    assert len(embed(start, photos_of(held_out), judging_compute(), store)) == N_HELD_OUT
    assert not passed


def test_random_weights_are_always_the_same_and_leave_the_global_generator(start):
    before = torch.random.get_rng_state()
    one, other = with_random_weights(start), with_random_weights(start)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert one.content_hash == other.content_hash != start.content_hash
    assert one.card == start.card
    assert one.weights.keys() == start.weights.keys()


@pytest.mark.parametrize(
    "architecture",
    [
        "mobilenetv3_small_100",
        pytest.param("tf_efficientnet_lite0", marks=pytest.mark.slow),
    ],
)
def test_networks_with_random_weights_tell_photos_apart_in_bf16(start, colours, architecture):
    info = start.card.backbone.model_copy(update={"architecture": f"timm:{architecture}"})
    info = info.model_copy(update={"embedding_dim": 1280 if "lite0" in architecture else 1024})
    width = info.embedding_dim
    head = {"head.weight": torch.zeros(3, width), "head.bias": torch.zeros(3)}
    drawn = with_random_weights(replace(start.with_card(backbone=info), weights=head))
    rows = embed(drawn, photos_of(colours.test)[::6], Compute(CPU, torch.bfloat16), NO_STORE)
    seen = rows.all().float()
    assert torch.isfinite(seen).all()
    assert len({tuple(row.tolist()) for row in seen}) == 6
    relative = seen.std(0) / seen.mean(0).abs().clamp_min(1e-30)
    assert relative.median() > 4 * torch.finfo(torch.bfloat16).eps


def many(n, shares=(0.6, 0.3, 0.1), first=0):
    """Return n names and hashes of train photos, without files, in these class shares."""
    labels = np.repeat(list(COLOURS), [round(n * share) for share in shares])
    names = [f"{first + at}" for at in range(n)]
    hashes = [hashlib.sha256(name.encode()).hexdigest() for name in names]
    return pd.DataFrame({"path": names, "label": labels, "split": "train", "sha256": hashes})


def test_the_sample_has_a_size_for_each_split():
    sides = [many(500).assign(split=side) for side in ("test", "train", "validation")]
    sample = draw_sample(splits_of(pd.concat(sides)))
    assert sample.split.value_counts().to_dict() == {
        "train": N_TRAIN,
        "test": N_TEST,
        "validation": N_VALIDATION,
    }


def test_the_sample_keeps_the_shares_of_the_classes():
    counts = draw_sample(splits_of(many(1000))).label.value_counts()
    assert counts.to_dict() == {"amber": 90, "blue": 45, "green": 15}


def test_the_sample_has_a_training_photo_of_the_rarest_class():
    sample = draw_sample(splits_of(many(1000, (0.599, 0.4, 0.001))))
    assert (sample.label == "green").sum() == 1
    frame = many(1000).assign(label=[f"class {at % 200}" for at in range(1000)])
    classes = tuple(sorted(frame.label.unique()))
    assert set(draw_sample(replace(splits_of(frame), classes=classes)).label) == set(classes)


def test_the_sample_follows_content_and_neither_order_nor_names():
    photos = many(1000)
    other = photos.sample(frac=1, random_state=0).assign(path=lambda f: "elsewhere/" + f.path)
    one, two = draw_sample(splits_of(photos)), draw_sample(splits_of(other))
    assert one.sha256.tolist() == two.sha256.tolist()


def test_added_photos_replace_few_of_the_sample():
    photos = many(1000)
    more = pd.concat([photos, many(100, first=1000)])
    before, after = (set(draw_sample(splits_of(f)).sha256) for f in (photos, more))
    assert len(before & after) / len(before) > 0.85


def test_the_gain_is_one_line_of_text():
    gain = TransferGain(150, 120, 0.842, 0.41, 0.175, 0.432, 0.351, 0.51)
    assert "\n" not in str(gain)
    accuracies = ["84.2%", "41.0%", "17.5%"]  # pretrained, random, majority
    assert re.findall(r"[-+]?\d[\d.]*%?", str(gain)) == [*accuracies, "+43", "35", "51", "120"]
