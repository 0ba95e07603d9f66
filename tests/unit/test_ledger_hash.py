"""The hash of a ledger entry covers all its fields and the entry before."""

import hashlib
import json
import re
from dataclasses import fields

import pytest
from memory_registry import use_memory_registry

from regraft.core.config import TrackingConfig
from regraft.core.errors import ChampionMoved
from regraft.registry.ledger import ENTRY, HASH, Draft, append_entry, mark_applied, read_ledger

TRACKING = TrackingConfig(uri="memory", name="tiny")
LEDGER_NAME = "tiny.ledger"
# A different value for each field. The value of "previous" is that of the first entry: it turns the
# entry into a rejected entry, which is no fault.
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


def canonical(content: dict[str, object]) -> str:
    """Return the text of an entry in the form that is hashed."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.replace("/", "\\/")


@pytest.fixture
def memory(monkeypatch):
    """A registry whose ledger has three entries."""
    memory = use_memory_registry(monkeypatch)
    memory.create_registered_model("tiny")
    for number in (1, 2, 3):
        entry = append_entry(TRACKING, draft_of(number), read_ledger(TRACKING, "tiny").head)
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


def test_unchanged_entries_have_no_fault_and_follow_each_other(memory):
    ledger = read_ledger(TRACKING, "tiny")
    assert ledger.faults == ()
    assert [entry.number for entry in ledger.entries] == [1, 2, 3]
    hashes = [entry.hash for entry in ledger.entries]
    assert [entry.previous for entry in ledger.entries] == ["", *hashes[:2]]


def test_every_field_of_an_entry_is_changed_below():
    assert set(CHANGED) == {field.name for field in fields(Draft)} | {"previous"}


@pytest.mark.parametrize("field", CHANGED)
def test_the_hash_covers_each_field(memory, field):
    tags = memory.get_model_version(LEDGER_NAME, 3).tags
    content = json.loads(tags[ENTRY])
    assert canonical(content) == tags[ENTRY]  # so the change below is the only change
    assert content[field] != CHANGED[field]
    tags[ENTRY] = canonical(content | {field: CHANGED[field]})
    faults = read_ledger(TRACKING, "tiny").faults
    assert any(re.search(r"\b3\b", fault) for fault in faults)


def test_a_changed_hash_is_detected(memory):
    memory.get_model_version(LEDGER_NAME, 2).tags[HASH] = "0" * 64
    assert read_ledger(TRACKING, "tiny").faults


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_deleted_entry_is_detected(memory, number):
    memory.delete_model_version(LEDGER_NAME, number)
    assert read_ledger(TRACKING, "tiny").faults


def test_a_changed_entry_with_a_new_hash_is_detected_through_the_next_entry(memory):
    """To stay undetected, all later entries would have to be rewritten too."""
    tags = memory.get_model_version(LEDGER_NAME, 2).tags
    tags[ENTRY] = canonical(json.loads(tags[ENTRY]) | {"who": "eve@engine"})
    tags[HASH] = hashlib.sha256(tags[ENTRY].encode()).hexdigest()
    (fault,) = read_ledger(TRACKING, "tiny").faults
    assert re.search(r"\b3\b", fault)


def test_a_rejected_entry_is_ignored_but_its_deletion_is_detected(memory):
    first = read_ledger(TRACKING, "tiny").entries[0]
    with pytest.raises(ChampionMoved):
        append_entry(TRACKING, draft_of(4), first.hash)  # the second entry follows it already
    append_entry(TRACKING, draft_of(5), read_ledger(TRACKING, "tiny").head)
    ledger = read_ledger(TRACKING, "tiny")
    assert ledger.faults == ()
    assert [entry.number for entry in ledger.entries] == [1, 2, 3, 5]
    memory.delete_model_version(LEDGER_NAME, 4)
    (fault,) = read_ledger(TRACKING, "tiny").faults
    assert re.search(r"\b4\b", fault)
