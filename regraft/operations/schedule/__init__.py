"""The schedule of one machine: what is to be run when, who runs it, and what became of it."""

from regraft.operations.schedule.declaration import (
    Declaration,
    Missed,
    check,
    name_for,
    upcoming,
    with_settings,
    words_of,
)
from regraft.operations.schedule.heartbeat import Heartbeat, last_beat
from regraft.operations.schedule.kept import (
    Record,
    add,
    declarations,
    declared,
    due,
    find,
    names,
    next_due,
    record_of,
    remove,
)
from regraft.operations.schedule.unit import KINDS, Kind, Start, render

__all__ = [
    "KINDS",
    "Declaration",
    "Heartbeat",
    "Kind",
    "Missed",
    "Record",
    "Start",
    "add",
    "check",
    "declarations",
    "declared",
    "due",
    "find",
    "last_beat",
    "name_for",
    "names",
    "next_due",
    "record_of",
    "remove",
    "render",
    "upcoming",
    "with_settings",
    "words_of",
]
