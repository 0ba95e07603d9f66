"""Where the data of a state folder lives: in the folder, or where its first settings put it.

A place that the user sets, such as `tracking.uri`, is written into the folder's record once. Every
later command reads it from there, so that no command looks into another store than the training.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from regraft.core.config import Config, TrackingConfig
from regraft.core.errors import ConfigError
from regraft.core.files import absolute
from regraft.core.state.databases import version_stamp
from regraft.core.state.folder import State, state_lock
from regraft.core.state.record import StateRecord, read_record, write_record

_SQLITE = "sqlite:///"
_DATABASE = re.compile(r"(sqlite|postgresql|mysql|mssql)(\+\w+)?:")
# Records: a second place would divide them, so a different setting is an error. The other places
# hold caches and pages: a different setting applies to one command.
_FIXED = ("tracking.uri", "tracking.artifacts_url", "retrain.journal_url")


@dataclass(frozen=True)
class Places:
    """The places of a state folder, each a local path or an fsspec URL.

    tracking: MLflow's tracking store and registry, and the folder of its artifacts; without a name.
    embeddings: cached embeddings.
    photos: cached facts of photos.
    images: PNG files of photos that were given as arrays.
    splits: folder with the split memory of each model, in a folder of the model's name.
    checkpoints: of interrupted trainings.
    journal: results of `retrain` and `watch`.
    reports: report pages.
    schedule: schedule entries; always local, because the service runs on one machine.
    has_registry: whether the registry exists; a server is assumed to exist.
    """

    tracking: TrackingConfig
    embeddings: str
    photos: str
    images: str
    splits: str
    checkpoints: str
    journal: str
    reports: str
    schedule: Path
    has_registry: bool

    def settings(self, name: str) -> dict[str, str]:
        """Return the places by setting, as "section.field".

        Args:
            name: of the model.
        """
        return {
            "ingest.images_url": self.images,
            "ingest.memory_url": self.photos,
            "split.memory_url": f"{self.splits}/{name}",
            "embed.store_url": self.embeddings,
            "tune.checkpoint_url": self.checkpoints,
            "tracking.uri": self.tracking.uri,
            "tracking.artifacts_url": self.tracking.artifacts_url,
            "promote.reports_url": self.reports,
            "retrain.journal_url": self.journal,
        }


def places(state: State) -> Places:
    """Return the places of an opened state folder.

    Raises:
        StateError: the folder's record cannot be read.
    """
    record = read_record(state.root)
    own = _own_places(state)
    chosen = own | (record.places if record else {})
    uri, artifacts = chosen["tracking.uri"], chosen["tracking.artifacts_url"]
    if artifacts == own["tracking.artifacts_url"] and not _DATABASE.match(uri):
        artifacts = ""  # the server's own; a database has none
    return Places(
        tracking=TrackingConfig(uri=uri, artifacts_url=artifacts),
        embeddings=chosen["embed.store_url"],
        photos=chosen["ingest.memory_url"],
        images=chosen["ingest.images_url"],
        splits=str(state.splits),
        checkpoints=chosen["tune.checkpoint_url"],
        journal=chosen["retrain.journal_url"],
        reports=chosen["promote.reports_url"],
        schedule=state.schedule,
        has_registry=uri != own["tracking.uri"] or _has_database(state),
    )


def fix_places(config: Config, state: State) -> Places:
    """Return the places of the state folder, after those that the configuration sets are recorded.

    The first setting of a place is recorded. The tracking store, its artifacts and the journal may
    not change after that, nor after the state folder's own ones have been used. For caches and
    pages, a different setting applies to this configuration only.

    Raises:
        ConfigError: the configuration sets another tracking store, artifact folder or journal than
            the state folder uses.
    """
    flat = config.flat()
    given = {key: _normalize(flat[key]) for key in _own_places(state) if flat[key]}
    if given:
        with state_lock(state):
            record = read_record(state.root) or StateRecord(state.root)
            merged = _merge(given, record.places, state)
            if merged != record.places:
                write_record(state.root, replace(record, places=merged))
    return places(state)


def _own_places(state: State) -> dict[str, str]:
    """Return the places inside the state folder, by setting."""
    return {
        "tracking.uri": f"{_SQLITE}{state.mlflow_database}",
        "tracking.artifacts_url": str(state.mlflow_artifacts),
        "retrain.journal_url": str(state.journal),
        "embed.store_url": str(state.embeddings),
        "ingest.memory_url": str(state.photos),
        "ingest.images_url": str(state.images),
        "tune.checkpoint_url": str(state.checkpoints),
        "promote.reports_url": str(state.reports),
    }


def _merge(given: Mapping[str, str], recorded: Mapping[str, str], state: State) -> dict[str, str]:
    """Return the recorded places and those that are set for the first time.

    Raises:
        ConfigError: see fix_places().
    """
    used = _used_places(recorded, state)
    for key in _FIXED:
        expected = used.get(key)
        if key in given and expected not in (None, given[key]):
            raise ConfigError(
                f"Expected {key}={expected or '(the server decides)'}, which the state folder "
                f"{state.root} uses since its first run, got {given[key]}. Omit the setting, or "
                "choose another state folder with --state."
            )
    own = _own_places(state)
    chosen = {key: place for key, place in given.items() if place != own[key]}
    return {**chosen, **recorded}


def _used_places(recorded: Mapping[str, str], state: State) -> dict[str, str]:
    """Return the places of records that already exist, by setting."""
    used, current = {}, places(state)
    if "tracking.uri" in recorded or _has_database(state):
        used["tracking.uri"] = current.tracking.uri
        used["tracking.artifacts_url"] = current.tracking.artifacts_url
    if "retrain.journal_url" in recorded or any(state.journal.rglob("*.json")):
        used["retrain.journal_url"] = current.journal
    return used


def _has_database(state: State) -> bool:
    """Return whether MLflow's database is in the state folder, or was until it was deleted."""
    return state.mlflow_database.exists() or version_stamp(state.mlflow_database).exists()


def _normalize(place: str) -> str:
    """Return the place with an absolute path, also in the URI of an SQLite database."""
    if place.startswith(_SQLITE):
        return f"{_SQLITE}{absolute(place.removeprefix(_SQLITE))}"
    return absolute(place)
