"""Doorway of the stage mirror: ZenML's Model Control Plane shows what MLflow's aliases say.

MLflow is asked and ZenML is written to, never the other way round (docs/decisions/001). A model of
the registry is a ZenML model of the same name, and its version 3 a model version "v3": ZenML keeps
bare numbers for itself. The champion is in "production", a challenger beside it in "staging", every
other version is "archived". A version that is gone from the registry goes here too, for a mirror
shows what there is; what once served is in the ledger.

ZenML's Client is used inside the functions only: `import steps` has to work where no store exists.
"""

import logging
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from zenml import step

from regraft import registry
from regraft.core.config import TrackingConfig
from regraft.core.errors import ModelNotFound
from regraft.registry import CHALLENGER, CHAMPION

if TYPE_CHECKING:
    from zenml.models import ModelVersionResponse

MIRRORED = "regraft"  # the tag of a ZenML model that is a mirror
# In a version's metadata: the address of the registry. Versions without it are somebody else's.
REGISTRY = "registry"
ACCURACY = "test_accuracy"
_NAME = re.compile(r"v\d+")
_PAGE_SIZE = 1000

logger = logging.getLogger("regraft.mirror")


@dataclass(frozen=True)
class Image:
    """A version as the mirror should show it.

    stage: production, staging or archived. accuracy: on the test photos, NaN if unknown.
    """

    name: str
    stage: str
    accuracy: float


@step(enable_cache=False)
def mirror(config: TrackingConfig) -> Annotated[list[str], "mended"]:
    """ZenML's versions and stages of the model, made to follow MLflow's; what was changed."""
    mended = list(repair(config, config.name))
    logger.info("mirror: %s", "; ".join(mended) or "nothing to change")
    return mended


def differences(tracking: TrackingConfig) -> tuple[str, ...]:
    """What the mirror does not show as the registry has it, a sentence each; changes nothing."""
    return tuple(
        sentence
        for name in _names(tracking)
        for sentence in _differences(tracking, name, _shown(tracking, name))
    )


def repair(tracking: TrackingConfig, name: str = "") -> tuple[str, ...]:
    """Makes the mirror show what the registry has; the sentences of differences() that it mended.

    Args:
        name: of the model; "" is all of them.
    """
    return tuple(
        sentence
        for one in ([name] if name else _names(tracking))
        for sentence in _repair(tracking, one)
    )


def _differences(
    tracking: TrackingConfig, name: str, shown: "dict[str, ModelVersionResponse]"
) -> Iterator[str]:
    wanted = _wanted(tracking, name, shown)
    for image in wanted.values():
        yield from _difference(f"{name} {image.name}", image, shown.get(image.name))
    for extra in _extra(shown, wanted):
        yield f"{name} {extra} is no longer in the registry"


def _difference(told: str, image: Image, version: "ModelVersionResponse | None") -> Iterator[str]:
    if version is None:
        yield f"{told} is missing"
        return
    if version.stage != image.stage:
        yield f"{told} is in the stage {version.stage or 'none'}, not {image.stage}"
    if not _says(version, image):
        yield f"{told} tells other facts than the registry"


def _extra(shown: "dict[str, ModelVersionResponse]", wanted: dict[str, Image]) -> list[str]:
    """Versions to be taken away; one that does not say that it is a mirror is left alone."""
    return sorted(
        name
        for name, version in shown.items()
        if name not in wanted and REGISTRY in version.run_metadata
    )


def _repair(tracking: TrackingConfig, name: str) -> Iterator[str]:
    from zenml.client import Client

    shown = _shown(tracking, name)
    found = list(_differences(tracking, name, shown))
    if not found:
        return
    wanted = _wanted(tracking, name, shown)
    for extra in _extra(shown, wanted):
        Client().delete_model_version(shown[extra].id)
    # Who leaves production or staging goes first: the stage holds one version.
    for image in sorted(wanted.values(), key=lambda image: image.stage):
        _show(tracking, name, image, shown.get(image.name))
    yield from found


def _show(
    tracking: TrackingConfig, name: str, image: Image, version: "ModelVersionResponse | None"
) -> None:
    """Makes the version, its metadata and its stage as they should be."""
    from zenml.client import Client
    from zenml.enums import MetadataResourceTypes
    from zenml.models import RunMetadataResource

    version = version or _create(name, image)
    if not _says(version, image):
        resource = RunMetadataResource(id=version.id, type=MetadataResourceTypes.MODEL_VERSION)
        Client().create_run_metadata(_metadata(tracking, name, image), [resource])
    if version.stage != image.stage:
        version.set_stage(image.stage, force=True)


def _create(name: str, image: Image) -> "ModelVersionResponse":
    """Two processes may do it at once."""
    from zenml.client import Client
    from zenml.exceptions import EntityExistsError

    client = Client()
    try:
        client.create_model(name, tags=[MIRRORED], save_models_to_registry=False)
    except EntityExistsError:
        client.update_model(name, add_tags=[MIRRORED])
    try:
        return client.create_model_version(name, image.name)
    except EntityExistsError:
        return client.get_model_version(name, image.name)


def _metadata(tracking: TrackingConfig, name: str, image: Image) -> dict[str, str | float]:
    version = registry.find(tracking, name, image.name.removeprefix("v"))
    known = {} if math.isnan(image.accuracy) else {ACCURACY: image.accuracy}
    return {
        REGISTRY: tracking.uri,
        "content_hash": version.content_hash,
        "mlflow_run_id": version.run_id,
        "bundle_url": version.bundle_url,
        **known,
    }


def _wanted(
    tracking: TrackingConfig, name: str, shown: "dict[str, ModelVersionResponse]"
) -> dict[str, Image]:
    """How every version of the registry has to be shown; one never checked to its end is not."""
    versions = registry.list_versions(tracking)
    ours = versions[versions.name == name]
    images = {}
    for number, called, accuracy in zip(
        ours.version, ours.aliases, ours.test_accuracy, strict=True
    ):
        if f"v{number}" in shown or _is_sealed(tracking, name, number):
            images[f"v{number}"] = Image(f"v{number}", _stage(called.split(", ")), float(accuracy))
    return images


def _stage(called: list[str]) -> str:
    if CHAMPION in called:
        return "production"
    return "staging" if CHALLENGER in called else "archived"


def _is_sealed(tracking: TrackingConfig, name: str, number: int) -> bool:
    try:
        registry.find(tracking, name, str(number))
    except ModelNotFound:
        return False
    return True


def _says(version: "ModelVersionResponse", image: Image) -> bool:
    said = version.run_metadata
    same = math.isnan(image.accuracy) or said.get(ACCURACY) == image.accuracy
    return REGISTRY in said and same


def _shown(tracking: TrackingConfig, name: str) -> "dict[str, ModelVersionResponse]":
    """The model's versions that mirror one of this registry, by their name."""
    from zenml.client import Client
    from zenml.utils.pagination_utils import depaginate

    models = Client().list_models(name=name, size=1).items
    if not models:
        return {}
    found = depaginate(
        Client().list_model_versions, model=models[0].id, size=_PAGE_SIZE, hydrate=True
    )
    return {
        version.name: version
        for version in found
        if _NAME.fullmatch(version.name)
        and version.run_metadata.get(REGISTRY, tracking.uri) == tracking.uri
    }


def _names(tracking: TrackingConfig) -> list[str]:
    """Every model of the registry, and those that only the mirror shows."""
    from zenml.client import Client
    from zenml.utils.pagination_utils import depaginate

    mirrored = depaginate(Client().list_models, tags=MIRRORED, size=_PAGE_SIZE)
    return sorted({*registry.names(tracking), *(model.name for model in mirrored)})
