"""The mirror: ZenML's Model Control Plane shows what MLflow's aliases say.

MLflow is read and ZenML is written, never the reverse (docs/decisions/001). A model of the registry
is a ZenML model of the same name, and its version 3 a model version "v3": ZenML reserves bare
numbers. The champion has the stage "production", a challenger beside it "staging", every other
version "archived". A version that was deleted from the registry is deleted here too; what served
before is in the ledger.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from regraft import registry
from regraft.core.config import TrackingConfig
from regraft.core.errors import ModelNotFound
from regraft.registry import CHALLENGER, CHAMPION

if TYPE_CHECKING:
    from zenml.models import ModelVersionResponse

MIRRORED = "regraft"  # the tag of a ZenML model that mirrors a registered model
# Key in a version's metadata: the address of the registry. Versions without it are not Regraft's.
REGISTRY = "registry"
ACCURACY = "test_accuracy"
_NAME = re.compile(r"v\d+")
_PAGE_SIZE = 1000


@dataclass(frozen=True)
class MirroredVersion:
    """A version as the mirror should show it.

    stage: production, staging or archived. accuracy: on the test photos, 0 to 1; NaN if unknown.
    """

    name: str
    stage: str
    accuracy: float


def differences(tracking: TrackingConfig) -> tuple[str, ...]:
    """Return how the mirror differs from the registry, a sentence each; changes nothing."""
    return tuple(
        sentence
        for name in _model_names(tracking)
        for sentence in _differences(tracking, name, _shown_versions(tracking, name))
    )


def repair(tracking: TrackingConfig, name: str = "") -> tuple[str, ...]:
    """Make the mirror show what the registry has; return what was changed, a sentence each.

    Args:
        name: of the model; "" means all models.
    """
    names = [name] if name else _model_names(tracking)
    return tuple(sentence for model in names for sentence in _repair(tracking, model))


def _differences(
    tracking: TrackingConfig, name: str, shown: "dict[str, ModelVersionResponse]"
) -> Iterator[str]:
    expected = _expected_versions(tracking, name, shown)
    for version in expected.values():
        yield from _difference(f"{name} {version.name}", version, shown.get(version.name))
    for extra in _extra_versions(shown, expected):
        yield f"{name} {extra} is no longer in the registry"


def _difference(
    label: str, expected: MirroredVersion, shown: "ModelVersionResponse | None"
) -> Iterator[str]:
    if shown is None:
        yield f"{label} is missing"
        return
    if shown.stage != expected.stage:
        yield f"{label} is in the stage {shown.stage or 'none'}, not {expected.stage}"
    if not _has_metadata(shown, expected):
        yield f"{label} has other metadata than the registry"


def _extra_versions(
    shown: "dict[str, ModelVersionResponse]", expected: dict[str, MirroredVersion]
) -> list[str]:
    """Return versions to delete; a version without the metadata of a mirror stays."""
    return sorted(
        name
        for name, version in shown.items()
        if name not in expected and REGISTRY in version.run_metadata
    )


def _repair(tracking: TrackingConfig, name: str) -> Iterator[str]:
    from zenml.client import Client

    shown = _shown_versions(tracking, name)
    expected = _expected_versions(tracking, name, shown)
    for extra in _extra_versions(shown, expected):
        Client().delete_model_version(shown[extra].id)
        yield f"{name} {extra} deleted, as in the registry"
    # A version that leaves production or staging comes first: a stage holds one version.
    for version in sorted(expected.values(), key=lambda version: version.stage):
        yield from _write(tracking, name, version, shown.get(version.name))


def _write(
    tracking: TrackingConfig,
    name: str,
    expected: MirroredVersion,
    shown: "ModelVersionResponse | None",
) -> Iterator[str]:
    """Create the version if it is missing, set its metadata and its stage; yield what changed."""
    from zenml.client import Client
    from zenml.enums import MetadataResourceTypes
    from zenml.models import RunMetadataResource

    label = f"{name} {expected.name}"
    version = shown or _create(name, expected)
    if shown is None:
        yield f"{label} added, stage {expected.stage}"
    if not _has_metadata(version, expected):
        resource = RunMetadataResource(id=version.id, type=MetadataResourceTypes.MODEL_VERSION)
        Client().create_run_metadata(_metadata(tracking, name, expected), [resource])
        if shown:
            yield f"{label} has its metadata of the registry again"
    if version.stage != expected.stage:
        version.set_stage(expected.stage, force=True)
        if shown:
            yield f"{label} moved from stage {shown.stage or 'none'} to {expected.stage}"


def _create(name: str, expected: MirroredVersion) -> "ModelVersionResponse":
    """Return the new version, or the one that another process has just created."""
    from zenml.client import Client
    from zenml.exceptions import EntityExistsError

    client = Client()
    try:
        client.create_model(name, tags=[MIRRORED], save_models_to_registry=False)
    except EntityExistsError:
        client.update_model(name, add_tags=[MIRRORED])
    try:
        return client.create_model_version(name, expected.name)
    except EntityExistsError:
        return client.get_model_version(name, expected.name)


def _metadata(
    tracking: TrackingConfig, name: str, expected: MirroredVersion
) -> dict[str, str | float]:
    version = registry.find(tracking, name, expected.name.removeprefix("v"))
    known = {} if math.isnan(expected.accuracy) else {ACCURACY: expected.accuracy}
    return {
        REGISTRY: tracking.uri,
        "content_hash": version.content_hash,
        "mlflow_run_id": version.run_id,
        "bundle_url": version.bundle_url,
        **known,
    }


def _expected_versions(
    tracking: TrackingConfig, name: str, shown: "dict[str, ModelVersionResponse]"
) -> dict[str, MirroredVersion]:
    """Return the registry's versions by name, without those whose registration never finished."""
    versions = registry.list_versions(tracking)
    rows = versions[versions.name == name]
    expected = {}
    for number, aliases, accuracy in zip(
        rows.version, rows.aliases, rows.test_accuracy, strict=True
    ):
        label = f"v{number}"
        if label in shown or _is_complete(tracking, name, number):
            stage = _stage(aliases.split(", "))
            expected[label] = MirroredVersion(label, stage, float(accuracy))
    return expected


def _stage(aliases: list[str]) -> str:
    if CHAMPION in aliases:
        return "production"
    return "staging" if CHALLENGER in aliases else "archived"


def _is_complete(tracking: TrackingConfig, name: str, number: int) -> bool:
    try:
        registry.find(tracking, name, str(number))
    except ModelNotFound:
        return False
    return True


def _has_metadata(version: "ModelVersionResponse", expected: MirroredVersion) -> bool:
    metadata = version.run_metadata
    is_same = math.isnan(expected.accuracy) or metadata.get(ACCURACY) == expected.accuracy
    return REGISTRY in metadata and is_same


def _shown_versions(tracking: TrackingConfig, name: str) -> "dict[str, ModelVersionResponse]":
    """Return the model's ZenML versions that mirror this registry, by name."""
    from zenml.client import Client
    from zenml.utils.pagination_utils import depaginate

    models = Client().list_models(name=name, size=1).items
    if not models:
        return {}
    versions = depaginate(
        Client().list_model_versions, model=models[0].id, size=_PAGE_SIZE, hydrate=True
    )
    return {
        version.name: version
        for version in versions
        if _NAME.fullmatch(version.name)
        and version.run_metadata.get(REGISTRY, tracking.uri) == tracking.uri
    }


def _model_names(tracking: TrackingConfig) -> list[str]:
    """Return every model of the registry, and those that only the mirror has."""
    from zenml.client import Client
    from zenml.utils.pagination_utils import depaginate

    mirrored = depaginate(Client().list_models, tags=MIRRORED, size=_PAGE_SIZE)
    return sorted({*registry.list_models(tracking), *(model.name for model in mirrored)})
