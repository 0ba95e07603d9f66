"""The champion changes only from the expected version, and rolls back only to former champions."""

from datetime import UTC, datetime

import pytest
from memory_registry import use_memory_registry

from regraft.core.config import TrackingConfig
from regraft.core.errors import ChampionMoved, NoRollbackTarget
from regraft.registry import (
    ChampionChange,
    DecisionRecord,
    get_aliases,
    list_entries,
    move_champion,
    record_decision,
    roll_back,
)
from regraft.registry.versions import CONTENT_HASH

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
TRACKING = TrackingConfig(uri="memory", name="tiny")
WHO = "ada@engine"


@pytest.fixture(autouse=True)
def memory(monkeypatch):
    """A registry with five versions and no champion."""
    memory = use_memory_registry(monkeypatch)
    memory.create_registered_model("tiny")
    for number in range(5):
        memory.create_model_version("tiny", "nowhere", tags={CONTENT_HASH: f"{number}"})
    return memory


def promote(after, expected):
    change = ChampionChange("promote", after, f"verdict-{after}", "better", WHO)
    return move_champion(TRACKING, "tiny", change, expected, NOON)


def back(to=None):
    return roll_back(TRACKING, "tiny", WHO, "it was worse", NOON, to).after


def serving():
    return get_aliases(TRACKING, "tiny")


def test_a_change_is_refused_if_another_version_serves_than_expected():
    promote(1, None)
    for expected in (None, 2):
        with pytest.raises(ChampionMoved, match="v1"):
            promote(3, expected)
    assert serving() == {"champion": 1}
    assert len(list_entries(TRACKING, "tiny")) == 1


def test_a_record_without_a_change_is_refused_in_that_case_too():
    promote(1, None)
    note = DecisionRecord("keep", "verdict-3", "a tie", WHO)
    with pytest.raises(ChampionMoved, match="v1"):
        record_decision(TRACKING, "tiny", note, NOON, expected=2)
    assert len(list_entries(TRACKING, "tiny")) == 1
    assert record_decision(TRACKING, "tiny", note, NOON, expected=1).after == 1


def test_the_previous_champion_has_an_alias():
    promote(1, None)
    promote(3, 1)
    assert serving() == {"champion": 3, "previous": 1}


def test_a_rollback_after_a_rollback_goes_further_back():
    for before, after in ((None, 1), (1, 2), (2, 4)):
        promote(after, before)
    assert [back(), back()] == [2, 1]
    assert serving() == {"champion": 1}
    with pytest.raises(NoRollbackTarget, match="v1"):
        back()


def test_a_rollback_accepts_only_former_champions():
    promote(1, None)
    promote(3, 1)
    for never in (2, 3):
        with pytest.raises(NoRollbackTarget, match=str(never)):
            back(to=never)
    assert serving()["champion"] == 3
    assert back(to=1) == 1


def test_a_champion_that_was_set_by_hand_is_recorded_and_not_undone(memory):
    promote(1, None)
    memory.set_registered_model_alias("tiny", "champion", "4")
    with pytest.raises(ChampionMoved, match="v4"):
        promote(3, 1)
    assert serving()["champion"] == 4
    newest = list_entries(TRACKING, "tiny")[-1]
    assert (newest.action, newest.before, newest.after) == ("outside", 1, 4)
