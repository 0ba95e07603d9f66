"""The schedule of this machine: which command runs when, and what happened to each run."""

from regraft.operations.schedule.entry import (
    MissedPolicy,
    ScheduleEntry,
    check,
    default_name,
    next_fire_times,
    refuse_addresses,
    split_command,
    with_settings,
)
from regraft.operations.schedule.heartbeat import Heartbeat, read_heartbeat
from regraft.operations.schedule.store import (
    Record,
    Schedule,
    add,
    due,
    find,
    list_entries,
    load_entry,
    load_record,
    names,
    next_due,
    read_schedule,
    remove,
)
from regraft.operations.schedule.unit import KINDS, Kind, Start, render

__all__ = [
    "KINDS",
    "Heartbeat",
    "Kind",
    "MissedPolicy",
    "Record",
    "Schedule",
    "ScheduleEntry",
    "Start",
    "add",
    "check",
    "default_name",
    "due",
    "find",
    "list_entries",
    "load_entry",
    "load_record",
    "names",
    "next_due",
    "next_fire_times",
    "read_heartbeat",
    "read_schedule",
    "refuse_addresses",
    "remove",
    "render",
    "split_command",
    "with_settings",
]
