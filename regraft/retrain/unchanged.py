"""Whether anything has changed since the last time, said in seconds: no network, no registry."""

import hashlib
import json

from regraft import __version__, journal
from regraft.config import Config
from regraft.journal import Attempt

_NO_MATTER = "batch."  # decides nothing about a model


def fingerprint_of(config: Config, photos: str) -> str:
    """64 hex digits that change when the photos, the configuration or Regraft may have.

    Args:
        photos: regraft.ingest.fingerprint() of them.
    """
    decisive = {key: text for key, text in config.flat().items() if not key.startswith(_NO_MATTER)}
    parts = [__version__, photos, decisive]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def unchanged_since(config: Config, seen: str) -> Attempt | None:
    """The last attempt, if it saw just this and would be decided alike today; else None.

    What a clock alone can change is not decided alike: a training that was put off for its budget,
    or one that too few photos had changed for while a champion grows old.

    Args:
        seen: as fingerprint_of().

    Raises:
        JournalBroken: the last record cannot be read.
    """
    last = journal.last_attempt(config.retrain.journal_url, config.tracking.name)
    if last is None or last.fingerprint != seen:
        return None
    if last.outcome in ("failed", "killed", "postponed"):
        return None
    waits = last.outcome == "skipped" and last.advice is not None and last.advice.delta.n_changed
    return None if waits and config.retrain.max_age_days else last
