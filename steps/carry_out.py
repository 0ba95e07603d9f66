"""Doorway of the stage carry_out: what somebody said about a verdict that waits."""

import logging
from datetime import UTC, datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict
from zenml import step

from regraft import promotion as promote
from regraft import registry
from regraft.core.config import TrackingConfig
from regraft.core.errors import ChampionMoved
from regraft.registry import Entry

logger = logging.getLogger("regraft.carry_out")


class Decision(BaseModel):
    """What somebody said. who: "user@host". why: "" if no reason was given."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    approved: bool
    who: str
    why: str


@step(enable_cache=False)
def carry_out(
    decision: Decision, version: int, config: TrackingConfig
) -> Annotated[Entry, "entry"]:
    """The ledger's entry of the decision, and the alias moved if it says so."""
    entry = act_on(decision, version, config, datetime.now(UTC))
    logger.info("carry_out: %s", entry)
    return entry


def act_on(decision: Decision, version: int, tracking: TrackingConfig, now: datetime) -> Entry:
    """Carries out, or refuses, the verdict that waits about a version of the model tracking.name.

    Args:
        now: UTC.

    Raises:
        NothingWaits: the verdict does not wait, or not any more.
        ChampionMoved: the verdict is about another champion than serves now; it goes on waiting.
    """
    found = registry.find(tracking, tracking.name, str(version))
    verdict = promote.load_verdict(tracking, found)
    if not decision.approved:
        return promote.refuse(verdict, tracking, decision.who, decision.why, now)
    try:
        return promote.carry_out(verdict, tracking, decision.who, now, decision.why)
    except ChampionMoved:
        serving = registry.serving_version(tracking, tracking.name)
        raise ChampionMoved(
            f"Expected {_told(verdict.champion)} to be the champion of {tracking.name}, as it was "
            f"when v{version} was judged, but {_told(serving)} is. Nothing has moved. Judge it "
            f"again, against the one that serves: regraft promote {tracking.name}/{version}"
        ) from None


def _told(version: int | None) -> str:
    return "none" if version is None else f"v{version}"
