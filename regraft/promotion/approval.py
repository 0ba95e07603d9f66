"""Verdicts that wait for approval by a person, and the approval or rejection itself."""

import shlex
from datetime import datetime

from regraft import registry
from regraft.core.config import TrackingConfig
from regraft.core.errors import NothingPendingApproval
from regraft.core.outcomes import LedgerAction
from regraft.promotion.stored_verdict import VERDICT_TAG
from regraft.promotion.verdict import Verdict
from regraft.registry import (
    APPROVAL,
    PENDING,
    ChampionChange,
    DecisionRecord,
    Entry,
    RegisteredVersion,
)

APPROVED, REJECTED = "approved", "rejected"


def pending_versions(tracking: TrackingConfig) -> list[RegisteredVersion]:
    """Return the versions whose latest verdict waits for approval, by name and number."""
    return registry.find_by_tag(tracking, APPROVAL, PENDING)


def approve_verdict(
    verdict: Verdict, tracking: TrackingConfig, who: str, now: datetime, why: str = ""
) -> Entry:
    """Make the challenger of a pending verdict the champion, and record who approved it.

    If the process is killed halfway, the next call completes the approval.

    Args:
        verdict: a pending verdict.
        tracking: the store of the registry.
        who: the person, as user@host.
        now: UTC.
        why: the person's reason, "" if none.

    Returns:
        The entry in the ledger.

    Raises:
        NothingPendingApproval: the verdict is not pending, or it was approved or rejected before.
        ChampionMoved: the champion is not the version that the verdict compared with.
    """
    version = _pending_version(verdict, tracking)
    entry = _interrupted_entry(verdict, tracking, "promote", now)
    if entry is None:
        reason = f"approved by {who}{_in_brackets(why)}; {verdict.reason}"
        change = ChampionChange("promote", version.version, verdict.id, reason, who)
        entry = registry.move_champion(tracking, verdict.name, change, verdict.champion, now)
    registry.set_tags(tracking, version, {"why": entry.reason, APPROVAL: APPROVED})
    return entry


def reject_verdict(
    verdict: Verdict, tracking: TrackingConfig, who: str, why: str, now: datetime
) -> Entry:
    """Record that a person rejected a pending verdict; no alias moves.

    If the process is killed halfway, the next call completes the rejection.

    Args:
        verdict: a pending verdict.
        tracking: the store of the registry.
        who: the person, as user@host.
        why: the person's reason, "" if none.
        now: UTC.

    Returns:
        The entry in the ledger.

    Raises:
        NothingPendingApproval: the verdict is not pending, or it was approved or rejected before.
    """
    version = _pending_version(verdict, tracking)
    entry = _interrupted_entry(verdict, tracking, "reject", now)
    if entry is None:
        reason = f"version {version.version} rejected by {who}{_in_brackets(why)}; {verdict.reason}"
        record = DecisionRecord("reject", verdict.id, reason, who)
        entry = registry.record_decision(tracking, verdict.name, record, now)
    decision_tags = {"verdict": "keep", "why": entry.reason, APPROVAL: REJECTED}
    registry.set_tags(tracking, version, decision_tags)
    return entry


def _pending_version(verdict: Verdict, tracking: TrackingConfig) -> RegisteredVersion:
    """Return the challenger of the verdict.

    Raises:
        NothingPendingApproval: the verdict is not pending, or a newer verdict replaced it.
    """
    version = registry.find(tracking, verdict.name, str(verdict.challenger))
    tags = registry.get_tags(tracking, version)
    is_latest = tags.get(VERDICT_TAG) == verdict.id
    if verdict.is_pending and is_latest and tags.get(APPROVAL) == PENDING:
        return version
    status = tags.get(APPROVAL) or "approval was not required"
    raise NothingPendingApproval(
        f"Expected the verdict {verdict.id} about {verdict.name}/{verdict.challenger} to wait for "
        f"approval, got: {status}. See `regraft explain "
        f"{shlex.quote(f'{verdict.name}/{verdict.challenger}')}`."
    )


def _interrupted_entry(
    verdict: Verdict, tracking: TrackingConfig, action: LedgerAction, now: datetime
) -> Entry | None:
    """Return the ledger entry of a call that was killed before it set the tags, None if none.

    The entry counts if it is the latest about the verdict and the champion is still the same.
    """
    registry.reconcile(tracking, verdict.name, now)
    entries = registry.list_entries(tracking, verdict.name)
    about_verdict = [entry for entry in entries if entry.verdict == verdict.id]
    if not about_verdict:
        return None
    latest = about_verdict[-1]
    is_valid = latest.action == action and latest.after == entries[-1].after
    return latest if is_valid else None


def _in_brackets(why: str) -> str:
    return f" ({why})" if why else ""
