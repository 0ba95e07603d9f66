"""Which versions there are, what they are called, and how one is read back."""

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import pandas as pd
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts, list_artifacts
from mlflow.entities.model_registry import ModelVersion, RegisteredModel
from mlflow.exceptions import MlflowException
from mlflow.store.entities import PagedList

from regraft import drift
from regraft.core.config import TrackingConfig
from regraft.core.errors import ModelNotFound
from regraft.drift import Reference
from regraft.model.classifier import CARD_FILE, Card, ImageClassifier, load_classifier
from regraft.registry.tracking import connect

CHAMPION = "champion"
CHALLENGER = "challenger"
PREVIOUS = "previous"
BUNDLE_PATH = "/artifacts/bundle"  # where MLflow puts the artifact "bundle" of a pyfunc model
MANIFEST_FILE = "manifest.parquet"
# Written last: a version without it was not checked to its end, and is never found.
SEAL = "content_hash"
APPROVAL = "approval"  # what became of the question whether it may serve; "" if none was asked
WAITING = "waiting"
# On a registered model whose versions are no models, but the entries of a ledger.
LEDGER = "regraft.ledger"
_PAGE = 1000  # the most registered models that MLflow's server gives at once
_Found = TypeVar("_Found", ModelVersion, RegisteredModel)
COLUMNS = ("name", "version", "aliases", "test_accuracy", "when", "why")


@dataclass(frozen=True)
class RegisteredVersion:
    """A model in the registry.

    bundle_url: folder with weights.safetensors, card.json, manifest.parquet and drift/; fsspec URL,
        or mlflow-artifacts: where the MLflow server hands out the files itself.
    content_hash: of the classifier. run_id: of the MLflow run, "" if none.
    created: whether this call made it; False if the same content was there before.
    """

    name: str
    version: int
    bundle_url: str
    content_hash: str
    run_id: str
    created: bool = False

    def __str__(self) -> str:
        news = "new" if self.created else "the same content as before, nothing new"
        return f"register: {self.name} v{self.version} ({news})"


def find(
    tracking: TrackingConfig, name: str, alias_or_version: str = CHAMPION
) -> RegisteredVersion:
    """The version that an alias or a number means.

    Raises:
        ModelNotFound: no such model, alias or version; lists what there is.
    """
    client = connect(tracking)
    try:
        if alias_or_version.isdecimal():
            found = client.get_model_version(name, alias_or_version)
        else:
            found = client.get_model_version_by_alias(name, alias_or_version)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        raise ModelNotFound(_what_there_is(tracking, name, alias_or_version)) from None
    if SEAL not in found.tags:
        raise ModelNotFound(
            f"{name}/{found.version} was never checked to its end: its registration was "
            "interrupted. Register it again."
        )
    return as_registered(client, found)


def resolve(tracking: TrackingConfig, reference: str, alias: str = CHAMPION) -> RegisteredVersion:
    """The version that "name@alias", "name/3" or "name" means.

    Args:
        reference: "" is the only model that has the alias.
        alias: what "name" alone means.

    Raises:
        ModelNotFound: as find(); or "" was asked and no model has the alias, or more than one.
    """
    if not reference:
        return find(tracking, _only(tracking, alias), alias)
    for mark in ("@", "/"):
        name, found, wanted = reference.rpartition(mark)
        if found:
            return find(tracking, name, wanted)
    return find(tracking, reference, alias)


def list_versions(tracking: TrackingConfig) -> pd.DataFrame:
    """Every version of every model, by name, newest first.

    Returns:
        name, version (int), aliases (comma-separated), test_accuracy (NaN if unknown), when (ISO
        8601, UTC), why (the verdict's reason, or that there is none).
    """
    client = connect(tracking)
    rows = []
    for model in _models(client):
        for version in all_versions(client, model.name):
            called = [a for a, v in model.aliases.items() if int(v) == int(version.version)]
            rows.append(_row(version, sorted(called)))
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    return table.sort_values(["name", "version"], ascending=[True, False], ignore_index=True)


def names(tracking: TrackingConfig) -> tuple[str, ...]:
    """The registered models, sorted; ledgers are none."""
    return tuple(sorted(str(model.name) for model in _models(connect(tracking))))


def aliases(tracking: TrackingConfig, name: str) -> dict[str, int]:
    """{alias: version} of a model; empty for an unknown one."""
    for model in connect(tracking).search_registered_models(f"name='{name}'"):
        return {alias: int(version) for alias, version in model.aliases.items()}
    return {}


def set_alias(tracking: TrackingConfig, version: RegisteredVersion, alias: str) -> None:
    """Gives the alias to the version, taking it from any other, in one write."""
    connect(tracking).set_registered_model_alias(version.name, alias, str(version.version))


def set_tags(tracking: TrackingConfig, version: RegisteredVersion, tags: Mapping[str, str]) -> None:
    """Writes tags on the version, over older ones of the same keys."""
    client = connect(tracking)
    for key, value in tags.items():
        client.set_model_version_tag(version.name, str(version.version), key, value)


def tags(tracking: TrackingConfig, version: RegisteredVersion) -> dict[str, str]:
    """The tags of the version as they are now."""
    found = connect(tracking).get_model_version(version.name, str(version.version))
    return dict(found.tags)


def with_tag(tracking: TrackingConfig, key: str, value: str) -> list[RegisteredVersion]:
    """The versions of all models that carry the tag with this value, by name and number."""
    client = connect(tracking)
    found = _pages(client.search_model_versions, f"tags.{key} = '{value}'")
    ordered = sorted(found, key=lambda version: (version.name, int(version.version)))
    return [as_registered(client, version) for version in ordered]


def delete(tracking: TrackingConfig, version: RegisteredVersion) -> None:
    """Takes the version out of the registry; its files stay with the run."""
    connect(tracking).delete_model_version(version.name, str(version.version))


def load(tracking: TrackingConfig, version: RegisteredVersion) -> ImageClassifier:
    """The classifier of the version.

    Raises:
        WeightsNotFound, WeightsMismatch: its bundle is gone or damaged.
    """
    with downloaded(tracking, version.bundle_url) as folder:
        return load_classifier(folder)


def load_card(tracking: TrackingConfig, version: RegisteredVersion) -> Card:
    """The card of the version, without its weights."""
    with downloaded(tracking, f"{version.bundle_url}/{CARD_FILE}") as path:
        return Card.model_validate_json(path.read_bytes())


def load_manifest(tracking: TrackingConfig, version: RegisteredVersion) -> pd.DataFrame:
    """The photos that the version was trained or chosen on: sha256, phash, label, side."""
    with downloaded(tracking, f"{version.bundle_url}/{MANIFEST_FILE}") as path:
        return pd.read_parquet(path)


def load_reference(tracking: TrackingConfig, version: RegisteredVersion) -> Reference | None:
    """What drift of the version is measured against; None: it is older than such references.

    Raises:
        RegistryError: it is damaged.
    """
    found = list_artifacts(artifact_uri=version.bundle_url, tracking_uri=tracking.uri)
    if drift.FOLDER not in {file.path.rpartition("/")[2] for file in found}:
        return None
    with downloaded(tracking, f"{version.bundle_url}/{drift.FOLDER}") as folder:
        return drift.load_reference(folder)


def reference_of(tracking: TrackingConfig, version: RegisteredVersion) -> Reference:
    """As load_reference(), where one is needed.

    Raises:
        ModelNotFound: the version has none.
    """
    reference = load_reference(tracking, version)
    if reference is None:
        raise ModelNotFound(
            f"{version.name}/{version.version} was registered before models kept what drift is "
            "measured against. Run `regraft train` on its photos once more, which adds it."
        )
    return reference


@dataclass(frozen=True)
class Ancestry:
    """What a version was trained or chosen on, and what the models were that it started from.

    manifests: each sha256, phash, thumbnail, label, side; the version's own first.
    is_whole: False if a model of its line is no longer in the registry.
    """

    version: int
    manifests: tuple[pd.DataFrame, ...]
    is_whole: bool


def ancestry(tracking: TrackingConfig, version: RegisteredVersion) -> Ancestry:
    """The manifests of the version and of its line of warm starts."""
    any_model = tracking.model_copy(update={"name": ""})
    manifests, one = [], version
    while True:
        manifests.append(load_manifest(tracking, one))
        card = load_card(tracking, one)
        parent = with_content(any_model, card.parent) if card.parent else None
        if parent is None:
            return Ancestry(version.version, tuple(manifests), is_whole=not card.parent)
        one = parent


@contextmanager
def downloaded(tracking: TrackingConfig, url: str) -> Iterator[Path]:
    """A local copy of a folder or a file in the artifact store, as long as the block lives."""
    with tempfile.TemporaryDirectory() as folder:
        uri = tracking.uri
        path = download_artifacts(artifact_uri=url, dst_path=folder, tracking_uri=uri)
        yield Path(path)


def with_content(tracking: TrackingConfig, content_hash: str) -> RegisteredVersion | None:
    """The oldest version of tracking.name with this content, if there is one; "" is any model's."""
    client = connect(tracking)
    of_name = f"name='{tracking.name}' and " if tracking.name else ""
    same = f"{of_name}tags.{SEAL}='{content_hash}'"
    found = sorted(client.search_model_versions(same), key=lambda version: int(version.version))
    return as_registered(client, found[0]) if found else None


def as_registered(client: MlflowClient, version: ModelVersion) -> RegisteredVersion:
    """MLflow's version as ours."""
    model_url = client.get_model_version_download_uri(version.name, str(version.version))
    return RegisteredVersion(
        name=version.name,
        version=int(version.version),
        bundle_url=f"{model_url.rstrip('/')}{BUNDLE_PATH}",
        content_hash=version.tags.get(SEAL, ""),
        run_id=version.run_id or "",
    )


def all_versions(client: MlflowClient, name: str) -> Iterator[ModelVersion]:
    """Every version of a registered model."""
    return _pages(client.search_model_versions, f"name='{name}'")


def _models(client: MlflowClient) -> Iterator[RegisteredModel]:
    """Every registered model that is one: a ledger is none."""
    found = _pages(client.search_registered_models, None)
    return (model for model in found if LEDGER not in model.tags)


def _pages(search: Callable[..., PagedList[_Found]], wanted: str | None) -> Iterator[_Found]:
    """All that a search finds, page by page."""
    token = None
    while token != "":
        page = search(wanted, page_token=token)
        yield from page
        token = page.token or ""


def _row(version: ModelVersion, called: list[str]) -> tuple[str, int, str, float, str, str]:
    when = datetime.fromtimestamp(version.creation_timestamp / 1000, UTC)
    if SEAL in version.tags:
        why = version.tags.get("why", "not judged yet")
    else:
        why = "its registration was interrupted"
    accuracy = float(version.tags.get("test_accuracy", "nan"))
    stamp = when.isoformat(timespec="seconds")
    return version.name, int(version.version), ", ".join(called), accuracy, stamp, why


def _only(tracking: TrackingConfig, alias: str) -> str:
    """The name of the only model that has the alias."""
    models = _models(connect(tracking))
    called = sorted(str(model.name) for model in models if alias in model.aliases)
    if len(called) != 1:
        found = ", ".join(f"{name}@{alias}" for name in called) or "none"
        remedy = "Name the one you mean." if called else "Run `regraft train` first."
        raise ModelNotFound(f"Expected one {alias} in {tracking.uri}, found {found}. {remedy}")
    return called[0]


def _what_there_is(tracking: TrackingConfig, name: str, wanted: str) -> str:
    known = list_versions(tracking)
    separator = "/" if wanted.isdecimal() else "@"
    asked = f"Expected the model {name}{separator}{wanted} in {tracking.uri}, found none."
    if known.empty:
        return f"{asked} Nothing is registered there; run `regraft train` first."
    if name not in set(known.name):
        return f"{asked} Known models: {', '.join(sorted(set(known.name)))}."
    ours = known[known.name == name]
    listed = [
        f"{name}/{version}" + (f" ({called})" if called else "")
        for version, called in zip(ours.version, ours.aliases, strict=True)
    ]
    return f"{asked} Known: {', '.join(listed)}."
