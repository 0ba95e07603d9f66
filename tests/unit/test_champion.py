"""What serves: moved only from what was judged, and back only to what served before."""

from datetime import UTC, datetime

import pytest
from memory_registry import use_memory_registry

from regraft.core.config import TrackingConfig
from regraft.core.errors import ChampionMoved, NoWayBack
from regraft.registry import Move, Note, aliases, entries, move_champion, record, roll_back
from regraft.registry.versions import SEAL

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
TRACKING = TrackingConfig(uri="memory", name="tiny")
WHO = "ada@engine"


@pytest.fixture(autouse=True)
def memory(monkeypatch):
    """A registry with five versions; none serves."""
    memory = use_memory_registry(monkeypatch)
    memory.create_registered_model("tiny")
    for number in range(5):
        memory.create_model_version("tiny", "nowhere", tags={SEAL: f"{number}"})
    return memory


def promote(after, expected):
    move = Move("promote", after, f"verdict-{after}", "better", WHO)
    return move_champion(TRACKING, "tiny", move, expected, NOON)


def back(to=None):
    return roll_back(TRACKING, "tiny", WHO, "it was worse", NOON, to).after


def serving():
    return aliases(TRACKING, "tiny")


def test_a_move_is_refused_where_another_version_serves_than_was_judged():
    promote(1, None)
    for expected in (None, 2):
        with pytest.raises(ChampionMoved, match="v1"):
            promote(3, expected)
    assert serving() == {"champion": 1}
    assert len(entries(TRACKING, "tiny")) == 1


def test_a_decision_that_moves_nothing_is_refused_there_too():
    promote(1, None)
    note = Note("keep", "verdict-3", "a tie", WHO)
    with pytest.raises(ChampionMoved, match="v1"):
        record(TRACKING, "tiny", note, NOON, expected=2)
    assert len(entries(TRACKING, "tiny")) == 1
    assert record(TRACKING, "tiny", note, NOON, expected=1).after == 1


def test_the_version_before_the_champion_is_known_by_its_alias():
    promote(1, None)
    promote(3, 1)
    assert serving() == {"champion": 3, "previous": 1}


def test_a_rollback_after_a_rollback_goes_further_back():
    for before, after in ((None, 1), (1, 2), (2, 4)):
        promote(after, before)
    assert [back(), back()] == [2, 1]
    assert serving() == {"champion": 1}
    with pytest.raises(NoWayBack, match="v1"):
        back()


def test_a_rollback_leads_only_to_a_version_that_served_before():
    promote(1, None)
    promote(3, 1)
    for never in (2, 3):
        with pytest.raises(NoWayBack, match=str(never)):
            back(to=never)
    assert serving()["champion"] == 3
    assert back(to=1) == 1


def test_a_champion_that_was_moved_by_hand_is_recorded_and_left_alone(memory):
    promote(1, None)
    memory.set_registered_model_alias("tiny", "champion", "4")
    with pytest.raises(ChampionMoved, match="v4"):
        promote(3, 1)
    assert serving()["champion"] == 4
    newest = entries(TRACKING, "tiny")[-1]
    assert (newest.action, newest.before, newest.after) == ("outside", 1, 4)
