"""The seal of a ledger entry: over everything that it says, and over the entry before."""

import hashlib
import json
import re
from dataclasses import fields

import pytest
from memory_registry import use_memory_registry

from regraft.core.config import TrackingConfig
from regraft.core.errors import ChampionMoved
from regraft.registry.ledger import ENTRY, HASH, Draft, append, mark_applied, read

TRACKING = TrackingConfig(uri="memory", name="tiny")
BOOK = "tiny.ledger"
# What each thing that an entry says is changed to; "previous" to that of the first entry, which is
# what a bid that lost says: no entry, and no fault.
CHANGED = {
    "when": "2020-02-02T12:00:00+00:00",
    "who": "eve@engine",
    "action": "promote",
    "model": "another",
    "before": 5,
    "after": 7,
    "verdict": "verdict-9",
    "reason": "it was worse",
    "previous": "",
}


def written(said: dict[str, object]) -> str:
    """The text of an entry, in the one form in which entries are sealed."""
    text = json.dumps(said, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.replace("/", "\\/")


@pytest.fixture
def memory(monkeypatch):
    """A registry whose ledger has three entries."""
    memory = use_memory_registry(monkeypatch)
    memory.create_registered_model("tiny")
    for number in (1, 2, 3):
        entry = append(TRACKING, draft_of(number), read(TRACKING, "tiny").head)
        mark_applied(TRACKING, entry)
    return memory


def draft_of(number: int) -> Draft:
    return Draft(
        when=f"2026-11-2{number}T12:00:00+00:00",
        who="ada@engine",
        action="rollback",
        model="tiny",
        before=number + 1,
        after=number,
        verdict=f"verdict-{number}",
        reason="späte/r",
    )


def test_untouched_entries_have_no_fault_and_follow_each_other(memory):
    ledger = read(TRACKING, "tiny")
    assert ledger.faults == ()
    assert [entry.number for entry in ledger.entries] == [1, 2, 3]
    hashes = [entry.hash for entry in ledger.entries]
    assert [entry.previous for entry in ledger.entries] == ["", *hashes[:2]]


def test_every_field_of_an_entry_is_tried_below():
    assert set(CHANGED) == {field.name for field in fields(Draft)} | {"previous"}


@pytest.mark.parametrize("field", CHANGED)
def test_the_seal_is_over_each_field(memory, field):
    tags = memory.get_model_version(BOOK, 3).tags
    said = json.loads(tags[ENTRY])
    assert written(said) == tags[ENTRY]  # so that the change below is the only one
    assert said[field] != CHANGED[field]
    tags[ENTRY] = written(said | {field: CHANGED[field]})
    faults = read(TRACKING, "tiny").faults
    assert any(re.search(r"\b3\b", fault) for fault in faults)


def test_the_seal_itself_cannot_be_changed(memory):
    memory.get_model_version(BOOK, 2).tags[HASH] = "0" * 64
    assert read(TRACKING, "tiny").faults


@pytest.mark.parametrize("number", [1, 2, 3])
def test_an_entry_that_is_gone_is_missed(memory, number):
    memory.delete_model_version(BOOK, number)
    assert read(TRACKING, "tiny").faults


def test_an_entry_that_was_sealed_anew_is_not_what_the_next_one_follows(memory):
    """Who changes an entry and its hash too would have to write all later entries anew."""
    tags = memory.get_model_version(BOOK, 2).tags
    tags[ENTRY] = written(json.loads(tags[ENTRY]) | {"who": "eve@engine"})
    tags[HASH] = hashlib.sha256(tags[ENTRY].encode()).hexdigest()
    (fault,) = read(TRACKING, "tiny").faults
    assert re.search(r"\b3\b", fault)


def test_a_bid_that_lost_is_no_entry_and_yet_missed_when_it_is_gone(memory):
    first = read(TRACKING, "tiny").entries[0]
    with pytest.raises(ChampionMoved):
        append(TRACKING, draft_of(4), first.hash)  # the second follows that one already
    append(TRACKING, draft_of(5), read(TRACKING, "tiny").head)
    ledger = read(TRACKING, "tiny")
    assert ledger.faults == ()
    assert [entry.number for entry in ledger.entries] == [1, 2, 3, 5]
    memory.delete_model_version(BOOK, 4)
    (fault,) = read(TRACKING, "tiny").faults
    assert re.search(r"\b4\b", fault)
