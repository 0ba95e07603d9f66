"""Verdicts that wait for a person, and what the person said, carried out once."""

from datetime import datetime

from regraft import registry
from regraft.core.config import TrackingConfig
from regraft.core.errors import NothingWaits
from regraft.promotion.kept import VERDICT_TAG
from regraft.promotion.verdict import Verdict
from regraft.registry import APPROVAL, WAITING, Action, Entry, Move, Note, RegisteredVersion

APPROVED, REJECTED = "approved", "rejected"


def waiting_versions(tracking: TrackingConfig) -> list[RegisteredVersion]:
    """The versions whose last verdict waits for an answer, by name and number."""
    return registry.with_tag(tracking, APPROVAL, WAITING)


def carry_out(
    verdict: Verdict, tracking: TrackingConfig, who: str, now: datetime, why: str = ""
) -> Entry:
    """Makes the challenger of a verdict that waits the champion, and writes who approved it.

    Killed halfway, it is finished by the next call.

    Args:
        why: what the person said, if anything.

    Raises:
        NothingWaits: the verdict does not wait, or somebody has answered.
        ChampionMoved: another champion serves than the one it was judged against.
    """
    version = _waiting(verdict, tracking)
    entry = _answered(verdict, tracking, "promote", now)
    if entry is None:
        told = f"approved by {who}{_because(why)}; {verdict.reason}"
        move = Move("promote", version.version, verdict.id, told, who)
        entry = registry.move_champion(tracking, verdict.name, move, verdict.champion, now)
    registry.set_tags(tracking, version, {"why": entry.reason, APPROVAL: APPROVED})
    return entry


def refuse(verdict: Verdict, tracking: TrackingConfig, who: str, why: str, now: datetime) -> Entry:
    """Writes down that somebody rejected a verdict that waits; nothing moves.

    Killed halfway, it is finished by the next call.

    Raises:
        NothingWaits: the verdict does not wait, or somebody has answered.
    """
    version = _waiting(verdict, tracking)
    entry = _answered(verdict, tracking, "reject", now)
    if entry is None:
        told = f"version {version.version} rejected by {who}{_because(why)}; {verdict.reason}"
        note = Note("reject", verdict.id, told, who)
        entry = registry.record(tracking, verdict.name, note, now)
    said = {"verdict": "keep", "why": entry.reason, APPROVAL: REJECTED}
    registry.set_tags(tracking, version, said)
    return entry


def _waiting(verdict: Verdict, tracking: TrackingConfig) -> RegisteredVersion:
    version = registry.find(tracking, verdict.name, str(verdict.challenger))
    tags = registry.tags(tracking, version)
    is_last = tags.get(VERDICT_TAG) == verdict.id
    if verdict.waits and is_last and tags.get(APPROVAL) == WAITING:
        return version
    said = tags.get(APPROVAL) or "none was asked for"
    raise NothingWaits(
        f"Expected the verdict {verdict.id} about {verdict.name}/{verdict.challenger} to wait for "
        f"approval, but: {said}. See `regraft explain {verdict.name}/{verdict.challenger}`."
    )


def _answered(
    verdict: Verdict, tracking: TrackingConfig, action: Action, now: datetime
) -> Entry | None:
    """The entry of an earlier answer whose process was killed before it said so.

    It is the last entry about the verdict, and what it says still holds.
    """
    registry.settle(tracking, verdict.name, now)
    entries = registry.entries(tracking, verdict.name)
    ours = [entry for entry in entries if entry.verdict == verdict.id]
    holds = bool(ours) and ours[-1].action == action and ours[-1].after == entries[-1].after
    return ours[-1] if holds else None


def _because(why: str) -> str:
    return f" ({why})" if why else ""
