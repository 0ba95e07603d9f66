"""What came of an attempt whose process was killed: perhaps a verdict that nobody wrote down."""

from dataclasses import replace
from datetime import datetime

from regraft import registry
from regraft.config import Config
from regraft.errors import ModelNotFound
from regraft.journal import Attempt
from regraft.promote import Verdict, load_verdict
from regraft.registry import CHALLENGER, CHAMPION
from regraft.retrain.conclude import OUTCOMES, Beginning, untrained
from regraft.state import RunMarker


def cut_off(config: Config, marker: RunMarker, now: datetime) -> Attempt:
    """The attempt as far as it came: its verdict, if that was carried out, else that it was killed.

    Args:
        marker: that it left. now: UTC.
    """
    killed = f"process {marker.pid} on {marker.host} was killed before it came to an end"
    attempt = untrained(config, Beginning(marker.started, "", ""), "killed", killed, now)
    found = _carried_out_since(marker.started, config)
    if found is None:
        return attempt
    verdict, when = found
    return replace(
        attempt,
        ended=when,
        outcome=OUTCOMES[verdict.standing],
        reason=f"{verdict.reason} (process {marker.pid} was killed before it wrote this down)",
        version=verdict.challenger,
        verdict=verdict.id,
        champion=verdict.challenger if verdict.serves else verdict.champion,
        flips=len(verdict.flips),
    )


def _carried_out_since(started: str, config: Config) -> tuple[Verdict, str] | None:
    """The verdict about the newest version, and when it fell, if that was since then."""
    tracking = config.tracking
    held = registry.aliases(tracking, tracking.name)
    last = held.get(CHALLENGER, held.get(CHAMPION))
    if last is None:
        return None
    version = registry.find(tracking, tracking.name, str(last))
    if "verdict" not in registry.tags(tracking, version):
        return None
    try:
        verdict = load_verdict(tracking, version)
    except ModelNotFound:  # its files are gone
        return None
    since = datetime.fromisoformat(started)
    for entry in reversed(registry.entries(tracking, tracking.name)):
        if entry.verdict == verdict.id and datetime.fromisoformat(entry.when) >= since:
            return verdict, entry.when
    return None
