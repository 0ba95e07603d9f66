"""The MLflow model registry: versions, their aliases, what serves and why."""

from regraft.registry.registration import register
from regraft.registry.versions import (
    CHALLENGER,
    CHAMPION,
    PREVIOUS,
    RegisteredVersion,
    aliases,
    find,
    list_versions,
    load,
    load_manifest,
    resolve,
    set_alias,
    set_tags,
)

__all__ = [
    "CHALLENGER",
    "CHAMPION",
    "PREVIOUS",
    "RegisteredVersion",
    "aliases",
    "find",
    "list_versions",
    "load",
    "load_manifest",
    "register",
    "resolve",
    "set_alias",
    "set_tags",
]
