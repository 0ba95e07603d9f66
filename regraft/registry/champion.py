"""The champion's transaction: one entry in the ledger, then the aliases.

The entry is the point of no return. Whoever is killed before it has changed nothing; whoever is
killed after it is finished by the next one who comes, because an entry says where the aliases have
to be and carries a mark once they are there. "champion" moves in one write and "previous" before
it, so that at every moment exactly one version serves.

What serves is what the alias says (docs/decisions/001). Where somebody moved it by hand, the ledger
learns of it; the alias is left alone.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Literal

from filelock import FileLock, Timeout
from mlflow.exceptions import MlflowException

from regraft.core.config import TrackingConfig
from regraft.core.errors import ChampionMoved, ModelNotFound, NoWayBack, RegistryError
from regraft.registry.ledger import (
    Action,
    Draft,
    Entry,
    Ledger,
    append,
    mark_applied,
    read,
    verified,
    version_text,
)
from regraft.registry.tracking import connect
from regraft.registry.tracking.runs import SQLITE
from regraft.registry.versions import CHAMPION, PREVIOUS, aliases, find

OUTSIDE = "somebody outside of Regraft"
_LOCK_TIMEOUT_S = 120.0  # guess: a move takes a fifth of a second
# What a transaction decides once it is settled who serves: (ledger, champion) -> (action, after).
_Choice = Callable[[Ledger, int | None], tuple[Action, int | None]]


@dataclass(frozen=True)
class Move:
    """Another champion.

    after: the version that serves from now on.
    verdict: the id of the verdict behind it, "" if none. who: "user@host".
    """

    action: Literal["promote", "rollback"]
    after: int
    verdict: str
    reason: str
    who: str


@dataclass(frozen=True)
class Note:
    """A decision that moves nothing; see Move."""

    action: Literal["keep", "hold", "reject"]
    verdict: str
    reason: str
    who: str


def move_champion(
    tracking: TrackingConfig, name: str, move: Move, expected: int | None, now: datetime
) -> Entry:
    """The entry of the move, after the aliases are where it says.

    Args:
        expected: the version that the decision took for the champion, None for none.
        now: UTC.

    Raises:
        ChampionMoved: another one serves; nothing was moved.
        ModelNotFound: there is no such version to serve; nothing was moved.
        LedgerBroken: the ledger is not what was written; nothing was moved.
    """

    def choose(ledger: Ledger, serving: int | None) -> tuple[Action, int | None]:
        if serving != expected:
            raise ChampionMoved(_moved(name, expected, serving, ledger))
        find(tracking, name, str(move.after))
        return move.action, move.after

    with turn(tracking):
        return _commit(tracking, name, _draft(name, move, now), choose)


def record(
    tracking: TrackingConfig,
    name: str,
    note: Note,
    now: datetime,
    expected: int | Literal["any"] | None = "any",
) -> Entry:
    """The entry of a decision after which the champion, or none, serves on.

    Args:
        expected: the version that the decision took for the champion, None for none.

    Raises:
        ChampionMoved: another one serves; nothing was written.
        LedgerBroken: the ledger is not what was written.
    """

    def choose(ledger: Ledger, serving: int | None) -> tuple[Action, int | None]:
        if expected != "any" and serving != expected:
            raise ChampionMoved(_moved(name, expected, serving, ledger))
        return note.action, serving

    with turn(tracking):
        return _commit(tracking, name, _draft(name, note, now), choose)


def roll_back(
    tracking: TrackingConfig,
    name: str,
    who: str,
    reason: str,
    now: datetime,
    to: int | None = None,
) -> Entry:
    """The entry of the way back to a version that was champion.

    Args:
        to: that version; None is the one that served before the present one was promoted, so that
            a rollback after a rollback goes further back.

    Raises:
        NoWayBack: there is none, `to` never served, or the registry no longer has it.
        LedgerBroken: the ledger is not what was written.
    """

    def choose(ledger: Ledger, serving: int | None) -> tuple[Action, int | None]:
        target = _target(ledger.entries, name, serving, to)
        _check_still_there(tracking, name, target, way_back(ledger.entries, serving))
        return "rollback", target

    with turn(tracking):
        draft = Draft(_stamp(now), who, "rollback", name, None, None, "", reason)
        return _commit(tracking, name, draft, choose)


def settle(tracking: TrackingConfig, name: str, now: datetime) -> None:
    """Finishes what a killed process began, and writes down what was moved by hand.

    Raises:
        LedgerBroken: the ledger is not what was written.
    """
    with turn(tracking):
        _settled(tracking, name, _stamp(now))


def chain(entries: tuple[Entry, ...]) -> tuple[int, ...]:
    """The champions that lead to the present one, newest last, as a stack.

    What served before the first entry is its bottom. A promotion puts a version on top. A rollback
    takes away all above its target; a target that is no longer on the stack (back to what was
    rolled back from) is put on top. A move by hand is read as a rollback if its target is on the
    stack, else as a promotion; one that left no champion leaves the stack.
    """
    first = entries[0].before if entries else None
    stack = [] if first is None else [first]
    for entry in entries:
        if entry.after is None:
            continue
        if entry.action in ("rollback", "outside") and entry.after in stack:
            while stack[-1] != entry.after:
                stack.pop()
        if not stack or stack[-1] != entry.after:
            stack.append(entry.after)
    return tuple(stack)


def way_back(entries: tuple[Entry, ...], serving: int | None) -> tuple[int, ...]:
    """Where rollbacks would lead from the version that serves, nearest first."""
    stack = chain(entries)
    return stack[::-1] if not stack or stack[-1] != serving else stack[-2::-1]


def champion_at(entries: tuple[Entry, ...], when: datetime) -> int | None:
    """The version that served at that time, None for none; before the first entry, its `before`.

    Args:
        when: with a time zone.
    """
    served = entries[0].before if entries else None
    for entry in entries:
        if datetime.fromisoformat(entry.when) <= when:
            served = entry.after
    return served


def last_champion(tracking: TrackingConfig, name: str) -> int | None:
    """The version that served last, by the ledger; None if none ever did."""
    stack = chain(read(tracking, name).entries)
    return stack[-1] if stack else None


def serving_bundle(tracking: TrackingConfig) -> tuple[str, str]:
    """The content hash and the bundle's place of the champion of tracking.name, "" for none."""
    serving = serving_version(tracking, tracking.name)
    if serving is None:
        return "", ""
    version = find(tracking, tracking.name, str(serving))
    return version.content_hash, version.bundle_url


def serving_version(tracking: TrackingConfig, name: str) -> int | None:
    """The version that has the alias "champion", None for none."""
    return aliases(tracking, name).get(CHAMPION)


def _commit(tracking: TrackingConfig, name: str, draft: Draft, choose: _Choice) -> Entry:
    while True:
        ledger, serving = _settled(tracking, name, draft.when)
        action, after = choose(ledger, serving)
        said = replace(draft, when=_not_before(draft.when, ledger), before=serving)
        said = replace(said, action=action, after=after)
        try:
            entry = append(tracking, said, ledger.head)
        except ChampionMoved:  # or only a "keep" was faster: look again
            continue
        _carry_out(tracking, name)
        return entry


def _settled(tracking: TrackingConfig, name: str, when: str) -> tuple[Ledger, int | None]:
    """The ledger and the champion at a moment when they agree and nothing is left to be done.

    The loop ends: each turn either finishes something, or somebody else was faster.
    """
    while True:
        ledger = verified(tracking, name)
        if ledger.pending:
            _carry_out(tracking, name)
            continue
        serving = serving_version(tracking, name)
        if not ledger.entries or serving == ledger.entries[-1].after:
            return ledger, serving
        before = ledger.entries[-1].after
        reason = "Found when Regraft looked the next time."
        stamp = _not_before(when, ledger)
        draft = Draft(stamp, OUTSIDE, "outside", name, before, serving, "", reason)
        try:
            append(tracking, draft, ledger.head)
        except ChampionMoved:
            continue


def _carry_out(tracking: TrackingConfig, name: str) -> None:
    """Brings the aliases to where the newest entry wants them, and marks it.

    On a server, another process may write a newer entry meanwhile, and our alias would land on top
    of its own. So whoever has moved it looks again, and moves it on to the newest.
    """
    entries = read(tracking, name).entries
    serving = serving_version(tracking, name)
    may_move = entries[-1].action in ("promote", "rollback") and serving == entries[-1].before
    while True:
        _set_previous(tracking, name, entries)
        entries = read(tracking, name).entries  # as late as can be: see above
        newest = entries[-1]
        if may_move and newest.after is not None:
            _try_alias(tracking, name, CHAMPION, newest.after)
        mark_applied(tracking, newest)
        entries = read(tracking, name).entries
        if entries[-1] == newest:
            return


def _set_previous(tracking: TrackingConfig, name: str, entries: tuple[Entry, ...]) -> None:
    """Points "previous" at where a rollback would lead, of what the registry still has."""
    held = aliases(tracking, name).get(PREVIOUS)
    for version in way_back(entries, entries[-1].after):
        if version == held or _try_alias(tracking, name, PREVIOUS, version):
            return
    if held is not None:
        connect(tracking).delete_registered_model_alias(name, PREVIOUS)


def _try_alias(tracking: TrackingConfig, name: str, alias: str, version: int) -> bool:
    """Whether it could be set: a version may have been deleted since it was decided upon."""
    try:
        connect(tracking).set_registered_model_alias(name, alias, str(version))
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return False
    return True


def _draft(name: str, decision: Move | Note, now: datetime) -> Draft:
    """What is known of the entry before it is known who serves."""
    verdict, reason = decision.verdict, decision.reason
    return Draft(_stamp(now), decision.who, decision.action, name, None, None, verdict, reason)


def _not_before(when: str, ledger: Ledger) -> str:
    """A verdict is stamped when its duel begins; whoever was faster must not seem to come later."""
    last = ledger.entries[-1].when if ledger.entries else when
    return max(when, last, key=datetime.fromisoformat)


def _stamp(now: datetime) -> str:
    return now.astimezone(UTC).isoformat()


def _target(entries: tuple[Entry, ...], name: str, serving: int | None, to: int | None) -> int:
    back = way_back(entries, serving)
    served = {entry.after for entry in entries} | {entry.before for entry in entries[:1]}
    if to is None and back:
        return back[0]
    if to is not None and to in served and to != serving:
        return to
    told = ", ".join(version_text(version) for version in chain(entries)) or "none is recorded"
    now = f"{version_text(serving)} serves now"
    if to is None:
        raise NoWayBack(
            f"Expected an earlier champion of {name} to go back to, found none: {now}, and the "
            f"champions that led there are: {told}. Train a better one with `regraft train`, or "
            f"look at `regraft history {name}`."
        )
    why = "it serves already" if to == serving else "it never was"
    raise NoWayBack(
        f"Expected a version of {name} that was champion before, got {to}: {why}. {now}; the "
        f"champions that led there, newest last: {told}. Name one of them with --to."
    )


def _check_still_there(
    tracking: TrackingConfig, name: str, target: int, back: tuple[int, ...]
) -> None:
    try:
        find(tracking, name, str(target))
    except ModelNotFound as error:
        further = back[back.index(target) + 1 :] if target in back else back
        earlier = [version for version in further if version != target]
        remedy = (
            f"The next earlier champion: `regraft rollback {name} --to {earlier[0]}`."
            if earlier
            else "No earlier champion is left."
        )
        raise NoWayBack(
            f"Expected {version_text(target)} of {name}, which was champion before, in the "
            f"registry, but it cannot be loaded from there: {error} Nothing has moved. {remedy}"
        ) from None


def _moved(name: str, expected: int | None, serving: int | None, ledger: Ledger) -> str:
    last = f" Last entry of the ledger: {ledger.entries[-1]}" if ledger.entries else ""
    return (
        f"Expected {version_text(expected)} to be the champion of {name}, as it was when this was "
        f"decided, but {version_text(serving)} is.{last} Nothing has moved. Judge again, against "
        "the one that serves: run the same command again."
    )


@contextmanager
def turn(tracking: TrackingConfig) -> Iterator[None]:
    """Lets the processes of one machine queue before a SQLite registry; the ledger needs it not.

    SQLite turns writers away where a server would let them wait. A killed holder's lock is free.

    Raises:
        RegistryError: another process holds the lock for two minutes.
    """
    if not tracking.uri.startswith(SQLITE):
        yield
        return
    lock = FileLock(f"{tracking.uri.removeprefix(SQLITE)}.champion.lock", timeout=_LOCK_TIMEOUT_S)
    try:
        lock.acquire()
    except Timeout:
        raise RegistryError(
            f"Waited {_LOCK_TIMEOUT_S:g} s for my turn to move a champion: another process holds "
            f"{lock.lock_file}. See which one with `fuser` and end it; the lock goes with it."
        ) from None
    try:
        yield
    finally:
        lock.release()
