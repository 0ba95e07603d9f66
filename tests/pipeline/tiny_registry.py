"""Versions in a real registry that have tags and aliases, and no files: nobody loads them."""

from datetime import UTC, datetime

from regraft import registry
from regraft.core.config import TrackingConfig
from regraft.registry import Move, RegisteredVersion
from regraft.registry.tracking import connect

NAME = "tiny"
NOW = datetime(2026, 11, 24, tzinfo=UTC)


def add_version(tracking: TrackingConfig, accuracy: float) -> RegisteredVersion:
    """The next version of the model "tiny", which is the challenger then."""
    client = connect(tracking)
    if NAME not in registry.names(tracking):
        client.create_registered_model(NAME)
    tags = {"content_hash": f"hash of {accuracy}", "test_accuracy": str(accuracy)}
    made = client.create_model_version(NAME, "regraft:/nothing", tags=tags, await_creation_for=None)
    version = registry.find(tracking, NAME, str(made.version))
    registry.set_alias(tracking, version, "challenger")
    return version


def two_versions(tracking: TrackingConfig) -> TrackingConfig:
    """A registry in which version 1 serves and version 2 is the challenger."""
    add_version(tracking, 0.75)
    crown(tracking, 1, None)
    add_version(tracking, 0.875)
    return tracking


def crown(tracking: TrackingConfig, version: int, before: int | None):
    """Makes it the champion, in the ledger too."""
    move = Move("promote", version, "", "better", "me@here")
    return registry.move_champion(tracking, NAME, move, before, NOW)
