"""Versions in a real registry with tags and aliases, without files; they cannot be loaded."""

from datetime import UTC, datetime

from regraft import registry
from regraft.core.config import TrackingConfig
from regraft.registry import ChampionChange, RegisteredVersion
from regraft.registry.tracking import connect

NAME = "tiny"
NOW = datetime(2026, 11, 24, tzinfo=UTC)


def add_version(tracking: TrackingConfig, accuracy: float) -> RegisteredVersion:
    """Add a version of the model "tiny" and make it the challenger."""
    client = connect(tracking)
    if NAME not in registry.list_models(tracking):
        client.create_registered_model(NAME)
    tags = {"content_hash": f"hash of {accuracy}", "test_accuracy": str(accuracy)}
    made = client.create_model_version(NAME, "regraft:/nothing", tags=tags, await_creation_for=None)
    version = registry.find(tracking, NAME, str(made.version))
    registry.set_alias(tracking, version, "challenger")
    return version


def two_versions(tracking: TrackingConfig) -> TrackingConfig:
    """Return a registry with version 1 as champion and version 2 as challenger."""
    add_version(tracking, 0.75)
    set_champion(tracking, 1, None)
    add_version(tracking, 0.875)
    return tracking


def set_champion(tracking: TrackingConfig, version: int, before: int | None):
    """Make the version the champion, with a ledger entry."""
    move = ChampionChange("promote", version, "", "better", "me@here")
    return registry.move_champion(tracking, NAME, move, before, NOW)
