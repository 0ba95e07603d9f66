"""Find, list, tag and load versions of registered models."""

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import pandas as pd
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts, list_artifacts
from mlflow.entities.model_registry import ModelVersion, RegisteredModel
from mlflow.exceptions import MlflowException
from mlflow.store.entities import PagedList

from regraft.core.config import TrackingConfig
from regraft.core.errors import ModelNotFound, WeightsNotFound
from regraft.model.card import CARD_FILE, Card, read_card
from regraft.registry.tracking import connect

if TYPE_CHECKING:
    from regraft.drift import Reference
    from regraft.model.classifier import ImageClassifier

CHAMPION = "champion"
CHALLENGER = "challenger"
PREVIOUS = "previous"
BUNDLE_PATH = "/artifacts/bundle"  # MLflow's path of the artifact "bundle" of a pyfunc model
MANIFEST_FILE = "manifest.parquet"
# Tag that is written last. A version without it was not verified, and find() does not return it.
CONTENT_HASH = "content_hash"
APPROVAL = "approval"  # tag: state of the approval by a person; "" if no approval was required
PENDING = "pending"
DESCRIPTION_START = "Registered by Regraft"
# Tag of a registered model that is a ledger: its versions are entries, not models.
LEDGER = "regraft.ledger"
_PAGE = 1000  # MLflow's server returns at most this many registered models at once
_Stored = TypeVar("_Stored", ModelVersion, RegisteredModel)
COLUMNS = ("name", "version", "aliases", "test_accuracy", "when", "why")


@dataclass(frozen=True)
class RegisteredVersion:
    """A version of a model in the registry.

    bundle_url: folder with weights.safetensors, card.json, manifest.parquet and drift/; fsspec URL,
        or mlflow-artifacts: if the MLflow server serves the files itself.
    content_hash: of the classifier. run_id: of the MLflow run, "" if there is none.
    created: whether this call created it; False if the same content was registered before.
    """

    name: str
    version: int
    bundle_url: str
    content_hash: str
    run_id: str
    created: bool = False

    def __str__(self) -> str:
        state = "new" if self.created else "registered before, same content"
        return f"register: {self.name} v{self.version} ({state})"


def find(
    tracking: TrackingConfig, name: str, alias_or_version: str = CHAMPION
) -> RegisteredVersion:
    """Return the version with an alias or a number.

    Raises:
        ModelNotFound: there is no such model, alias or version. The message lists the existing
            ones.
    """
    client = connect(tracking)
    try:
        if alias_or_version.isdecimal():
            version = client.get_model_version(name, alias_or_version)
        else:
            version = client.get_model_version_by_alias(name, alias_or_version)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        raise ModelNotFound(_not_found(tracking, name, alias_or_version)) from None
    if CONTENT_HASH not in version.tags:
        raise ModelNotFound(
            f"{name}/{version.version} was not verified because its registration was interrupted. "
            "Register it again."
        )
    return to_registered_version(client, version)


def resolve(tracking: TrackingConfig, reference: str, alias: str = CHAMPION) -> RegisteredVersion:
    """Return the version for a reference "name@alias", "name/3" or "name".

    Args:
        reference: "" selects the only model that has the alias.
        alias: the alias that "name" alone stands for.

    Raises:
        ModelNotFound: as find(); or the reference is "" and the number of models with the alias is
            not one.
    """
    if not reference:
        return find(tracking, _only(tracking, alias), alias)
    for mark in ("@", "/"):
        name, separator, wanted = reference.rpartition(mark)
        if separator:
            return find(tracking, name, wanted)
    return find(tracking, reference, alias)


def list_versions(tracking: TrackingConfig) -> pd.DataFrame:
    """Return every version of every model, sorted by name, newest version first.

    Returns:
        name, version (int), aliases (comma-separated), test_accuracy (NaN if unknown), when (ISO
        8601, UTC), why (the reason of the verdict, or that there is none).
    """
    client = connect(tracking)
    rows = []
    for model in _models(client):
        for version in all_versions(client, model.name):
            own_aliases = [a for a, v in model.aliases.items() if int(v) == int(version.version)]
            rows.append(_row(version, sorted(own_aliases)))
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    return table.sort_values(["name", "version"], ascending=[True, False], ignore_index=True)


def list_models(tracking: TrackingConfig) -> tuple[str, ...]:
    """Return the names of the registered models, sorted, without ledgers."""
    return tuple(sorted(str(model.name) for model in _models(connect(tracking))))


def get_aliases(tracking: TrackingConfig, name: str) -> dict[str, int]:
    """Return {alias: version} of a model, empty if the model does not exist."""
    for model in connect(tracking).search_registered_models(f"name='{name}'"):
        return {alias: int(version) for alias, version in model.aliases.items()}
    return {}


def set_alias(tracking: TrackingConfig, version: RegisteredVersion, alias: str) -> None:
    """Set the alias to the version in one write. The alias is removed from any other version."""
    connect(tracking).set_registered_model_alias(version.name, alias, str(version.version))


def set_tags(tracking: TrackingConfig, version: RegisteredVersion, tags: Mapping[str, str]) -> None:
    """Write tags of the version, replacing older values."""
    client = connect(tracking)
    for key, value in tags.items():
        place = version.name, str(version.version), key, value
        try:
            client.set_model_version_tag(*place)
        except MlflowException:
            # MLflow looks the tag up and inserts it: of two processes at the same moment, the
            # second fails. Its second write finds the tag and replaces it.
            client.set_model_version_tag(*place)


def describe_version(tracking: TrackingConfig, version: RegisteredVersion, text: str) -> None:
    """Write the version's description, with the day of its registration, for MLflow's pages.

    A description that a person wrote or changed stays.
    """
    client = connect(tracking)
    stored = client.get_model_version(version.name, str(version.version))
    if stored.description and not stored.description.startswith(DESCRIPTION_START):
        return
    day = f"{datetime.fromtimestamp(stored.creation_timestamp / 1000, UTC):%Y-%m-%d}"
    description = f"{DESCRIPTION_START} on {day}. {text}"
    client.update_model_version(version.name, str(version.version), description)


def get_tags(tracking: TrackingConfig, version: RegisteredVersion) -> dict[str, str]:
    """Return the present tags of the version."""
    stored = connect(tracking).get_model_version(version.name, str(version.version))
    return dict(stored.tags)


def find_by_tag(tracking: TrackingConfig, key: str, value: str) -> list[RegisteredVersion]:
    """Return the versions of all models with a tag of this value, sorted by name and number."""
    client = connect(tracking)
    matches = _pages(client.search_model_versions, f"tags.{key} = '{value}'")
    ordered = sorted(matches, key=lambda version: (version.name, int(version.version)))
    return [to_registered_version(client, version) for version in ordered]


def delete(tracking: TrackingConfig, version: RegisteredVersion) -> None:
    """Remove the version from the registry. Its files stay with the run."""
    connect(tracking).delete_model_version(version.name, str(version.version))


def load(tracking: TrackingConfig, version: RegisteredVersion) -> "ImageClassifier":
    """Return the classifier of the version.

    Raises:
        WeightsNotFound, WeightsMismatch: the bundle is missing or damaged.
    """
    from regraft.model.classifier import load_classifier

    with downloaded(tracking, version.bundle_url) as folder:
        return load_classifier(folder)


def load_card(tracking: TrackingConfig, version: RegisteredVersion) -> Card:
    """Return the card of the version without loading the weights.

    Raises:
        WeightsNotFound: there is no card in the bundle.
        WeightsMismatch: the card is not valid.
    """
    if CARD_FILE not in _bundle_files(tracking, version):
        raise WeightsNotFound(
            f"Expected {CARD_FILE} of {version.name}/{version.version} in {version.bundle_url}, "
            "got none."
        )
    with downloaded(tracking, f"{version.bundle_url}/{CARD_FILE}") as path:
        return read_card(path)


def load_manifest(tracking: TrackingConfig, version: RegisteredVersion) -> pd.DataFrame:
    """Return the photos for training and model selection: sha256, phash, label, split."""
    with downloaded(tracking, f"{version.bundle_url}/{MANIFEST_FILE}") as path:
        return pd.read_parquet(path)


def load_reference(tracking: TrackingConfig, version: RegisteredVersion) -> "Reference | None":
    """Return the drift reference of the version, None if the version has none.

    Raises:
        RegistryError: the reference is damaged.
    """
    from regraft import drift

    if drift.FOLDER not in _bundle_files(tracking, version):
        return None
    with downloaded(tracking, f"{version.bundle_url}/{drift.FOLDER}") as folder:
        return drift.load_reference(folder)


def require_reference(tracking: TrackingConfig, version: RegisteredVersion) -> "Reference":
    """Return the drift reference of the version.

    Raises:
        ModelNotFound: the version has none.
    """
    reference = load_reference(tracking, version)
    if reference is None:
        raise ModelNotFound(
            f"Expected a drift reference in {version.name}/{version.version}, got none: an older "
            "release of Regraft registered it. Run `regraft train` on its photos again to add one."
        )
    return reference


@dataclass(frozen=True)
class Ancestry:
    """The photos that a version and its ancestors (warm starts) were trained or selected on.

    manifests: each with sha256, phash, thumbnail, label, split; the version's own first.
    is_complete: False if an ancestor is no longer in the registry.
    """

    version: int
    manifests: tuple[pd.DataFrame, ...]
    is_complete: bool


def load_ancestry(tracking: TrackingConfig, version: RegisteredVersion) -> Ancestry:
    """Return the manifests of the version and of its ancestors."""
    any_model = tracking.model_copy(update={"name": ""})
    manifests, ancestor = [], version
    while True:
        manifests.append(load_manifest(tracking, ancestor))
        card = load_card(tracking, ancestor)
        parent = find_by_content(any_model, card.parent) if card.parent else None
        if parent is None:
            return Ancestry(version.version, tuple(manifests), is_complete=not card.parent)
        ancestor = parent


def _bundle_files(tracking: TrackingConfig, version: RegisteredVersion) -> set[str]:
    """Return the names of the files and folders of the version's bundle."""
    files = list_artifacts(artifact_uri=version.bundle_url, tracking_uri=tracking.uri)
    return {file.path.rpartition("/")[2] for file in files}


@contextmanager
def downloaded(tracking: TrackingConfig, url: str) -> Iterator[Path]:
    """Download a folder or file of the artifact store; the local copy is removed at block exit."""
    with tempfile.TemporaryDirectory() as folder:
        uri = tracking.uri
        path = download_artifacts(artifact_uri=url, dst_path=folder, tracking_uri=uri)
        yield Path(path)


def find_by_content(tracking: TrackingConfig, content_hash: str) -> RegisteredVersion | None:
    """Return the oldest version of tracking.name with this content hash, None if there is none.

    An empty tracking.name searches all models.
    """
    client = connect(tracking)
    of_name = f"name='{tracking.name}' and " if tracking.name else ""
    query = f"{of_name}tags.{CONTENT_HASH}='{content_hash}'"
    matches = sorted(client.search_model_versions(query), key=lambda version: int(version.version))
    return to_registered_version(client, matches[0]) if matches else None


def to_registered_version(client: MlflowClient, version: ModelVersion) -> RegisteredVersion:
    """Return MLflow's version as a RegisteredVersion."""
    model_url = client.get_model_version_download_uri(version.name, str(version.version))
    return RegisteredVersion(
        name=version.name,
        version=int(version.version),
        bundle_url=f"{model_url.rstrip('/')}{BUNDLE_PATH}",
        content_hash=version.tags.get(CONTENT_HASH, ""),
        run_id=version.run_id or "",
    )


def all_versions(client: MlflowClient, name: str) -> Iterator[ModelVersion]:
    """Yield every version of a registered model."""
    return _pages(client.search_model_versions, f"name='{name}'")


def _models(client: MlflowClient) -> Iterator[RegisteredModel]:
    """Yield every registered model that is not a ledger."""
    models = _pages(client.search_registered_models, None)
    return (model for model in models if LEDGER not in model.tags)


def _pages(search: Callable[..., PagedList[_Stored]], query: str | None) -> Iterator[_Stored]:
    """Yield all results of a search, page by page."""
    token = None
    while token != "":
        page = search(query, page_token=token)
        yield from page
        token = page.token or ""


def _row(version: ModelVersion, own_aliases: list[str]) -> tuple[str, int, str, float, str, str]:
    when = datetime.fromtimestamp(version.creation_timestamp / 1000, UTC)
    if CONTENT_HASH in version.tags:
        why = version.tags.get("why", "no verdict yet")
    else:
        why = "its registration was interrupted"
    accuracy = float(version.tags.get("test_accuracy", "nan"))
    stamp = when.isoformat(timespec="seconds")
    return version.name, int(version.version), ", ".join(own_aliases), accuracy, stamp, why


def _only(tracking: TrackingConfig, alias: str) -> str:
    """Return the name of the only model with the alias."""
    models = _models(connect(tracking))
    candidates = sorted(str(model.name) for model in models if alias in model.aliases)
    if len(candidates) != 1:
        listed = ", ".join(f"{name}@{alias}" for name in candidates) or "none"
        remedy = "Name one of these." if candidates else "Run `regraft train` first."
        raise ModelNotFound(f"Expected one {alias} in {tracking.uri}, got {listed}. {remedy}")
    return candidates[0]


def _not_found(tracking: TrackingConfig, name: str, wanted: str) -> str:
    """Return the message about a missing version, with the existing models or versions."""
    existing = list_versions(tracking)
    separator = "/" if wanted.isdecimal() else "@"
    expected = f"Expected the model {name}{separator}{wanted} in {tracking.uri}, got none."
    if existing.empty:
        return f"{expected} No model is registered there. Run `regraft train` first."
    if name not in set(existing.name):
        return f"{expected} Registered models: {', '.join(sorted(set(existing.name)))}."
    versions = existing[existing.name == name]
    listed = [
        f"{name}/{version}" + (f" ({own_aliases})" if own_aliases else "")
        for version, own_aliases in zip(versions.version, versions.aliases, strict=True)
    ]
    return f"{expected} Registered versions: {', '.join(listed)}."
