"""A model registry in memory with the MlflowClient calls that the ledger and the champion use.

This is a small real registry, not a mock: it numbers versions without gaps and refuses what MLflow
refuses. The pipeline tier runs the same checks with MLflow itself.
"""

from dataclasses import dataclass, field

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_ALREADY_EXISTS, RESOURCE_DOES_NOT_EXIST
from mlflow.store.entities import PagedList


@dataclass
class StoredVersion:
    name: str
    version: str
    tags: dict[str, str]
    run_id: str = ""


@dataclass
class StoredModel:
    name: str
    tags: dict[str, str] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)


class MemoryRegistry:
    def __init__(self):
        self.models: dict[str, StoredModel] = {}
        self.versions: dict[str, list[StoredVersion]] = {}

    def create_registered_model(self, name, tags=None, description=""):
        if name in self.models:
            raise MlflowException(name, RESOURCE_ALREADY_EXISTS)
        self.models[name] = StoredModel(name, dict(tags or {}))
        self.versions[name] = []

    def get_registered_model(self, name):
        if name not in self.models:
            raise MlflowException(name, RESOURCE_DOES_NOT_EXIST)
        return self.models[name]

    def search_registered_models(self, wanted=None, page_token=None):
        return PagedList([m for m in self.models.values() if _is_wanted(m, wanted)], None)

    def set_registered_model_tag(self, name, key, value):
        self.get_registered_model(name).tags[key] = value

    def set_registered_model_alias(self, name, alias, version):
        self.get_model_version(name, version)
        self.models[name].aliases[alias] = version

    def delete_registered_model_alias(self, name, alias):
        self.get_registered_model(name).aliases.pop(alias, None)

    def create_model_version(self, name, source, tags=None, **_):
        version = StoredVersion(name, str(len(self.versions[name]) + 1), dict(tags or {}))
        self.versions[name].append(version)
        return version

    def get_model_version(self, name, version):
        for stored in self.versions.get(name, []):
            if stored.version == str(version):
                return stored
        raise MlflowException(f"{name}/{version}", RESOURCE_DOES_NOT_EXIST)

    def search_model_versions(self, wanted=None, page_token=None):
        every = [version for versions in self.versions.values() for version in versions]
        return PagedList([version for version in every if _is_wanted(version, wanted)], None)

    def set_model_version_tag(self, name, version, key, value):
        self.get_model_version(name, version).tags[key] = value

    def delete_model_version(self, name, version):
        self.versions[name].remove(self.get_model_version(name, version))

    def get_model_version_download_uri(self, name, version):
        return f"/nowhere/{name}/{version}"


def _is_wanted(stored, wanted):
    return wanted is None or wanted == f"name='{stored.name}'"


def use_memory_registry(monkeypatch) -> MemoryRegistry:
    """Replace MLflow's registry by an empty one in memory and return it."""
    memory = MemoryRegistry()
    for module in ("ledger", "versions", "champion"):
        monkeypatch.setattr(f"regraft.registry.{module}.connect", lambda tracking: memory)
    return memory
