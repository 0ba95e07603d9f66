"""A declaration: what is to be run when, and the moments at which that is due."""

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

from regraft.core.errors import ScheduleError
from regraft.operations.schedule.cron import check_cron, last_moment, moments, zone_of

Missed = Literal["run-once", "skip"]
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_DAY_S = 86_400
SETTABLE = ("missed", "grace_s", "jitter_s", "timeout_s", "keeper")
_N_LOOKED_AT = 50  # runs whose distance is looked at; guess


@dataclass(frozen=True)
class Declaration:
    """What is to be run when.

    name: letters, digits, dot, dash and underscore; unique in a state folder.
    cron: minute, hour, day of month, month, weekday. timezone: IANA name.
    command: the command line after `regraft`, quoted as in a shell.
    folder: absolute; where the command runs, so that its relative paths mean what they meant.
    added: ISO 8601, UTC; no run before it was missed.
    host: where it was declared; machines that share photos draw different delays by it.
    missed: run-once = runs that were missed, how many ever, are made up for by one as soon as can
        be, and a run that was cut off is begun once more; skip = neither.
    grace_s: a run that begins so late was not missed, in [1, 86400]. Guess: a minute.
    jitter_s: a delay in [0, jitter_s) s is added to each time, always the same to the same time,
        so that many machines do not start at once.
    timeout_s: a run that takes longer is interrupted; 0 = none is.
    takes_state: whether `--state FOLDER` is added to the command.
    keeper: here = `regraft schedule run` runs it; zenml = the orchestrator does.
    """

    name: str
    cron: str
    timezone: str
    command: str
    folder: str
    added: str
    host: str = ""
    missed: Missed = "run-once"
    grace_s: int = 60
    jitter_s: int = 0
    timeout_s: int = 0
    takes_state: bool = True
    keeper: Literal["here", "zenml"] = "here"

    @property
    def arguments(self) -> tuple[str, ...]:
        """The command line after `regraft`, in words."""
        return tuple(shlex.split(self.command))


def name_for(command: str) -> str:
    """A name for a declaration that was given none: the command and what it works on.

    >>> name_for("retrain '../my photos' --set tune.epochs=3"), name_for("doctor")
    ('retrain-my-photos', 'doctor')

    Raises:
        ScheduleError: the command line is empty or ends within quotes.
    """
    words = words_of(command)
    about = [Path(word).name for word in words[1:2] if not word.startswith("-")]
    plain = (re.sub(r"[^A-Za-z0-9_.]+", "-", word).strip("-.") for word in (words[0], *about))
    return "-".join(word for word in plain if word)[:64] or "command"


def words_of(command: str) -> list[str]:
    """The words of a command line, quoted as in a shell; at least one.

    Raises:
        ScheduleError: there is none, or a quote is not closed.
    """
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise ScheduleError(
            f"Expected a command line quoted as in a shell, got {command!r} ({error})."
        ) from None
    if not words:
        raise ScheduleError(
            'Expected the command line after `regraft`, such as "retrain photos/", got none.'
        )
    return words


def with_settings(declaration: Declaration, settings: Sequence[str]) -> Declaration:
    """The declaration with some of its finer points set.

    Args:
        settings: each FIELD=VALUE, of SETTABLE.

    Raises:
        ScheduleError: another field, or a value that it cannot have.
    """
    pairs = {name.strip(): value for name, _, value in (each.partition("=") for each in settings)}
    for name in pairs.keys() - set(SETTABLE):
        close = get_close_matches(name, SETTABLE, n=1)
        hint = f" Did you mean {close[0]}?" if close else ""
        raise ScheduleError(f"Expected one of {', '.join(SETTABLE)}, got {name!r}.{hint}")
    try:
        changed = TypeAdapter(Declaration).validate_python(asdict(declaration) | pairs)
    except ValidationError as error:
        first = error.errors()[0]
        raise ScheduleError(
            f"Expected another value of {first['loc'][0]}, got {first['input']!r}: {first['msg']}."
        ) from None
    return changed


def check(declaration: Declaration, known: Collection[str]) -> None:
    """Nothing, if this declaration can be meant and carried out.

    Args:
        known: the commands that may be scheduled.

    Raises:
        ScheduleError: otherwise; it says which part and what was probably meant.
    """
    if not _NAME.fullmatch(declaration.name):
        raise ScheduleError(
            "Expected a name of at most 64 letters, digits, dots, dashes and underscores that "
            f"begins with a letter or digit, got {declaration.name!r}. Give another with --name."
        )
    word = words_of(declaration.command)[0]
    if word not in known:
        close = get_close_matches(word, known, n=1)
        hint = f" Did you mean {close[0]}?" if close else ""
        raise ScheduleError(
            f"Expected a command of Regraft that may be scheduled, got {word!r}.{hint} "
            f"There are: {', '.join(sorted(known))}."
        )
    zone_of(declaration.timezone)
    check_cron(declaration.cron, datetime.fromisoformat(declaration.added))
    _check_seconds(declaration)


def _check_seconds(declaration: Declaration) -> None:
    ranges = (
        ("grace_s", declaration.grace_s, 1, _DAY_S),
        ("jitter_s", declaration.jitter_s, 0, _DAY_S),
        ("timeout_s", declaration.timeout_s, 0, 365 * _DAY_S),
    )
    for what, seconds, least, most in ranges:
        if not least <= seconds <= most:
            raise ScheduleError(
                f"Expected {what} in [{least}, {most}], got {seconds}. Set another: --set {what}="
            )
    added = datetime.fromisoformat(declaration.added)
    coming = list(islice(moments(declaration.cron, declaration.timezone, added), _N_LOOKED_AT))
    gaps = [(later - earlier).total_seconds() for earlier, later in pairwise(coming)]
    if gaps and declaration.jitter_s >= min(gaps):
        raise ScheduleError(
            f"Expected a jitter shorter than the {min(gaps):.0f} s between two runs of "
            f"{declaration.cron!r}, got {declaration.jitter_s}. Set a smaller one: --set jitter_s="
        )


def upcoming(declaration: Declaration, after: datetime, n: int) -> list[datetime]:
    """The next n moments at which it is due after `after`, UTC, jitter included.

    Fewer only where the calendar ends.
    """
    return list(islice(_due_after(declaration, after), n))


def latest_due(declaration: Declaration, after: datetime, until: datetime) -> datetime | None:
    """The latest moment in (after, until] at which it was due, None if it was not."""
    cron, timezone = declaration.cron, declaration.timezone
    earliest = after - timedelta(seconds=declaration.jitter_s)
    moment = last_moment(cron, timezone, earliest, until)
    while moment and delayed(declaration, moment) > until:
        moment = last_moment(cron, timezone, earliest, moment - timedelta(microseconds=1))
    due = delayed(declaration, moment) if moment else None
    return due if due and due > after else None


def delayed(declaration: Declaration, moment: datetime) -> datetime:
    """The moment with its jitter, which is the same whoever asks, and however often."""
    if not declaration.jitter_s:
        return moment
    drawn = f"{declaration.host}\n{declaration.folder}\n{declaration.name}\n{moment.isoformat()}"
    share = int.from_bytes(hashlib.sha256(drawn.encode()).digest()[:6], "big") / 2**48
    return moment + timedelta(seconds=share * declaration.jitter_s)


def _due_after(declaration: Declaration, after: datetime) -> Iterator[datetime]:
    earliest = after - timedelta(seconds=declaration.jitter_s)
    for moment in moments(declaration.cron, declaration.timezone, earliest):
        due = delayed(declaration, moment)
        if due > after:
            yield due
