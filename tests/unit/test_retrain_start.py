"""Warm or cold start: as configured, else warm unless the pretrained network is shown better."""

import hashlib
import re
from dataclasses import replace

import pandas as pd
import pytest
import torch
from safetensors.torch import save
from tiny import ARCHITECTURE, CLASSES, SETTINGS, draw_splits

from regraft.core.config import BackboneConfig, Config, EmbedConfig, FreezeConfig, RetrainConfig
from regraft.core.errors import ConfigError
from regraft.model.classifier import load_pretrained
from regraft.operations.retrain.start import choose_start, pin_weights, select_pretrained

pytestmark = pytest.mark.usefixtures("prepared_once")

URL = "s3://models/3/artifacts/bundle"
WARM = BackboneConfig(source=f"bundle:{URL}")
SIDES = ("train",) * 4 + ("validation",) * 8


@pytest.fixture(scope="module")
def colours(tmp_path_factory):
    """Thirty-six photos of three colours, two thirds of them to validate on."""
    return draw_splits(tmp_path_factory.mktemp("colours"), SIDES)


@pytest.fixture(scope="module")
def start(config):
    """The pretrained network, with the preprocessing of its library."""
    return load_pretrained(config.backbone, CLASSES)


@pytest.fixture(scope="module")
def config(weights_path):
    """The configuration of a retraining, with the tiny network as the pretrained backbone."""
    pretrained = BackboneConfig(source=f"file:{weights_path}", architecture=ARCHITECTURE)
    return Config(backbone=pretrained, tune=SETTINGS, freeze=FreezeConfig(policy="last_block"))


@pytest.fixture(scope="module")
def config_stored(config, tmp_path_factory):
    """The same with a store for the whole file, for tests that do not count what is computed."""
    store = EmbedConfig(store_url=str(tmp_path_factory.mktemp("store")))
    return config.model_copy(update={"embed": store})


def wishing(config, start="auto", **backbone):
    changed = {"retrain": RetrainConfig(start=start)}
    changed |= {"backbone": BackboneConfig(**backbone)} if backbone else {}
    return config.model_copy(update=changed)


def blind(classifier):
    """The same network with zero weights, which give every photo the same embedding."""
    zeros = {n: torch.zeros_like(t) for n, t in classifier.weights.items()}
    return replace(classifier, weights=zeros)


def tuned_a_little(classifier):
    """The same network with a changed last norm, as after fine-tuning."""
    name = "backbone.bn2.weight"
    return replace(classifier, weights=classifier.weights | {name: classifier.weights[name] + 0.01})


def test_without_a_champion_the_start_is_the_pretrained_network(colours, config):
    for wish in ("auto", "champion", "pretrained"):
        found = choose_start(None, "", colours, wishing(config, wish))
        assert found.backbone == config.backbone
        assert found.reason == f"from {config.backbone.source}: no version serves yet"


def test_a_backbone_called_champion_needs_one(colours, config):
    model = config.tracking.model_copy(update={"name": "petals"})
    named = wishing(config, source="champion").model_copy(update={"tracking": model})
    with pytest.raises(ConfigError, match=r"backbone\.source is .*'petals'.*bundled:"):
        choose_start(None, "", colours, named)


def test_what_is_asked_for_is_taken_and_nothing_is_measured(start, colours, config, passed):
    champion = tuned_a_little(start)
    warm = choose_start(champion, URL, colours, wishing(config, "champion"))
    assert warm.backbone == WARM
    assert warm.reason.endswith("retrain.start is champion")
    cold = choose_start(champion, URL, colours, wishing(config, "pretrained"))
    assert cold.backbone == config.backbone
    assert str(cold).endswith(f" {config.backbone.source}: retrain.start is pretrained")
    named = choose_start(champion, URL, colours, wishing(config, "pretrained", source="champion"))
    assert named.backbone == WARM
    assert named.reason.endswith("backbone.source is champion")
    assert not passed


def test_a_champion_that_left_the_backbone_as_it_was_leaves_no_choice(
    start, colours, config, passed
):
    found = choose_start(start, URL, colours, config)
    assert found.backbone == config.backbone
    assert config.backbone.source in found.reason
    assert not passed


def test_the_champions_network_is_taken_unless_the_other_is_shown_to_be_better(
    start, colours, config_stored
):
    found = choose_start(tuned_a_little(start), URL, colours, config_stored)
    assert found.backbone == WARM
    assert re.search(r" \d+ of 24 .* \d+ on .*\(p = [\d.]+\)$", found.reason)


def test_a_champion_that_sees_nothing_is_left_for_the_pretrained_network(
    start, colours, config_stored
):
    found = choose_start(blind(start), URL, colours, config_stored)
    assert found.backbone == config_stored.backbone
    assert re.search(r" 2\d of 24 .* 8 on .*\(p = [\d.e-]+\)$", found.reason)


def test_weights_that_are_no_numbers_are_right_about_no_photo(start, colours, config_stored):
    broken = {n: torch.full_like(t, torch.nan) for n, t in start.weights.items() if ".bn2.w" in n}
    champion = replace(start, weights=start.weights | broken)
    assert ", 0 on " in choose_start(champion, URL, colours, config_stored).reason


def test_a_better_start_on_a_handful_of_photos_is_not_shown(start, colours, config_stored):
    frame = colours.frame
    few = frame[frame.split == "validation"].groupby("label").head(1)
    fewer = replace(colours, frame=pd.concat([frame[frame.split == "train"], few]))
    found = choose_start(blind(start), URL, fewer, config_stored)
    assert found.backbone == WARM
    assert "3 of 3 validation photos" in found.reason


def test_without_validation_photos_it_is_the_champions(start, colours, config, passed):
    unjudged = replace(colours, frame=colours.frame[colours.frame.split == "train"])
    found = choose_start(tuned_a_little(start), URL, unjudged, config)
    assert found.backbone == WARM
    assert "validation" in found.reason
    assert not passed


def test_a_probe_says_what_becomes_of_the_champions_tuning(start, colours, config_stored):
    probe = config_stored.model_copy(update={"freeze": FreezeConfig()})
    chosen = (
        choose_start(tuned_a_little(start), URL, colours, probe),
        choose_start(blind(start), URL, colours, probe),
        choose_start(start, URL, colours, wishing(probe, "champion")),
    )
    assert [found.backbone for found in chosen] == [WARM, config_stored.backbone, WARM]
    warm, cold, asked = (found.reason.split("freeze.policy is probe")[1] for found in chosen)
    assert warm == asked != cold
    assert "champion" in cold
    tuned = choose_start(start, URL, colours, wishing(config_stored, "champion"))
    assert "freeze.policy" not in tuned.reason


def test_what_the_store_knows_is_not_paid_for_again(start, colours, config, passed, tmp_path):
    config = config.model_copy(update={"embed": EmbedConfig(store_url=str(tmp_path))})
    champion = tuned_a_little(start)
    first = choose_start(champion, URL, colours, config)
    assert sum(passed) == 2 * 36
    assert choose_start(champion, URL, colours, config) == first
    assert sum(passed) == 2 * 36


def test_pretrained_weights_that_cannot_be_had_leave_the_champions(
    start, colours, config, tmp_path, caplog
):
    gone = {"source": f"file:{tmp_path / 'gone'}", "architecture": ARCHITECTURE}
    found = choose_start(start, URL, colours, wishing(config, **gone))
    assert found.backbone == WARM
    assert gone["source"] in found.reason
    [warning] = [one.getMessage() for one in caplog.records if one.name == "regraft.choose_start"]
    assert gone["source"] in warning


def test_the_card_names_the_pretrained_network_where_the_configuration_does_not(
    start, weights_path, tmp_path
):
    sha256 = hashlib.sha256(weights_path.read_bytes()).hexdigest()
    file = BackboneConfig(source=f"file:{weights_path}", architecture=ARCHITECTURE, sha256=sha256)
    bundled = start.card.backbone.model_copy(update={"source": "bundled:efficientnet_lite2"})
    for source in ("auto", "champion"):
        config = BackboneConfig(source=source)
        assert select_pretrained(start, config) == file
        assert select_pretrained(start.with_card(backbone=bundled), config).source == bundled.source
    named = BackboneConfig(source="bundled:efficientnet_lite0")
    assert select_pretrained(start, named) is named


def test_another_file_of_the_same_name_is_another_start(weights_path, tmp_path):
    path = tmp_path / "weights.safetensors"
    config = Config(backbone=BackboneConfig(source=f"file:{path}", architecture=ARCHITECTURE))
    assert pin_weights(config) is config  # the file does not exist; loading it raises later
    for data in (weights_path.read_bytes(), save({"another": torch.ones(1)})):
        path.write_bytes(data)
        assert pin_weights(config).backbone.sha256 == hashlib.sha256(data).hexdigest()


def test_photos_of_a_new_class_are_asked_too(start, colours, config_stored):
    champion = tuned_a_little(start).with_card(classes=("amber", "blue", "grey"))
    assert choose_start(champion, URL, colours, config_stored).backbone == WARM


def test_a_bundle_that_only_the_server_hands_out_is_no_start(config, start, colours):
    url = "mlflow-artifacts:/1/models/m-1/artifacts/bundle"
    found = choose_start(start, url, colours, wishing(config))
    assert found.backbone == config.backbone
    assert "MLflow" in found.reason
    keys = r"retrain\.start .*tracking\.artifacts_url"
    with pytest.raises(ConfigError, match=rf"{re.escape(url)}.*{keys}"):
        choose_start(start, url, colours, wishing(config, "champion"))
