"""What came of an attempt whose process was killed: perhaps a verdict that nobody wrote down."""

from dataclasses import replace
from datetime import datetime

from regraft import registry
from regraft.core.config import Config
from regraft.core.errors import ModelNotFound
from regraft.core.state import RunMarker
from regraft.operations.journal import Attempt
from regraft.operations.retrain.conclude import OUTCOMES, Beginning, settings_of, untrained
from regraft.promotion.kept import JUDGE_TAG, Kept, kept_of
from regraft.registry import CHALLENGER, CHAMPION


def cut_off(config: Config, marker: RunMarker, now: datetime) -> Attempt:
    """The attempt as far as it came: its verdict, if that was carried out, else that it was killed.

    Args:
        marker: that it left. now: UTC.
    """
    killed = f"process {marker.pid} on {marker.host} was killed before it came to an end"
    attempt = untrained(config, Beginning(marker.started, "", ""), "killed", killed, now)
    found = _carried_out_by(marker, config)
    if found is None:
        return attempt
    kept, when = found
    verdict = kept.verdict
    return replace(
        attempt,
        ended=when,
        outcome=OUTCOMES[verdict.standing],
        reason=f"{verdict.reason} (process {marker.pid} was killed before it wrote this down)",
        version=verdict.challenger,
        verdict=verdict.id,
        champion=verdict.challenger if verdict.serves else verdict.champion,
        flips=len(verdict.flips),
        settings=settings_of(kept.rule),
    )


def _carried_out_by(marker: RunMarker, config: Config) -> tuple[Kept, str] | None:
    """What that process decided about the newest version, and when, if it was carried out."""
    tracking = config.tracking
    held = registry.aliases(tracking, tracking.name)
    last = held.get(CHALLENGER, held.get(CHAMPION))
    if last is None:
        return None
    version = registry.find(tracking, tracking.name, str(last))
    tags = registry.tags(tracking, version)
    if tags.get(JUDGE_TAG) != marker.process or "verdict" not in tags:
        return None
    try:
        kept = kept_of(version, tracking)
    except ModelNotFound:  # its files are gone
        return None
    since = datetime.fromisoformat(marker.started)
    for entry in registry.entries(tracking, tracking.name):
        if entry.verdict == kept.verdict.id and datetime.fromisoformat(entry.when) >= since:
            return kept, entry.when
    return None
