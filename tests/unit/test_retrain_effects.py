"""What becomes of a changed setting while the photos stay the same: the table of retraining.md."""

import re
from pathlib import Path

import pytest

from regraft.core.config import Config, load_config
from regraft.operations.retrain.effects import describe_effects, effect_of

PAGE = Path(__file__).parents[2] / "docs" / "retraining.md"
EFFECTS = {
    "predict.abstain_below": "revise",
    "predict.target_risk": "revise",
    "classes.renamed": "revise",
    "classes.allow_removal": "judge",
    "promote.rule": "judge",
    "promote.approval": "judge",
    "promote.reports_url": "none",
    "behaviour.must_pass": "judge",
    "behaviour.min_flip": "judge",
    "registry.parity_tolerance": "judge",
    "evaluate.n_bins": "evaluate",
    "evaluate.confidence": "evaluate",
    "split.salt": "train",
    "backbone.source": "train",
    "freeze.policy": "train",
    "tune.epochs": "train",
    "tune.checkpoint_url": "none",
    "ingest.photos": "none",
    "retrain.budget_h": "none",
    "drift.level": "none",
    "batch.n_parallel": "none",
}


@pytest.mark.parametrize(("setting", "effect"), EFFECTS.items())
def test_each_setting_has_the_effect_that_the_page_says(setting, effect):
    assert setting in Config().flat()
    assert effect_of(setting) == effect


def test_no_setting_of_a_model_or_a_verdict_is_without_an_effect():
    places = {name for name in Config().flat() if name.endswith(("_url", ".uri"))}
    sections = ("predict.", "classes.", "behaviour.", "promote.", "evaluate.", "tune.", "freeze.")
    named = [name for name in Config().flat() if name.startswith(sections) and name not in places]
    assert [name for name in named if effect_of(name) == "none"] == []


def test_the_page_names_each_setting_with_an_effect_of_its_own():
    text = PAGE.read_text(encoding="utf-8")
    for section in ("predict", "classes.renamed", "classes.allow_removal", "behaviour"):
        assert re.search(rf"^\| .*`{section}", text, re.MULTILINE), section


def test_a_call_that_changes_nothing_says_nothing():
    config = load_config(None, ("tune.epochs=3",))
    assert describe_effects(config.flat(), config, "pets/2") == ""


def test_a_changed_setting_comes_with_the_command_that_applies_it():
    changed = load_config(None, ("promote.rule=not_inferior", "behaviour.must_pass=/a b"))
    text = describe_effects(Config().flat(), changed, "pets/2")
    assert "regraft promote pets/2 --set 'behaviour.must_pass=/a b'" in text
    assert text.endswith(" --set promote.rule=not_inferior")
    shown = describe_effects(Config().flat(), load_config(None, ("evaluate.n_bins=9",)), "pets/2")
    assert re.search(r"evaluate\.n_bins=9 .*regraft train", shown)
