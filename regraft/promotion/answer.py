"""A person's answer to a pending verdict."""

from datetime import datetime

from pydantic import BaseModel, ConfigDict

from regraft import registry
from regraft.core.config import TrackingConfig
from regraft.core.errors import ChampionMoved
from regraft.core.pages.facts import format_version
from regraft.promotion import approve_verdict, load_verdict, reject_verdict
from regraft.registry import Entry


class ApprovalDecision(BaseModel):
    """A person's answer. who: "user@host". why: "" if no reason was given."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    approved: bool
    who: str
    why: str


def apply_decision(
    decision: ApprovalDecision, version: int, tracking: TrackingConfig, now: datetime
) -> Entry:
    """Approve or reject the pending verdict about a version of the model tracking.name.

    Args:
        decision: the answer.
        version: the challenger.
        tracking: the store of the registry; its name is the model's.
        now: UTC.

    Returns:
        The entry of the ledger.

    Raises:
        NothingPendingApproval: the verdict is not pending.
        ChampionMoved: the verdict compares with another champion than the current one; it stays
            pending.
    """
    registered = registry.find(tracking, tracking.name, str(version))
    verdict = load_verdict(tracking, registered)
    if not decision.approved:
        return reject_verdict(verdict, tracking, decision.who, decision.why, now)
    try:
        return approve_verdict(verdict, tracking, decision.who, now, decision.why)
    except ChampionMoved:
        serving = registry.serving_version(tracking, tracking.name)
        raise ChampionMoved(
            f"Expected {format_version(verdict.champion)} to be the champion of {tracking.name}, "
            f"as when v{version} was judged, got {format_version(serving)}. Nothing has changed. "
            f"Judge it again, against the current champion: regraft promote "
            f"{tracking.name}/{version}"
        ) from None
