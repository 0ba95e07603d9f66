"""Whether anything has changed since the last time, said in seconds: no network, no registry."""

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
_NO_MATTER = "batch."  # decides nothing about a model


def fingerprint_of(config: Config, photos: str) -> str:
    """64 hex digits that change when the photos, the configuration or Regraft may have.

    Args:
        photos: regraft.data.ingest.fingerprint() of them.
    """
    decisive = {key: text for key, text in config.flat().items() if not key.startswith(_NO_MATTER)}
    parts = [__version__, photos, decisive]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def unchanged_since(config: Config, seen: str) -> Attempt | None:
    """The last attempt, if it saw just this and would be decided alike today; else None.

    What a clock alone can change is not decided alike: a training that was put off for its budget,
    or one that too few photos had changed for while a champion grows old. Nor is what somebody did
    to the registry meanwhile: its aliases have to be those that the last attempt left.

    Args:
        seen: as fingerprint_of().

    Raises:
        JournalBroken: the last record cannot be read.
    """
    last = journal.last_attempt(config.retrain.journal_url, config.tracking.name)
    if last is None or last.fingerprint != seen:
        return None
    aliases = aliases_of(config.tracking)
    if aliases is None or aliases != last.aliases:
        return None
    if last.outcome in ("failed", "killed", "postponed"):
        return None
    waits = last.outcome == "skipped" and last.advice is not None and last.advice.delta.n_changed
    return None if waits and config.retrain.max_age_days else last


def aliases_of(tracking: TrackingConfig) -> str | None:
    """The model's aliases as text, read from a SQLite registry's file; None if it is none.

    MLflow would answer too, after the seconds that its import takes.
    """
    path = tracking.uri.removeprefix(_SQLITE)
    if path == tracking.uri or not os.path.exists(path):
        return None
    wanted = "SELECT alias, version FROM registered_model_aliases WHERE name = ? ORDER BY alias"
    try:
        with closing(sqlite3.connect(f"file:{quote(path)}?mode=ro", uri=True)) as connection:
            found = connection.execute(wanted, (tracking.name,)).fetchall()
    except sqlite3.Error:  # another MLflow's tables, or somebody writes: the long way tells
        return None
    return ", ".join(f"{alias} {version}" for alias, version in found)
