"""A fast check for changes since the last attempt, without torch and without MLflow."""

import hashlib
import json
import os
import sqlite3
from contextlib import closing
from urllib.parse import quote

from regraft import __version__
from regraft.core.config import Config, TrackingConfig
from regraft.operations import journal
from regraft.operations.journal import Attempt

_SQLITE = "sqlite:///"
_IRRELEVANT = "batch."  # settings that change no model


def run_fingerprint(config: Config, photos: str) -> str:
    """Return 64 hex digits that change with the photos, the configuration or Regraft's version.

    Args:
        photos: result of regraft.data.ingest.fingerprint().
    """
    relevant = {k: text for k, text in config.flat().items() if not k.startswith(_IRRELEVANT)}
    parts = [__version__, photos, relevant]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def find_unchanged_attempt(config: Config, fingerprint: str) -> Attempt | None:
    """Return the last attempt if a new attempt would come to the same decision, else None.

    The inputs have to be the same: the fingerprint, and the registry's aliases at the end of the
    last attempt. Decisions that depend on the clock do not count as the same: a training that was
    postponed for its budget, or skipped for too few changes while the champion grows older than
    retrain.max_age_days. Nor does a training that the champion won although it lacks the class
    names or the threshold asked for: a revision is next.

    Args:
        fingerprint: of today, see run_fingerprint().

    Raises:
        JournalBroken: the last record cannot be read.
    """
    last = journal.last_attempt(config.retrain.journal_url, config.tracking.name)
    if last is None or last.fingerprint != fingerprint:
        return None
    aliases = read_aliases(config.tracking)
    if aliases is None or aliases != last.aliases:
        return None
    if last.outcome in ("failed", "killed", "postpone") or last.awaits_revision:
        return None
    has_change = last.advice is not None and last.advice.delta.n_changed > 0
    if last.outcome == "skip" and has_change and config.retrain.max_age_days:
        return None
    return last


def read_aliases(tracking: TrackingConfig) -> str | None:
    """Return the model's aliases as text, None if the registry is not a readable SQLite file.

    Reads the database directly, because importing MLflow takes seconds.
    """
    path = tracking.uri.removeprefix(_SQLITE)
    if path == tracking.uri or not os.path.exists(path):
        return None
    query = "SELECT alias, version FROM registered_model_aliases WHERE name = ? ORDER BY alias"
    try:
        with closing(sqlite3.connect(f"file:{quote(path)}?mode=ro", uri=True)) as connection:
            rows = connection.execute(query, (tracking.name,)).fetchall()
    except sqlite3.Error:  # other tables, or a concurrent write: the caller then asks MLflow
        return None
    return ", ".join(f"{alias} {version}" for alias, version in rows)
