"""Change the champion: write one ledger entry, then set the aliases.

The ledger entry is the commit point. If a process is killed before it writes the entry, nothing has
changed. If a process is killed after it, the next process completes the change: the entry records
the target of the aliases, and a tag marks the entries that have been applied. "previous" is set
before "champion", and "champion" is set in one write. So exactly one version serves at any time.

The alias decides which version serves (docs/decisions/001). If somebody sets the alias by hand, the
change is recorded in the ledger and the alias is not touched.
"""

import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Literal

from filelock import FileLock, Timeout
from mlflow.exceptions import MlflowException

from regraft.core.config import TrackingConfig
from regraft.core.errors import ChampionMoved, ModelNotFound, NoRollbackTarget, RegistryError
from regraft.core.outcomes import LedgerAction
from regraft.core.pages.facts import format_version
from regraft.registry.champion_history import promotion_stack, rollback_candidates
from regraft.registry.ledger import (
    Draft,
    Entry,
    Ledger,
    append_entry,
    load_verified_ledger,
    mark_applied,
    read_ledger,
)
from regraft.registry.tracking import connect
from regraft.registry.tracking.runs import SQLITE
from regraft.registry.versions import CHAMPION, PREVIOUS, find, get_aliases

OUTSIDE = "unknown (outside of Regraft)"
_LOCK_TIMEOUT_S = 120.0  # guess: a change takes 0.2 s
# Decides the entry once the champion is certain: (ledger, champion) -> (action, next champion).
_Choice = Callable[[Ledger, int | None], tuple[LedgerAction, int | None]]


@dataclass(frozen=True)
class ChampionChange:
    """A decision that makes another version the champion.

    after: the version of the new champion.
    verdict: id of the verdict behind the change, "" if there is none. who: "user@host".
    """

    action: Literal["promote", "rollback"]
    after: int
    verdict: str
    reason: str
    who: str


@dataclass(frozen=True)
class DecisionRecord:
    """A decision that leaves the champion as it is. The fields are those of ChampionChange."""

    action: Literal["keep", "hold", "reject"]
    verdict: str
    reason: str
    who: str


def move_champion(
    tracking: TrackingConfig,
    name: str,
    change: ChampionChange,
    expected: int | None,
    now: datetime,
) -> Entry:
    """Make another version the champion and return the ledger entry.

    Args:
        expected: the champion that the decision was based on, None for no champion.
        now: UTC.

    Raises:
        ChampionMoved: another version is champion. Nothing was changed.
        ModelNotFound: the new champion does not exist. Nothing was changed.
        LedgerBroken: the ledger fails its verification. Nothing was changed.
    """

    def choose(ledger: Ledger, serving: int | None) -> tuple[LedgerAction, int | None]:
        if serving != expected:
            raise ChampionMoved(_moved(name, expected, serving, ledger))
        find(tracking, name, str(change.after))
        return change.action, change.after

    with registry_lock(tracking):
        return _commit(tracking, name, _draft(name, change, now), choose)


def record_decision(
    tracking: TrackingConfig,
    name: str,
    decision: DecisionRecord,
    now: datetime,
    expected: int | Literal["any"] | None = "any",
) -> Entry:
    """Write a decision that leaves the champion as it is, and return the ledger entry.

    Args:
        expected: the champion that the decision was based on, None for no champion.

    Raises:
        ChampionMoved: another version is champion. Nothing was written.
        LedgerBroken: the ledger fails its verification.
    """

    def choose(ledger: Ledger, serving: int | None) -> tuple[LedgerAction, int | None]:
        if expected != "any" and serving != expected:
            raise ChampionMoved(_moved(name, expected, serving, ledger))
        return decision.action, serving

    with registry_lock(tracking):
        return _commit(tracking, name, _draft(name, decision, now), choose)


def roll_back(
    tracking: TrackingConfig,
    name: str,
    who: str,
    reason: str,
    now: datetime,
    to: int | None = None,
) -> Entry:
    """Make an earlier champion the champion again and return the ledger entry.

    Args:
        to: the version to return to. None selects the version that served before the present
            champion was promoted, so a second rollback goes further back.

    Raises:
        NoRollbackTarget: there is no earlier champion, `to` was never champion, or the version is
            no longer in the registry.
        LedgerBroken: the ledger fails its verification.
    """

    def choose(ledger: Ledger, serving: int | None) -> tuple[LedgerAction, int | None]:
        target = _target(ledger.entries, name, serving, to)
        candidates = rollback_candidates(ledger.entries, serving)
        _check_target_exists(tracking, name, target, candidates)
        return "rollback", target

    with registry_lock(tracking):
        draft = Draft(_stamp(now), who, "rollback", name, None, None, "", reason)
        return _commit(tracking, name, draft, choose)


def reconcile(tracking: TrackingConfig, name: str, now: datetime) -> None:
    """Complete the change of a killed process, and record changes that were made by hand.

    Raises:
        LedgerBroken: the ledger fails its verification.
    """
    with registry_lock(tracking):
        _reconciled(tracking, name, _stamp(now))


def last_champion(tracking: TrackingConfig, name: str) -> int | None:
    """Return the latest champion that the ledger records, None if there was never a champion."""
    stack = promotion_stack(read_ledger(tracking, name).entries)
    return stack[-1] if stack else None


def serving_bundle(tracking: TrackingConfig) -> tuple[str, str]:
    """Return the content hash and the bundle URL of the champion of tracking.name.

    Both are "" if there is no champion.
    """
    serving = serving_version(tracking, tracking.name)
    if serving is None:
        return "", ""
    version = find(tracking, tracking.name, str(serving))
    return version.content_hash, version.bundle_url


def serving_version(tracking: TrackingConfig, name: str) -> int | None:
    """Return the version with the alias "champion", None if there is none."""
    return get_aliases(tracking, name).get(CHAMPION)


def _commit(tracking: TrackingConfig, name: str, draft: Draft, choose: _Choice) -> Entry:
    while True:
        ledger, serving = _reconciled(tracking, name, draft.when)
        action, after = choose(ledger, serving)
        complete = replace(
            draft,
            when=_not_before(draft.when, ledger),
            action=action,
            before=serving,
            after=after,
        )
        try:
            entry = append_entry(tracking, complete, ledger.head)
        except ChampionMoved:  # another process wrote an entry first, perhaps only a "keep": retry
            continue
        _apply_newest(tracking, name)
        return entry


def _reconciled(tracking: TrackingConfig, name: str, when: str) -> tuple[Ledger, int | None]:
    """Return the ledger and the champion once they agree and no entry is pending.

    The loop ends: each pass either completes something or another process was faster.
    """
    while True:
        ledger = load_verified_ledger(tracking, name)
        if ledger.pending:
            _apply_newest(tracking, name)
            continue
        serving = serving_version(tracking, name)
        if not ledger.entries or serving == ledger.entries[-1].after:
            return ledger, serving
        before = ledger.entries[-1].after
        reason = "Regraft noticed the change at its next run."
        stamp = _not_before(when, ledger)
        draft = Draft(stamp, OUTSIDE, "outside", name, before, serving, "", reason)
        try:
            append_entry(tracking, draft, ledger.head)
        except ChampionMoved:
            continue


def _apply_newest(tracking: TrackingConfig, name: str) -> None:
    """Set the aliases as the newest entry requires, and mark the entry as applied.

    On a server, another process may write a newer entry and set the alias at the same time. Our
    alias could then overwrite the newer one. So the ledger is read again afterwards, and the loop
    repeats for the newest entry.
    """
    entries = read_ledger(tracking, name).entries
    serving = serving_version(tracking, name)
    may_move = entries[-1].action in ("promote", "rollback") and serving == entries[-1].before
    while True:
        _set_previous(tracking, name, entries)
        entries = read_ledger(tracking, name).entries  # as late as possible: see above
        newest = entries[-1]
        if may_move and newest.after is not None:
            _try_set_alias(tracking, name, CHAMPION, newest.after)
        mark_applied(tracking, newest)
        entries = read_ledger(tracking, name).entries
        if entries[-1] == newest:
            return


def _set_previous(tracking: TrackingConfig, name: str, entries: tuple[Entry, ...]) -> None:
    """Set "previous" to the nearest rollback candidate that is still in the registry."""
    current = get_aliases(tracking, name).get(PREVIOUS)
    for version in rollback_candidates(entries, entries[-1].after):
        if version == current or _try_set_alias(tracking, name, PREVIOUS, version):
            return
    if current is not None:
        connect(tracking).delete_registered_model_alias(name, PREVIOUS)


def _try_set_alias(tracking: TrackingConfig, name: str, alias: str, version: int) -> bool:
    """Set an alias and return True; return False if the version has been deleted meanwhile."""
    try:
        connect(tracking).set_registered_model_alias(name, alias, str(version))
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return False
    return True


def _draft(name: str, decision: ChampionChange | DecisionRecord, now: datetime) -> Draft:
    """Return the entry without the champion before and after, which are not certain yet."""
    verdict, reason = decision.verdict, decision.reason
    return Draft(_stamp(now), decision.who, decision.action, name, None, None, verdict, reason)


def _not_before(when: str, ledger: Ledger) -> str:
    """Return `when`, or the time of the newest entry if that is later.

    A verdict has the time at which its evaluation began. Another process may have written an entry
    since then, and the times in the ledger must not decrease.
    """
    last = ledger.entries[-1].when if ledger.entries else when
    return max(when, last, key=datetime.fromisoformat)


def _stamp(now: datetime) -> str:
    return now.astimezone(UTC).isoformat()


def _target(entries: tuple[Entry, ...], name: str, serving: int | None, to: int | None) -> int:
    candidates = rollback_candidates(entries, serving)
    champions = {entry.after for entry in entries} | {entry.before for entry in entries[:1]}
    if to is None and candidates:
        return candidates[0]
    if to is not None and to in champions and to != serving:
        return to
    stack = promotion_stack(entries)
    listed = ", ".join(format_version(version) for version in stack) or "none recorded"
    state = f"Champion now: {format_version(serving)}. Promotion stack, newest last: {listed}."
    if to is None:
        raise NoRollbackTarget(
            f"Expected an earlier champion of {name} as the rollback target, got none. {state} "
            f"Train a better model with `regraft train`, or see `regraft history "
            f"{shlex.quote(name)}`."
        )
    why = "it is the champion already" if to == serving else "it was never champion"
    raise NoRollbackTarget(
        f"Expected an earlier champion of {name} as the rollback target, got {to}: {why}. {state} "
        "Pass one of these with --to."
    )


def _check_target_exists(
    tracking: TrackingConfig, name: str, target: int, candidates: tuple[int, ...]
) -> None:
    try:
        find(tracking, name, str(target))
    except ModelNotFound as error:
        further = candidates
        if target in candidates:
            further = candidates[candidates.index(target) + 1 :]
        earlier = [version for version in further if version != target]
        remedy = (
            f"The next earlier champion: `regraft rollback {shlex.quote(name)} --to {earlier[0]}`."
            if earlier
            else "There is no earlier champion."
        )
        raise NoRollbackTarget(
            f"Expected the former champion {format_version(target)} of {name} in the registry, but "
            f"it cannot be loaded: {error} Nothing was changed. {remedy}"
        ) from None


def _moved(name: str, expected: int | None, serving: int | None, ledger: Ledger) -> str:
    last = f" Last entry of the ledger: {ledger.entries[-1]}" if ledger.entries else ""
    return (
        f"Expected {format_version(expected)} as the champion of {name}, as at the time of the "
        f"decision, got {format_version(serving)}.{last} Nothing was changed. Run the same command "
        "again to evaluate against the present champion."
    )


@contextmanager
def registry_lock(tracking: TrackingConfig) -> Iterator[None]:
    """Hold the lock of a SQLite registry; do nothing for a registry on a server.

    SQLite refuses concurrent writers, where a server lets them wait. The ledger itself needs no
    lock. The lock of a killed process is free.

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
            f"Waited {_LOCK_TIMEOUT_S:g} s for the lock {lock.lock_file}, which another process "
            "holds. Find that process with `fuser` and end it. This releases the lock."
        ) from None
    try:
        yield
    finally:
        lock.release()
