"""The classifier as a value: saving and loading, content hash, class contract."""

import json
import os
import shutil
from dataclasses import replace

import fsspec
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tiny import CLASSES, classifier_of

from regraft.core.config import BackboneConfig
from regraft.core.errors import WeightsMismatch, WeightsNotFound
from regraft.model.backbone import BackboneInfo, Preprocessing, SourceTask
from regraft.model.card import CARD_FILE, Card, ClassContract
from regraft.model.classifier import (
    WEIGHTS_FILE,
    ImageClassifier,
    load_classifier,
    load_pretrained,
    regraft,
    tensor_bytes,
)


@pytest.fixture(scope="module")
def champion(start):
    """A classifier with distinct head rows: row k has the value k + 1."""
    rows = torch.arange(1.0, 4.0)
    head = {"head.weight": rows[:, None].repeat(1, 256), "head.bias": rows.clone()}
    card = start.card.model_copy(update={"temperature": 1.5, "dataset_digest": "abc"})
    return ImageClassifier(card, start.weights | head)


@pytest.fixture
def bundle(champion, tmp_path):
    folder = tmp_path / "a bundle"
    champion.save(folder)
    return folder


def same_bits(one, other):
    assert one.keys() == other.keys()
    assert all(tensor_bytes(one[name]) == tensor_bytes(other[name]) for name in one)
    assert all(one[name].dtype == other[name].dtype for name in one)


def warm(url, classes=CLASSES):
    return load_pretrained(BackboneConfig(source=f"bundle:{url}"), classes)


def test_loaded_is_saved_bit_for_bit(champion, bundle):
    loaded = load_classifier(bundle)
    assert loaded.card == champion.card
    same_bits(loaded.weights, champion.weights)
    assert loaded.content_hash == champion.content_hash


def test_a_network_in_channels_last_saves_the_same_bits(champion, tmp_path):
    network = champion.build().to(memory_format=torch.channels_last)
    champion.with_weights(network).save(tmp_path)
    same_bits(load_classifier(tmp_path).weights, champion.weights)


def test_the_loaded_network_answers_as_the_saved_one(champion, bundle):
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        answers = [one.build()(pixels) for one in (champion, load_classifier(bundle))]
    assert torch.equal(*answers)


def test_a_built_network_shares_nothing_with_the_value(champion):
    before = champion.content_hash
    network = champion.build()
    assert not network.training
    with torch.no_grad():
        network.head.weight.zero_()
    taken = champion.with_weights(network)
    with torch.no_grad():
        network.head.bias.fill_(9)
    assert champion.content_hash == before
    assert bool((taken.weights["head.weight"] == 0).all())
    assert taken.weights["head.bias"].tolist() == [1, 2, 3]


def with_backbone(classifier, **changes):
    return classifier.with_card(backbone=classifier.card.backbone.model_copy(update=changes))


def with_preprocessing(classifier, **changes):
    seen = classifier.card.backbone.preprocessing.model_copy(update=changes)
    return with_backbone(classifier, preprocessing=seen)


@pytest.mark.parametrize(
    "change",
    [
        lambda c: replace(c, weights=c.weights | {"head.bias": c.weights["head.bias"] + 1e-6}),
        lambda c: replace(c, weights=c.weights | {"head.bias": c.weights["head.bias"].double()}),
        lambda c: c.with_card(classes=c.card.classes[::-1]),
        lambda c: c.with_card(temperature=1.25),
        lambda c: c.with_card(abstain_below=0.5),
        lambda c: with_preprocessing(c, mean=(0.5, 0.5, 0.5)),
        lambda c: with_preprocessing(c, resize=35),
        lambda c: with_preprocessing(c, interpolation="bilinear"),
        lambda c: with_backbone(c, architecture="timm:another"),
    ],
)
def test_what_changes_an_answer_changes_the_content_hash(champion, change):
    assert change(champion).content_hash != champion.content_hash


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c.with_card(dataset_digest="other"),
        lambda c: c.with_card(config={"tune.epochs": "9"}, versions={"torch": "0"}),
        lambda c: c.with_card(contract=c.card.contract.model_copy(update={"retained": ("x",)})),
        lambda c: with_backbone(c, source="file:/elsewhere", sha256="0" * 64),
        lambda c: replace(c, weights=dict(reversed(c.weights.items()))),
        lambda c: replace(
            c,
            weights={
                name: t.to(memory_format=torch.channels_last) if t.ndim == 4 else t
                for name, t in c.weights.items()
            },
        ),
    ],
)
def test_what_changes_no_answer_leaves_the_content_hash(champion, change):
    assert change(champion).content_hash == champion.content_hash


def test_without_abstention_the_threshold_is_not_part_of_the_content_hash():
    preprocessing = Preprocessing(
        size=8, resize=8, mean=(0.5,) * 3, std=(0.5,) * 3, interpolation="bilinear"
    )
    info = BackboneInfo(
        source="bundled:tiny",
        architecture="timm:tiny",
        embedding_dim=4,
        preprocessing=preprocessing,
        source_task=SourceTask(data="ImageNet-1k", n_classes=1000, licence="Apache-2.0"),
        sha256="ab" * 32,
    )
    contract = ClassContract(added=("ant", "bee"))
    card = Card(classes=("ant", "bee"), backbone=info, contract=contract, temperature=1.5)
    classifier = ImageClassifier(card, {"head.bias": torch.tensor([0.5, -1.0])})
    assert classifier.content_hash == (
        "10d901dbf1a0039cb456801092ef0276ddbf8ceddcd66a921dfab160c4bae3b4"
    )


def test_a_card_without_a_threshold_never_abstains(champion, bundle):
    card = json.loads((bundle / CARD_FILE).read_text())
    del card["abstain_below"]
    (bundle / CARD_FILE).write_text(json.dumps(card))
    assert load_classifier(bundle).card == champion.card
    assert champion.card.abstain_below == 0.0


def test_a_threshold_is_saved_and_reset_by_the_next_training(champion, tmp_path):
    unsure = champion.with_card(abstain_below=0.7)
    unsure.save(tmp_path)
    assert load_classifier(tmp_path).card.abstain_below == 0.7
    assert regraft(unsure, CLASSES).card.abstain_below == 0.0


def test_a_new_head_finds_every_class_equally_probable(start):
    with torch.inference_mode():
        logits = start.build()(torch.randn(2, 3, 32, 32))
    assert logits.tolist() == [[0, 0, 0], [0, 0, 0]]
    assert start.card.contract.added == CLASSES
    assert str(start).endswith("embeddings of 256 values")


def test_blocks_name_every_weight_that_can_be_learned_and_end_in_the_head(start):
    names = [name for block in start.blocks() for name in block.parameters]
    assert names == [name for name, _ in start.build().named_parameters()]
    assert start.blocks()[-1].parameters == ("head.weight", "head.bias")


def test_kept_classes_keep_their_rows_in_whatever_order(champion):
    classes = ("green", "violet", "amber")
    again = regraft(champion, classes)
    assert again.weights["head.bias"].tolist() == [3, 0, 1]
    assert again.weights["head.weight"][:, 7].tolist() == [3, 0, 1]
    assert again.weights["head.weight"].shape == (3, 256)
    contract = again.card.contract
    assert contract.retained == ("green", "amber")
    assert (contract.added, contract.removed) == (("violet",), ("blue",))
    assert (again.card.classes, again.card.temperature) == (classes, 1.0)
    assert again.card.parent == champion.content_hash
    assert champion.content_hash[:12] in str(again)


def test_a_row_that_is_not_a_number_does_not_spread_to_new_classes(champion):
    broken = replace(
        champion, weights=champion.weights | {"head.bias": torch.tensor([np.nan, 2.0, 3.0])}
    )
    assert regraft(broken, ("blue", "violet")).weights["head.bias"].tolist() == [2, 0]


def test_regrafting_leaves_the_champion_as_it_was(champion):
    before = champion.content_hash
    regraft(champion, ("blue",))
    assert champion.content_hash == before


def test_the_same_classes_give_the_same_weights(champion):
    same_bits(regraft(champion, CLASSES).weights, champion.weights)


def test_a_bundle_is_taken_from_a_local_folder_with_spaces(bundle, champion):
    for url in (str(bundle), f"{bundle}/"):
        same_bits(warm(url).weights, champion.weights)


def test_a_bundle_is_taken_from_any_store(bundle, champion):
    memory = fsspec.filesystem("memory")
    memory.put(f"{bundle}/", "/registry/bundle/", recursive=True)
    again = warm("memory://registry/bundle", ("green", "amber"))
    assert again.weights["head.bias"].tolist() == [3, 1]
    memory.rm("/registry", recursive=True)


@pytest.mark.parametrize("url", ["memory://registry/nothing", "/no/such/folder"])
def test_no_bundle_at_the_url_is_refused(url):
    with pytest.raises(WeightsNotFound, match=rf"{url}\b"):
        warm(url)


@pytest.mark.parametrize("missing", [WEIGHTS_FILE, CARD_FILE])
def test_half_a_bundle_is_refused(bundle, missing):
    (bundle / missing).unlink()
    with pytest.raises(WeightsNotFound, match=rf"{WEIGHTS_FILE}.*{CARD_FILE}.*/a bundle\b"):
        load_classifier(bundle)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda card: {}, r"classes: \w+"),
        (lambda card: card | {"format": 1}, r"format: .*\b2\b.*Train the model again"),
        (lambda card: card | {"colour": "red"}, r"colour: \w+"),
    ],
)
def test_an_invalid_card_is_refused(bundle, change, complaint):
    card = json.loads((bundle / CARD_FILE).read_text())
    (bundle / CARD_FILE).write_text(json.dumps(change(card)))
    with pytest.raises(WeightsMismatch, match=rf"{CARD_FILE}\b.*\b{complaint}"):
        load_classifier(bundle)


def test_damaged_weights_are_refused(bundle):
    path = bundle / WEIGHTS_FILE
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(WeightsMismatch, match=rf"{WEIGHTS_FILE}\b.*\("):
        load_classifier(bundle)


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("temperature", (0, -1, np.nan, np.inf)),
        ("abstain_below", (-0.1, 1.1, np.nan)),
        ("classes", ([], ["a", "b", "a"])),
        ("classes.2", ("",)),
        ("backbone.architecture", ("", "timm:nothing")),
        ("backbone.embedding_dim", (0, 10**12)),
        ("backbone.preprocessing.size", (0, 10**9)),
        ("backbone.preprocessing.resize", (-1, 10**9)),
        ("backbone.preprocessing.mean", (None, [0.5, 0.5])),
        ("backbone.preprocessing.mean.1", (np.nan, 127.5)),
        ("backbone.preprocessing.std.2", (0, -0.5, np.nan, np.inf, 1e-30)),
        ("backbone.source_task.n_classes", (-1,)),
    ],
)
def test_a_card_out_of_range_is_refused_with_the_file_and_the_field(bundle, field, values):
    text = (bundle / CARD_FILE).read_text()
    *path, last = (int(part) if part.isdigit() else part for part in field.split("."))
    for value in values:
        card = json.loads(text)
        place = card
        for part in path:
            place = place[part]
        place[last] = value
        (bundle / CARD_FILE).write_text(json.dumps(card))
        with pytest.raises(WeightsMismatch) as caught:
            load_classifier(bundle)
        assert f"{bundle / CARD_FILE} is not a valid card: {field}" in str(caught.value), value


def test_a_card_without_a_mean_is_refused(bundle):
    card = json.loads((bundle / CARD_FILE).read_text())
    del card["backbone"]["preprocessing"]["mean"]
    (bundle / CARD_FILE).write_text(json.dumps(card))
    with pytest.raises(WeightsMismatch, match=r"backbone\.preprocessing\.mean: Field required"):
        load_classifier(bundle)


def test_a_card_of_absurd_length_is_not_read(bundle):
    os.truncate(bundle / CARD_FILE, 10**10)  # a sparse file
    with pytest.raises(WeightsMismatch, match=rf"{CARD_FILE}.*at most 67108864 bytes"):
        load_classifier(bundle)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda w: {n: t for n, t in w.items() if "bn1.weight" not in n}, "got none"),
        (lambda w: w | {"backbone.novel": torch.zeros(1)}, r"backbone\.novel: expected none"),
        (
            lambda w: w | {"head.weight": w["head.weight"].half()},
            r"head\.weight.*float16 \(3, 256\)",
        ),
        (lambda w: w | {"head.weight": w["head.weight"][:, 1:].contiguous()}, "256 columns"),
        (
            lambda w: w | {"backbone.bn1.bias": torch.zeros(1)},
            r"backbone\.bn1\.bias.*float32 \(1,\)",
        ),
    ],
)
def test_weights_of_another_network_than_the_card_names_are_refused(
    bundle, champion, change, complaint
):
    save_file(change(champion.weights), bundle / WEIGHTS_FILE)
    with pytest.raises(WeightsMismatch, match=rf"{WEIGHTS_FILE}.*{complaint}"):
        load_classifier(bundle)


@pytest.mark.parametrize("classes", [["one", "two"], ["one", "two", "three", "four"]])
def test_a_card_for_other_classes_than_the_weights_is_refused(bundle, classes):
    card = json.loads((bundle / CARD_FILE).read_text())
    (bundle / CARD_FILE).write_text(json.dumps(card | {"classes": classes}))
    with pytest.raises(WeightsMismatch, match=rf"\b{len(classes)} rows\b.*{WEIGHTS_FILE}.*\b3\b"):
        load_classifier(bundle)


def test_weights_without_a_head_are_refused(bundle):
    save_file({"x": torch.zeros(1)}, bundle / WEIGHTS_FILE)
    with pytest.raises(WeightsMismatch, match=rf"\b3 rows\b.*{WEIGHTS_FILE}.*\bnone\b"):
        load_classifier(bundle)


def test_a_bundle_is_two_files_and_no_pickle(bundle):
    assert sorted(path.name for path in bundle.iterdir()) == [CARD_FILE, WEIGHTS_FILE]


def test_grafting_twice_gives_the_same_classifier(weights_path, start, tmp_path):
    copy = shutil.copy(weights_path, tmp_path / "copy.safetensors")
    assert classifier_of(copy).content_hash == start.content_hash
