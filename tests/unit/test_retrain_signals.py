"""The signals of a retraining, and the advice on them: read from the registry and the journal.

The registry is in memory, nothing is trained, and the reference of the drift test is absent.
"""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pandas as pd
import pytest
from memory_registry import use_memory_registry

from regraft import registry
from regraft.core.config import Config, apply_overrides, load_config
from regraft.data.split import Splits
from regraft.operations import journal
from regraft.operations.journal import Attempt
from regraft.operations.retrain.conclude import RunOutcome, RunSnapshot, Trained, conclude_run
from regraft.operations.retrain.signals import advise_now, observe_signals
from regraft.registry import ChampionChange, DecisionRecord, move_champion, record_decision
from regraft.registry.versions import CONTENT_HASH

NAME = "pets"
NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
WHO = "ada@engine"
CLASSES = ("cat", "dog")


def photos(n: int) -> pd.DataFrame:
    """n photos of two classes, all in the train split."""
    labels = [CLASSES[number % 2] for number in range(n)]
    hashes = [f"{number:04}" for number in range(n)]
    paths = [f"/photos/{sha256}" for sha256 in hashes]
    columns = {"path": paths, "label": labels, "sha256": hashes, "split": "train"}
    return pd.DataFrame(columns)


def splits_of(n: int) -> Splits:
    nothing = pd.DataFrame(columns=["path"])
    return Splits(photos(n), nothing, nothing, CLASSES, "digest", 0, "/photos", 0)


@pytest.fixture
def memory(monkeypatch):
    """A registry whose versions were all trained on the first 100 photos."""
    monkeypatch.setattr(registry, "load_manifest", lambda tracking, version: photos(100))
    card = SimpleNamespace(classes=CLASSES, config={})
    monkeypatch.setattr(registry, "load_card", lambda tracking, version: card)
    monkeypatch.setattr(registry, "load_reference", lambda tracking, version: None)
    memory = use_memory_registry(monkeypatch)
    memory.create_registered_model(NAME)
    return memory


@pytest.fixture
def config(memory, tmp_path) -> Config:
    tracking = ("tracking.uri=memory", f"tracking.name={NAME}")
    return load_config(None, (*tracking, f"retrain.journal_url={tmp_path}/journal"))


def register(memory, verdict="promote"):
    """The next version; with verdict "" it was never judged."""
    tags = {CONTENT_HASH: "content", **({"verdict": verdict} if verdict else {})}
    number = memory.create_model_version(NAME, "nowhere", tags=tags).version
    memory.set_registered_model_alias(NAME, "challenger", number)
    return int(number)


def promote(config, version, days_ago, expected=None):
    change = ChampionChange("promote", version, f"verdict-{version}", "better", WHO)
    move_champion(config.tracking, NAME, change, expected, NOW - timedelta(days=days_ago))


def write_attempt(config, days_ago, hours, version=None, outcome="keep"):
    """An attempt of some hours that ended some days ago."""
    ended = NOW - timedelta(days=days_ago)
    started = (ended - timedelta(hours=hours)).isoformat()
    attempt = Attempt(NAME, started, ended.isoformat(), WHO, outcome, "", version=version)
    journal.write_record(config.retrain.journal_url, attempt)


def with_retrain(config, **settings) -> Config:
    return config.model_copy(update={"retrain": config.retrain.model_copy(update=settings)})


def message_of(advice, name):
    return next(reason.message for reason in advice.reasons if reason.name == name)


def test_a_model_that_serves_and_unchanged_photos_give_no_signal(memory, config):
    promote(config, register(memory), 40)
    signals = observe_signals(splits_of(100), config, NOW)
    assert signals.delta.n_changed == 0
    assert (signals.champion, signals.champion_since) == (1, NOW - timedelta(days=40))
    assert (signals.has_drifted, signals.drift_message, signals.unjudged) == (None, "", "")
    assert (signals.spent_s, signals.expected_s) == (0.0, None)
    assert advise_now(splits_of(100), config, NOW).decision == "skip"


def test_without_a_version_all_photos_are_new(config):
    signals = observe_signals(splits_of(100), config, NOW)
    assert (signals.champion, signals.champion_since) == (None, None)
    assert (signals.delta.since, signals.delta.n_added) == (None, 100)
    assert advise_now(splits_of(100), config, NOW).retrain


@pytest.mark.parametrize(("days_ago", "decision"), [(31, "retrain"), (29, "skip")])
def test_a_champion_older_than_the_limit_is_retrained_for_one_new_photo(
    memory, config, days_ago, decision
):
    config = with_retrain(config, max_age_days=30.0, min_changed_fraction=0.5)
    promote(config, register(memory), days_ago)
    advice = advise_now(splits_of(101), config, NOW)
    assert advice.decision == decision
    assert str(days_ago) in message_of(advice, "age")
    assert ("retrain.max_age_days=30" in message_of(advice, "age")) == (decision == "retrain")


def test_the_age_counts_from_the_last_change_of_the_champion(memory, config):
    promote(config, register(memory), 40)
    promote(config, register(memory), 20, expected=1)
    register(memory, "keep")
    decision = DecisionRecord("keep", "verdict-3", "a tie", WHO)
    record_decision(config.tracking, NAME, decision, NOW - timedelta(days=1))
    signals = observe_signals(splits_of(100), config, NOW)
    assert (signals.champion, signals.champion_since) == (2, NOW - timedelta(days=20))
    assert signals.delta.since == 3  # photos are compared with the newest version


@pytest.mark.parametrize(("budget_h", "decision"), [(3.5, "postpone"), (6.0, "retrain")])
def test_a_budget_that_is_used_up_postpones_the_training(memory, config, budget_h, decision):
    promote(config, register(memory), 40)
    write_attempt(config, 9, 50, version=1)  # before the last seven days
    for days_ago, version in ((3, 1), (1, 2)):
        write_attempt(config, days_ago, 1.5, version)
    write_attempt(config, 0.5, 5, outcome="skip")
    config = with_retrain(config, budget_h=budget_h)
    signals = observe_signals(splits_of(150), config, NOW)
    assert (signals.spent_s, signals.expected_s) == (3 * 3600, 1.5 * 3600)
    advice = advise_now(splits_of(150), config, NOW)
    assert advice.decision == decision
    assert f"retrain.budget_h={budget_h:g}" in message_of(advice, "budget")
    assert (advice.reason == message_of(advice, "budget")) == (decision == "postpone")


def test_a_version_without_a_verdict_is_a_reason_to_train_on_the_same_photos(memory, config):
    promote(config, register(memory), 40)
    register(memory, verdict="")
    signals = observe_signals(splits_of(100), config, NOW)
    assert signals.unjudged == "version 2 was never judged"
    advice = advise_now(splits_of(100), config, NOW)
    assert (advice.decision, advice.delta.n_changed) == ("retrain", 0)
    assert advice.reason == message_of(advice, "interrupted")
    assert advice.reason.endswith(signals.unjudged)


def test_a_champion_without_a_verdict_is_a_reason_to_train(memory, config):
    """Its alias was set by hand: no decision of Regraft stands behind it."""
    memory.set_registered_model_alias(NAME, "champion", str(register(memory, verdict="")))
    signals = observe_signals(splits_of(100), config, NOW)
    assert (signals.champion, signals.champion_since) == (1, None)
    assert signals.unjudged == "version 1 was never judged"
    assert advise_now(splits_of(100), config, NOW).retrain


def renamed(n: int) -> Splits:
    splits = splits_of(n)
    frame = splits.frame.assign(label=splits.frame.label.replace("cat", "kitty"))
    return replace(splits, frame=frame, classes=("dog", "kitty"))


def test_new_names_and_thresholds_reach_the_champion_without_a_training(memory, config):
    promote(config, register(memory), 1)
    asked = apply_overrides(config, ("classes.renamed={cat: kitty}", "predict.abstain_below=0.6"))
    advice = advise_now(renamed(100), asked, NOW)
    assert advice.decision == "revise"
    assert "cat is called kitty" in advice.reason
    assert "predict.abstain_below is 0.6 (was 0.0)" in advice.reason
    assert "settings" not in {reason.name for reason in advice.reasons}  # they do have an effect
    assert advise_now(splits_of(100), config, NOW).decision == "skip"


def test_a_revision_that_the_champion_won_is_not_judged_again(memory, config):
    promote(config, register(memory), 1)
    asked = apply_overrides(config, ("predict.abstain_below=0.6",))
    lost = RunOutcome(
        RunSnapshot(NOW.isoformat(), "", ""),
        advise_now(splits_of(100), asked, NOW),
        n_photos=100,
        n_waiting=0,
        run="run",
        trained=Trained(
            "keep", "coverage", 2, "verdict", 1, 0.9, 0.8, 1.0, 40, "it", "no blend", 0, 0
        ),
    )
    conclude_run(lost, asked, NOW)
    assert advise_now(splits_of(100), asked, NOW).decision == "skip"
    other = apply_overrides(config, ("predict.abstain_below=0.5",))
    assert advise_now(splits_of(100), other, NOW).decision == "revise"


def test_a_setting_that_changes_nothing_now_says_when_it_does(memory, config):
    promote(config, register(memory), 1)
    asked = apply_overrides(config, ("promote.level=0.1", "tune.epochs=3", "drift.level=0.02"))
    advice = advise_now(splits_of(100), asked, NOW)
    assert advice.decision == "skip"
    assert f"regraft promote {NAME}/1 --set promote.level=0.1" in advice.reason
    assert "tune.epochs=3 takes effect in the next training" in advice.reason
    assert "drift.level" not in advice.reason
