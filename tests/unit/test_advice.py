from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from regraft.advice import Circumstances, ClassDelta, Delta, advise
from regraft.config import RetrainConfig

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)


def line(label="cat", before=100, added=0, removed=0, came=0, went=0):
    return ClassDelta(label, before, added, removed, came, went)


def seen(*lines, **changes):
    quiet = Circumstances(
        delta=Delta(3, lines or (line(),)),
        champion=3,
        champion_since=NOW - timedelta(days=40),
        has_drifted=False,
        drift_said="",
        spent_s=0.0,
        expected_s=None,
    )
    return replace(quiet, **changes)


def advised(circumstances, **settings):
    return advise(circumstances, RetrainConfig(**settings), NOW)


def said(advice, name):
    return next(reason.said for reason in advice.reasons if reason.name == name)


def test_nothing_changed_is_no_reason():
    advice = advised(seen())
    assert (advice.decision, advice.retrain) == ("skip", False)
    assert advice.reason == "no photo to learn from changed since version 3"


def test_the_first_model_is_trained():
    advice = advised(seen(line(before=0, added=100), champion=None, champion_since=None))
    assert advice.retrain
    assert advice.reason == "no model serves yet"


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
    least = ", fewer than retrain.min_changed_fraction=1.0%"
    assert said(advice, "photos").endswith(least) == (decision == "skip")


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
    assert str(delta) == "0 new, 0 removed and 2 relabelled photos since version 3"


def test_an_old_champion_is_trained_again_for_any_change_but_not_for_none():
    few = seen(line(before=1000, added=1))
    assert not advised(few).retrain
    advice = advised(few, max_age_days=30)
    assert advice.retrain
    assert advice.reason == "the champion serves for 40 days, more than retrain.max_age_days=30"
    assert not advised(few, max_age_days=40).retrain
    nothing = advised(seen(), max_age_days=30)
    assert nothing.decision == "skip"
    assert said(nothing, "age").endswith("but there is nothing new to learn")


def test_drift_is_a_reason_if_there_is_anything_new():
    told = {"has_drifted": True, "drift_said": "the photos are darker"}
    advice = advised(seen(line(before=1000, added=1), **told))
    assert (advice.decision, advice.reason, advice.has_drifted) == (
        "retrain",
        "the photos are darker",
        True,
    )
    assert advised(seen(**told)).decision == "skip"
    assert advised(seen(line(before=1000, added=1), drift_said="as before")).decision == "skip"


def test_a_training_that_would_pass_the_budget_is_put_off():
    wished = seen(line(added=50), spent_s=3600.0, expected_s=1800.0)
    assert advised(wished, budget_h=1.5).retrain
    advice = advised(wished, budget_h=1.4)
    assert advice.decision == "postpone"
    assert advice.reason == (
        "trainings took 1 h of the last seven days, the next would take 0.5 h, "
        "of retrain.budget_h=1.4"
    )
    never = advised(seen(line(added=50), expected_s=1800.0), budget_h=0.4)
    assert never.decision == "postpone"
    assert never.reason.endswith("budget_h=0.4; not even one training fits, so set it higher")
    assert advised(wished).retrain
    assert advised(seen(spent_s=7200.0), budget_h=1).decision == "skip"


def test_a_training_that_came_to_no_verdict_is_made_up_for():
    advice = advised(seen(unjudged="it was killed"))
    assert advice.retrain
    assert advice.reason == "the last training came to no verdict: it was killed"


def test_the_advice_is_told_with_every_reason():
    told = advised(seen(line(added=5), drift_said="no drift is shown")).told()
    assert told.splitlines() == [
        "retrain: 5 new, 0 removed and 0 relabelled photos since version 3 (5.0%)",
        "",
        "  + photos  5 new, 0 removed and 0 relabelled photos since version 3 (5.0%)",
        "    age     the champion serves for 40 days",
        "    drift   no drift is shown",
        "    budget  trainings took 0 h of the last seven days",
    ]
