"""A schedule entry: a command, its cron expression, and its fire times with jitter."""

import hashlib
import re
import shlex
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from difflib import get_close_matches
from itertools import islice, pairwise
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from regraft.core.config import NotifyConfig, load_config, refuse_password
from regraft.core.errors import ScheduleError
from regraft.operations.schedule.cron import check_cron, fire_times, last_fire_time, zone_of

MissedPolicy = Literal["run-once", "skip"]
Backend = Literal["local", "zenml"]
SETTABLE = ("missed", "grace_s", "jitter_s", "timeout_s", "backend")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_DAY_S = 86_400
_N_GAPS = 50  # fire times whose gaps are compared with the jitter; guess


@dataclass(frozen=True)
class ScheduleEntry:
    """A scheduled command.

    name: letters, digits, dot, dash and underscore; unique in a state folder.
    cron: minute, hour, day of month, month, weekday.
    timezone: IANA name.
    command: the command line after `regraft`, quoted as in a shell.
    folder: absolute working directory of the command.
    added: ISO 8601, UTC; times before it are not missed runs.
    host: machine where the entry was added; part of the seed of the jitter.
    missed: run-once = one run makes up for all missed runs as soon as possible, and an interrupted
        run is repeated once; skip = neither.
    grace_s: a run that starts at most this late is not missed, in [1, 86400] s. Default: guess.
    jitter_s: each fire time is delayed by a fixed amount in [0, jitter_s) s, so that many machines
        do not start at once.
    timeout_s: a run that takes longer is interrupted; 0 = no limit.
    takes_state: whether `--state FOLDER` is added to the command.
    backend: local = `regraft schedule run` starts it; zenml = the orchestrator starts it.
    """

    name: str
    cron: str
    timezone: str
    command: str
    folder: str
    added: str
    host: str = ""
    missed: MissedPolicy = "run-once"
    grace_s: int = 60
    jitter_s: int = 0
    timeout_s: int = 0
    takes_state: bool = True
    backend: Backend = "local"

    @property
    def arguments(self) -> tuple[str, ...]:
        """Return the command line after `regraft`, split into words."""
        return tuple(shlex.split(self.command))


def default_name(command: str) -> str:
    """Return a name made of the command and its first argument.

    >>> default_name("retrain '../my photos' --set x=3"), default_name("doctor")
    ('retrain-my-photos', 'doctor')

    Raises:
        ScheduleError: the command line is empty, or a quote is not closed.
    """
    words = split_command(command)
    about = [Path(word).name for word in words[1:2] if not word.startswith("-")]
    plain = (re.sub(r"[^A-Za-z0-9_.]+", "-", word).strip("-.") for word in (words[0], *about))
    return "-".join(word for word in plain if word)[:64] or "command"


def split_command(command: str) -> list[str]:
    """Return the words of a command line that is quoted as in a shell; at least one word.

    Raises:
        ScheduleError: the command line is empty, or a quote is not closed.
    """
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise ScheduleError(
            f"Expected a command line quoted as in a shell, got {command!r} ({error})."
        ) from None
    if not words:
        raise ScheduleError(
            'Expected the command line after `regraft`, such as "retrain photos/", '
            "got an empty string."
        )
    return words


def with_settings(entry: ScheduleEntry, settings: Sequence[str]) -> ScheduleEntry:
    """Return a copy of the entry with some fields changed.

    Args:
        settings: FIELD=VALUE each; the fields are those of SETTABLE.

    Raises:
        ScheduleError: an unknown field, or an invalid value.
    """
    pairs = {name.strip(): value for name, _, value in (each.partition("=") for each in settings)}
    for name in pairs.keys() - set(SETTABLE):
        close = get_close_matches(name, SETTABLE, n=1)
        hint = f" Did you mean {close[0]}?" if close else ""
        raise ScheduleError(f"Expected one of {', '.join(SETTABLE)}, got {name!r}.{hint}")
    try:
        changed = TypeAdapter(ScheduleEntry).validate_python(asdict(entry) | pairs)
    except ValidationError as error:
        first = error.errors()[0]
        raise ScheduleError(
            f"Expected a valid value of {first['loc'][0]}, got {first['input']!r}: {first['msg']}."
        ) from None
    return changed


def check(entry: ScheduleEntry, commands: Collection[str]) -> None:
    """Raise an error if the entry is invalid.

    Args:
        commands: names of the commands that may be scheduled.

    Raises:
        ScheduleError: the message names the wrong part and suggests a correction; or the command
            line contains a password, or the address of a notification target.
        ConfigError: a notification target in the command line is invalid.
    """
    if not _NAME.fullmatch(entry.name):
        raise ScheduleError(
            "Expected a name of at most 64 letters, digits, dots, dashes and underscores that "
            f"begins with a letter or digit, got {entry.name!r}. Set another name with --name."
        )
    word = split_command(entry.command)[0]
    if word not in commands:
        close = get_close_matches(word, commands, n=1)
        hint = f" Did you mean {close[0]}?" if close else ""
        raise ScheduleError(
            f"Expected a command of Regraft that may be scheduled, got {word!r}.{hint} "
            f"Available: {', '.join(sorted(commands))}."
        )
    _refuse_secrets(entry.arguments)
    zone_of(entry.timezone)
    check_cron(entry.cron, datetime.fromisoformat(entry.added))
    _check_seconds(entry)


def refuse_addresses(notify: NotifyConfig) -> None:
    """Raise an error if a notification target contains its address, which would be stored.

    Raises:
        ScheduleError: the message does not quote the address.
    """
    for target in notify.targets:
        if not target.is_storable:
            raise ScheduleError(
                f"Expected no address of a notification target in a schedule, which is stored, got "
                f"that of a {target.kind}. Set `to` to env:NAME or file:PATH, which name where the "
                "address is, or name the targets in the --config of a command on this machine."
            )


def _refuse_secrets(words: Sequence[str]) -> None:
    for word in words:
        try:
            refuse_password(word)
        except ValueError as error:
            raise ScheduleError(
                f"Expected a command without a password, which would be stored: a URL in it "
                f"{error}."
            ) from None
        override = word.removeprefix("--set=")
        if override.startswith("notify."):
            refuse_addresses(load_config(None, (override,)).notify)


def _check_seconds(entry: ScheduleEntry) -> None:
    ranges = (
        ("grace_s", entry.grace_s, 1, _DAY_S),
        ("jitter_s", entry.jitter_s, 0, _DAY_S),
        ("timeout_s", entry.timeout_s, 0, 365 * _DAY_S),
    )
    for field, seconds, low, high in ranges:
        if not low <= seconds <= high:
            raise ScheduleError(
                f"Expected {field} in [{low}, {high}], got {seconds}. "
                f"Set another value: --set {field}="
            )
    added = datetime.fromisoformat(entry.added)
    coming = list(islice(fire_times(entry.cron, entry.timezone, added), _N_GAPS))
    gaps = [(later - earlier).total_seconds() for earlier, later in pairwise(coming)]
    if gaps and entry.jitter_s >= min(gaps):
        raise ScheduleError(
            f"Expected a jitter shorter than the {min(gaps):.0f} s between two runs of "
            f"{entry.cron!r}, got {entry.jitter_s}. Set a smaller value: --set jitter_s="
        )


def next_fire_times(entry: ScheduleEntry, after: datetime, n: int) -> list[datetime]:
    """Return the next n fire times after `after`, in UTC, jitter included.

    The list is shorter where no further date matches.
    """
    return list(islice(_due_after(entry, after), n))


def latest_due(entry: ScheduleEntry, after: datetime, until: datetime) -> datetime | None:
    """Return the latest fire time in (after, until], jitter included; None if there is none."""
    cron, timezone = entry.cron, entry.timezone
    earliest = after - timedelta(seconds=entry.jitter_s)
    moment = last_fire_time(cron, timezone, earliest, until)
    while moment and delayed(entry, moment) > until:
        moment = last_fire_time(cron, timezone, earliest, moment - timedelta(microseconds=1))
    due = delayed(entry, moment) if moment else None
    return due if due and due > after else None


def delayed(entry: ScheduleEntry, moment: datetime) -> datetime:
    """Return the fire time with its jitter; the same input gives the same delay."""
    if not entry.jitter_s:
        return moment
    drawn = f"{entry.host}\n{entry.folder}\n{entry.name}\n{moment.isoformat()}"
    share = int.from_bytes(hashlib.sha256(drawn.encode()).digest()[:6], "big") / 2**48
    return moment + timedelta(seconds=share * entry.jitter_s)


def _due_after(entry: ScheduleEntry, after: datetime) -> Iterator[datetime]:
    earliest = after - timedelta(seconds=entry.jitter_s)
    for moment in fire_times(entry.cron, entry.timezone, earliest):
        due = delayed(entry, moment)
        if due > after:
            yield due
