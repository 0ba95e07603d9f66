"""The record of an attempt whose process was killed, possibly after its verdict was carried out."""

from dataclasses import replace
from datetime import datetime

from regraft import registry
from regraft.core.config import Config
from regraft.core.errors import ModelNotFound
from regraft.core.state import RunMarker
from regraft.operations.journal import Attempt
from regraft.operations.retrain.conclude import (
    RunSnapshot,
    attempt_without_training,
    changed_settings,
    outcome_of_verdict,
)
from regraft.promotion.stored_verdict import JUDGE_TAG, StoredVerdict, load_stored_verdict
from regraft.registry import CHALLENGER, CHAMPION


def recover_attempt(config: Config, marker: RunMarker, now: datetime) -> Attempt:
    """Return the record of a killed attempt: its verdict if that was carried out, else "killed".

    Args:
        marker: of the killed process. now: UTC.
    """
    killed = f"process {marker.pid} on {marker.host} was killed before it finished"
    snapshot = RunSnapshot(marker.started, "", "")
    attempt = attempt_without_training(config, snapshot, "killed", killed, now)
    recovered = _recover_verdict(marker, config)
    if recovered is None:
        return attempt
    stored, when = recovered
    verdict = stored.verdict
    return replace(
        attempt,
        ended=when,
        outcome=outcome_of_verdict(verdict.status),
        reason=f"{verdict.reason} (process {marker.pid} was killed before it wrote its record)",
        version=verdict.challenger,
        verdict=verdict.id,
        champion=verdict.challenger if verdict.is_serving else verdict.champion,
        flips=len(verdict.flips),
        settings=changed_settings(stored.config),
    )


def _recover_verdict(marker: RunMarker, config: Config) -> tuple[StoredVerdict, str] | None:
    """Return the process's verdict on the newest version and the time of its ledger entry.

    None if the verdict was not carried out.
    """
    tracking = config.tracking
    held = registry.get_aliases(tracking, tracking.name)
    last = held.get(CHALLENGER, held.get(CHAMPION))
    if last is None:
        return None
    version = registry.find(tracking, tracking.name, str(last))
    tags = registry.get_tags(tracking, version)
    if tags.get(JUDGE_TAG) != marker.process or "verdict" not in tags:
        return None
    try:
        stored = load_stored_verdict(version, tracking)
    except ModelNotFound:  # the files of the verdict were deleted
        return None
    since = datetime.fromisoformat(marker.started)
    for entry in registry.list_entries(tracking, tracking.name):
        if entry.verdict == stored.verdict.id and datetime.fromisoformat(entry.when) >= since:
            return stored, entry.when
    return None
