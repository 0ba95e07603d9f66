"""A blend in a real registry: its champion is found by content, and the blend can be repeated."""

import json
import re
from dataclasses import replace

import pytest
from tiny_challenger import put, tracking_in, trained

from regraft import registry
from regraft.core.config import Config, RetrainConfig
from regraft.core.errors import ModelNotFound
from regraft.model.classifier import ImageClassifier
from regraft.registry.interpolate import interpolate, load_champion, repeat_blend
from regraft.registry.tracking import end_run, load_attachments, start_run

pytestmark = [pytest.mark.pipeline, pytest.mark.usefixtures("calm")]


def predicting(made, label, loudness):
    """Return the same training with a model that always predicts this class."""
    classifier = made.challenger.classifier
    bias = classifier.weights["head.bias"] * 0
    bias[classifier.card.classes.index(label)] = loudness
    head = {"head.weight": classifier.weights["head.weight"] * 0, "head.bias": bias}
    said = replace(classifier, weights=classifier.weights | head)
    return replace(made, challenger=replace(made.challenger, classifier=said))


@pytest.fixture
def tracking(tmp_path):
    return tracking_in(tmp_path)


@pytest.fixture
def champion(tracking):
    """Version 1, which always predicts amber."""
    return put(predicting(trained(), "amber", 50.0), tracking)


def test_the_champion_is_found_by_its_content_and_no_champion_is_none(tracking, champion):
    found = load_champion(tracking, champion.content_hash)
    assert isinstance(found, ImageClassifier)
    assert found.content_hash == champion.content_hash
    assert load_champion(tracking, "") is None


def test_a_deleted_champion_is_reported(tracking, champion):
    with pytest.raises(ModelNotFound, match=rf"abcdefabcdef .*{tracking.name} .*{tracking.uri}"):
        load_champion(tracking, "abcdef" * 10)


def test_a_blend_descends_from_the_champion_and_is_repeated_from_its_card(tracking, champion):
    config = Config(retrain=RetrainConfig(interpolations=(0.5,)), tracking=tracking)
    made = predicting(trained(), "blue", 25.0)
    serving = load_champion(tracking, champion.content_hash)
    found = interpolate(made.challenger, serving, made.splits, config)
    assert found.interpolation.is_blend
    version = put(replace(made, challenger=found.challenger), tracking)
    line = registry.load_ancestry(tracking, version)
    assert (len(line.manifests), line.is_complete) == (2, True)
    card = registry.load(tracking, version).card
    again = repeat_blend(made.challenger, card, tracking)
    assert again.classifier.content_hash == found.challenger.classifier.content_hash
    assert again.classifier.card.parent == card.parent == champion.content_hash
    plain = repeat_blend(made.challenger, made.challenger.classifier.card, tracking)
    assert plain is made.challenger


def test_the_step_returns_the_blend_and_attaches_its_record_to_the_run(tracking, champion):
    from steps.interpolate import interpolate as step

    config = Config(retrain=RetrainConfig(interpolations=(0.5,)), tracking=tracking)
    run = start_run(tracking, "tiny")
    end_run(run, "FINISHED")
    made = predicting(trained(), "blue", 25.0)
    challenger = replace(made.challenger, run_id=run.run_id)
    blend, told = step.entrypoint(challenger, made.splits, config, champion.content_hash)
    assert blend.classifier.card.parent == champion.content_hash
    record = json.loads(load_attachments(run, "")["interpolation.json"])
    assert (record["alpha"], record["champion"]) == (told.alpha, champion.content_hash)


def test_the_step_returns_the_start_and_the_reason(tracking, champion):
    from steps.choose_start import choose_start as step

    config = Config(tracking=tracking, retrain=RetrainConfig(start="champion"))
    splits = trained().splits
    backbone, why = step.entrypoint(splits, config, champion.content_hash, champion.bundle_url)
    assert backbone.source == f"bundle:{champion.bundle_url}"
    assert re.search(r"\bretrain\.start\b.*\bchampion\b", why)
    backbone, why = step.entrypoint(splits, config, "", "")
    assert backbone.source == "bundled:efficientnet_lite0"
    assert re.search(r"\bbundled:efficientnet_lite0\b", why)
