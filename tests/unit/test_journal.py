import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from regraft.core.errors import JournalBroken
from regraft.operations import journal
from regraft.operations.advice import ClassDelta, Delta, Reason, RetrainAdvice
from regraft.operations.journal import Attempt, Watch

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
ADVICE = RetrainAdvice(
    "retrain",
    "3 new photos",
    (Reason("photos", "3 new photos", "for"),),
    Delta(2, (ClassDelta("Kätzchen", 5, 3, 0, 1, 0),), (("a.jpg", "dog", "Kätzchen"),)),
)


def attempt(ended=NOW, seconds=60.0, **changes):
    started = (ended - timedelta(seconds=seconds)).isoformat()
    made = Attempt(
        "cats", started, ended.isoformat(), "me@here", "keep", "no better", advice=ADVICE
    )
    return replace(made, **changes)


def test_a_record_reads_back_as_it_was_written(tmp_path):
    url = str(tmp_path)
    watch = Watch("cats", NOW.isoformat(), "me@here", 3, "new/", 7, True, 0.001, "darker")
    written = attempt(version=3, accuracy=0.9, settings={"tune.epochs": "3"})
    journal.write_record(url, written)
    journal.write_record(url, watch)
    assert journal.read_attempts(url) == [written]
    assert journal.read_watches(url) == [watch]


def test_records_come_in_the_order_in_which_they_were_written(tmp_path):
    url = str(tmp_path)
    late, early = attempt(NOW), attempt(NOW - timedelta(days=1))
    for one in (early, late, early):
        journal.write_record(url, one)
    assert journal.read_attempts(url) == [early, late, early]
    assert journal.last_attempt(url, "cats") == early


def test_two_ends_in_one_moment_are_two_records(tmp_path):
    for reason in ("one", "other"):
        journal.write_record(str(tmp_path), attempt(reason=reason))
    assert {one.reason for one in journal.read_attempts(str(tmp_path))} == {"one", "other"}


def test_each_model_has_its_own_last_attempt(tmp_path):
    url = str(tmp_path)
    journal.write_record(url, attempt())
    journal.write_record(url, attempt(NOW + timedelta(days=1), name="dogs"))
    assert journal.last_attempt(url, "cats") == attempt()
    assert [one.name for one in journal.read_attempts(url, "dogs")] == ["dogs"]
    assert journal.last_attempt(url, "cows") is None


def test_no_journal_yet_is_an_empty_one(tmp_path):
    url = str(tmp_path / "none")
    assert (journal.read_attempts(url), journal.last_attempt(url, "cats")) == ([], None)


@pytest.mark.parametrize("text", ["", "{", '{"name": "cats"}', '{"format": 2}', "[]", "\\"])
def test_a_file_that_is_no_record_is_an_error_with_its_path(tmp_path, text):
    (tmp_path / "attempts").mkdir()
    (tmp_path / "attempts" / "20261126T1.json").write_text(text, encoding="utf-8")
    with pytest.raises(JournalBroken, match=r"/attempts/20261126T1\.json\b"):
        journal.read_attempts(str(tmp_path))


def test_a_record_of_another_format_is_an_error_with_both_numbers(tmp_path):
    watch = Watch("cats", NOW.isoformat(), "me@host", 3, "new/", 7, True, 0.001, "darker")
    path = tmp_path / "watches" / f"{journal.write_record(str(tmp_path), watch)}.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    assert record["format"] == 2
    older = {key: value for key, value in record.items() if key != "format"}
    for other, got in ((older, "None"), (record | {"format": 3}, "3")):
        path.write_text(json.dumps(other), encoding="utf-8")
        with pytest.raises(JournalBroken, match=rf"\bformat 2\b.*\bformat {got}\b"):
            journal.read_watches(str(tmp_path))


def test_a_clock_that_was_ahead_does_not_rule_for_years(tmp_path):
    url = str(tmp_path)
    ahead = attempt(NOW + timedelta(days=1000), reason="of 2029")
    now = attempt(NOW, reason="of today")
    journal.write_record(url, ahead)
    journal.write_record(url, now)
    assert journal.last_attempt(url, "cats") == now


def test_a_clock_that_was_set_back_frees_no_budget():
    ahead = attempt(NOW + timedelta(days=3), 40)
    assert journal.spent_s([ahead], NOW) == 40
    before, after = attempt(NOW - timedelta(days=2), 5), attempt(NOW - timedelta(days=1), 7)
    assert journal.spent_s([before, ahead, after], NOW) == 52


def test_a_clock_that_was_far_ahead_takes_no_budget_for_years():
    ahead = attempt(NOW + timedelta(days=1000), 40)
    followed_by = attempt(NOW - timedelta(days=8), outcome="skip")
    assert journal.spent_s([ahead, followed_by], NOW) == 0


@pytest.mark.parametrize("outcome", ["failed", "killed", "skip", "postpone"])
def test_only_an_attempt_that_was_judged_passes_its_settings_on(tmp_path, outcome):
    url = str(tmp_path)
    assert journal.last_judged(url, "cats") is None
    judged = attempt(NOW - timedelta(days=1), version=1, settings={"tune.seed": "1"})
    journal.write_record(url, judged)
    journal.write_record(url, attempt(NOW, outcome=outcome, settings={"tune.seed": "2"}))
    assert journal.last_judged(url, "cats") == judged


def test_what_trainings_took_in_a_week_counts_the_failed_and_no_skipped_or_killed_one():
    past = [
        attempt(NOW - timedelta(hours=1), 5e5, outcome="killed"),
        attempt(NOW - timedelta(days=8), 100),
        attempt(NOW - timedelta(days=6), 20),
        attempt(NOW - timedelta(days=2), 3, outcome="failed"),
        attempt(NOW - timedelta(days=1), 7, outcome="skip"),
    ]
    assert journal.spent_s(past, NOW) == 23
