import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from regraft.core.config import RetrainConfig
from regraft.operations.advice import ClassDelta, Delta, RetrainSignals, advise

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)


def line(label="cat", before=100, added=0, removed=0, came=0, went=0):
    return ClassDelta(label, before, added, removed, came, went)


def seen(*lines, **changes):
    quiet = RetrainSignals(
        delta=Delta(3, lines or (line(),)),
        champion=3,
        champion_since=NOW - timedelta(days=40),
        has_drifted=False,
        drift_message="",
        spent_s=0.0,
        expected_s=None,
    )
    return replace(quiet, **changes)


def advised(circumstances, **settings):
    return advise(circumstances, RetrainConfig(**settings), NOW)


def said(advice, name):
    return reason_of(advice, name).message


def reason_of(advice, name):
    return next(reason for reason in advice.reasons if reason.name == name)


def test_nothing_changed_is_no_reason():
    advice = advised(seen())
    assert (advice.decision, advice.retrain) == ("skip", False)
    assert advice.reason == said(advice, "photos")
    assert re.search(r"\b3$", advice.reason)  # the version compared with
    assert {reason.weight for reason in advice.reasons} == {"info"}


def test_the_first_model_is_trained():
    advice = advised(seen(line(before=0, added=100), champion=None, champion_since=None))
    assert advice.retrain
    assert advice.reason == said(advice, "champion")
    assert reason_of(advice, "champion").weight == "for"


@pytest.mark.parametrize(
    ("changed", "decision"),
    [
        (line(added=1), "retrain"),
        (line(before=101, added=1), "skip"),
        (line(before=300, added=1, removed=1, came=1), "retrain"),
        (line(before=300, added=1, removed=1), "skip"),
    ],
)
def test_a_change_counts_from_the_configured_share_on(changed, decision):
    advice = advised(seen(changed), min_changed_fraction=0.01)
    assert advice.decision == decision
    least = "retrain.min_changed_fraction=1.0%"
    assert (least in said(advice, "photos")) == (decision == "skip")


def test_a_new_class_is_a_reason_however_few_photos_it_has():
    advice = advised(seen(line(before=1000), line("dog", 0, added=1)))
    assert advice.retrain
    assert advice.reason == "appeared: dog"


def test_a_class_without_photos_is_a_reason():
    lines = line(before=1000), line("dog", 1, removed=1)
    assert advised(seen(*lines)).reason == "vanished: dog"


def test_relabelled_photos_count_once():
    delta = Delta(3, (line(went=2), line("dog", 50, came=2)))
    assert (delta.n_relabelled, delta.n_changed) == (2, 2)
    assert (delta.n_added, delta.n_removed) == (0, 0)
    assert re.findall(r"\d+", str(delta)) == ["0", "0", "2", "3"]  # and the version


def test_an_old_champion_is_trained_again_for_any_change_but_not_for_none():
    few = seen(line(before=1000, added=1))
    assert not advised(few).retrain
    advice = advised(few, max_age_days=30)
    assert advice.retrain
    assert advice.reason == said(advice, "age")
    assert re.search(r"\b40 days.*retrain\.max_age_days=30$", advice.reason)
    assert not advised(few, max_age_days=40).retrain
    nothing = advised(seen(), max_age_days=30)
    assert nothing.decision == "skip"
    assert reason_of(nothing, "age").weight == "info"
    assert "max_age_days" not in said(nothing, "age")  # the age is not the reason for the skip


def test_drift_is_a_reason_if_there_is_anything_new():
    told = {"has_drifted": True, "drift_message": "the photos are darker"}
    advice = advised(seen(line(before=1000, added=1), **told))
    assert (advice.decision, advice.reason, advice.has_drifted) == (
        "retrain",
        "the photos are darker",
        True,
    )
    assert advised(seen(**told)).decision == "skip"
    assert advised(seen(line(before=1000, added=1), drift_message="as before")).decision == "skip"


def test_a_training_that_would_pass_the_budget_is_put_off():
    wished = seen(line(added=50), spent_s=3600.0, expected_s=1800.0)
    assert advised(wished, budget_h=1.5).retrain
    advice = advised(wished, budget_h=1.4)
    assert advice.decision == "postpone"
    assert advice.reason == said(advice, "budget")
    assert re.search(r"\b1 h\b.*\b0\.5 h\b.*retrain\.budget_h=1\.4$", advice.reason)
    never = advised(seen(line(added=50), expected_s=1800.0), budget_h=0.4)
    assert never.decision == "postpone"
    # After the numbers, a hint that waiting does not help: the budget is below one training.
    assert re.search(r"\b0\.5 h\b.*budget_h=0\.4; \w+", never.reason)
    assert advised(wished).retrain
    assert advised(seen(spent_s=7200.0), budget_h=1).decision == "skip"


def test_a_training_that_came_to_no_verdict_is_made_up_for():
    advice = advised(seen(unjudged="it was killed"))
    assert advice.retrain
    assert advice.reason == said(advice, "interrupted")
    assert advice.reason.endswith(": it was killed")


def test_a_revision_needs_no_photo_and_no_budget_but_comes_after_a_training():
    asked = {"revision": "cat is called kitty"}
    advice = advised(seen(**asked))
    assert (advice.decision, advice.reason) == ("revise", said(advice, "revision"))
    assert "cat is called kitty" in advice.reason
    wished = seen(line(added=50), spent_s=3600.0, **asked)
    assert advised(wished, budget_h=0.5).decision == "revise"
    assert advised(wished).decision == "retrain"


def test_the_advice_is_told_with_every_reason():
    advice = advised(seen(line(added=5), drift_message="no drift is shown"))
    marks = {"for": "+", "info": " "}
    assert [reason.name for reason in advice.reasons] == ["photos", "age", "drift", "budget"]
    assert advice.reason.endswith(f"{advice.delta} (5.0%)")
    assert advice.format_text().splitlines() == [
        f"retrain: {advice.reason}",
        "",
        *(f"  {marks[one.weight]} {one.name:6}  {one.message}" for one in advice.reasons),
    ]
    assert [marks[one.weight] for one in advice.reasons] == ["+", " ", " ", " "]
