"""Delete old versions and their files, except versions that serve, served or may still serve."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from mlflow import MlflowClient
from mlflow.entities import LoggedModel
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repo import ArtifactRepository
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from regraft.core.config import TrackingConfig
from regraft.core.errors import ConfigError, RegistryError
from regraft.registry.champion import registry_lock
from regraft.registry.champion_history import promotion_stack
from regraft.registry.ledger import load_verified_ledger, resolve_model_name
from regraft.registry.tracking import connect
from regraft.registry.versions import (
    APPROVAL,
    CONTENT_HASH,
    PENDING,
    RegisteredVersion,
    all_versions,
    get_aliases,
    list_models,
    set_tags,
)

KEEP = 5  # guess: a week of nightly trainings
PINNED = "pinned"
LEFT_OVER = 0  # in place of a version number: files that belong to no version
_MAX_REGISTRATION_TIME = timedelta(days=1)  # guess: no registration takes longer
_PAGE = 100


@dataclass(frozen=True)
class PruneCandidate:
    """A version, whether it will be deleted, and the reason for or against.

    version: LEFT_OVER for files without a version: the registration was interrupted, or a prune
        was interrupted after it deleted the version.
    n_bytes: size of its files. model_id: of the MLflow model that owns the files, "" if no model
        does; such files belong to somebody else and are not deleted.
    """

    name: str
    version: int
    should_delete: bool
    reason: str
    n_bytes: int
    model_id: str

    def __str__(self) -> str:
        label = f"{self.name}/{self.version}" if self.version else f"{self.name}, leftover files"
        action = "delete" if self.should_delete else "keep"
        return f"{label}: {action} ({self.n_bytes / 1e6:.1f} MB), {self.reason}"


@dataclass(frozen=True)
class _ModelFiles:
    """The locations of model files in the artifact store.

    users: number of versions, of all models, that read each location.
    models: location to the MLflow model that wrote it.
    """

    client: MlflowClient
    users: Counter[str]
    models: dict[str, LoggedModel]

    def n_bytes(self, location: str, folder: str | None = None) -> int:
        """Return the size of all files below the folder, None for the whole location."""
        files = _repository(self.client, location).list_artifacts(folder)
        return sum(
            self.n_bytes(location, file.path) if file.is_dir else int(file.file_size or 0)
            for file in files
        )


def plan_prune(
    tracking: TrackingConfig, name: str, n_keep: int, now: datetime
) -> tuple[PruneCandidate, ...]:
    """Return every version of the model, newest first, then leftover files; delete nothing.

    These versions are kept: every version with an alias, every version that was ever champion,
    pinned versions, versions that wait for approval, versions whose registration may still run, and
    the newest versions.

    Args:
        n_keep: number of the newest verified versions to keep in any case, >= 0.
        now: UTC.

    Raises:
        ConfigError: n_keep is negative.
        ModelNotFound: there is no such model.
        LedgerBroken: the ledger fails its verification, so former champions are unknown.
    """
    if n_keep < 0:
        raise ConfigError(f"Expected the number of versions to keep, 0 or more, got {n_keep}.")
    client = connect(tracking)
    versions = _versions(client, resolve_model_name(tracking, name))
    verified = [int(version.version) for version in versions if CONTENT_HASH in version.tags]
    kept_reasons = {number: f"among the newest {n_keep}" for number in verified[:n_keep]}
    kept_reasons |= _roles(tracking, name)
    files = _ModelFiles(
        client, _users(tracking), {m.artifact_location: m for m in _models(client, name)}
    )
    candidates = [_candidate(version, kept_reasons, files, now) for version in versions]
    return (*candidates, *_left_over(name, files, now))


def prune(
    tracking: TrackingConfig, name: str, n_keep: int, now: datetime
) -> tuple[PruneCandidate, ...]:
    """Delete what plan_prune() marks for deletion, oldest first, and return what was deleted.

    The version is deleted before its files. If the process is killed in between, no version is left
    without files, and the next call deletes the leftover files. Each version is checked again just
    before its deletion, because it may have become champion meanwhile.

    Args:
        n_keep, now: as plan_prune().

    Raises:
        As plan_prune().
        RegistryError: files cannot be deleted.
    """
    client = connect(tracking)
    deleted = []
    for candidate in reversed(plan_prune(tracking, name, n_keep, now)):
        if not candidate.should_delete:
            continue
        with registry_lock(tracking):  # no promotion between the last check and the deletion
            if candidate.version and _must_stay(client, tracking, candidate, now):
                continue
            if candidate.version:
                client.delete_model_version(name, str(candidate.version))
        _delete_files(client, candidate)
        deleted.append(candidate)
    return tuple(deleted)


def pin(tracking: TrackingConfig, version: RegisteredVersion) -> None:
    """Exclude the version from pruning."""
    set_tags(tracking, version, {PINNED: "1"})


def unpin(tracking: TrackingConfig, version: RegisteredVersion) -> None:
    """Include the version in pruning again; do nothing if it is not pinned."""
    connect(tracking).delete_model_version_tag(version.name, str(version.version), PINNED)


def _versions(client: MlflowClient, name: str) -> list[ModelVersion]:
    """Return the versions, newest first."""
    versions = all_versions(client, name)
    return sorted(versions, key=lambda version: int(version.version), reverse=True)


def _roles(tracking: TrackingConfig, name: str) -> dict[int, str]:
    """Return {version: reason to keep it} of present and former champions and all aliases."""
    entries = load_verified_ledger(tracking, name).entries
    champions = {number for entry in entries for number in (entry.before, entry.after) if number}
    champions |= set(promotion_stack(entries))
    alias_names: dict[int, list[str]] = {}
    for alias, number in sorted(get_aliases(tracking, name).items()):
        alias_names.setdefault(number, []).append(alias)
    former = dict.fromkeys(champions, "was the champion")
    return former | {number: f"is the {', '.join(group)}" for number, group in alias_names.items()}


def _users(tracking: TrackingConfig) -> Counter[str]:
    """Return how many versions, of all models, read each location.

    A copied version reads the files of its original.
    """
    client = connect(tracking)
    return Counter(
        client.get_model_version_download_uri(name, version.version)
        for name in list_models(tracking)
        for version in all_versions(client, name)
    )


def _candidate(
    version: ModelVersion, kept_reasons: dict[int, str], files: _ModelFiles, now: datetime
) -> PruneCandidate:
    reason = kept_reasons.get(int(version.version)) or _own_reason(version, now)
    location = files.client.get_model_version_download_uri(version.name, version.version)
    owner = files.models.get(location)
    if not reason and owner and files.users[location] > 1:
        reason = "another version serves from the same files"
    should_delete = not reason
    if should_delete:
        is_verified = CONTENT_HASH in version.tags
        reason = "not among the newest" if is_verified else "its registration failed"
    return PruneCandidate(
        name=version.name,
        version=int(version.version),
        should_delete=should_delete,
        reason=reason,
        n_bytes=files.n_bytes(location) if owner else 0,
        model_id=owner.model_id if owner else "",
    )


def _own_reason(version: ModelVersion, now: datetime) -> str:
    """Return the reason to keep the version that its tags give, "" if there is none."""
    if version.tags.get(PINNED) == "1":
        return "pinned"
    if version.tags.get(APPROVAL) == PENDING:
        return "waits for approval"
    is_recent = _age(version.creation_timestamp, now) < _MAX_REGISTRATION_TIME
    if is_recent and CONTENT_HASH not in version.tags:
        return "its registration may be running"
    return ""


def _must_stay(
    client: MlflowClient, tracking: TrackingConfig, candidate: PruneCandidate, now: datetime
) -> bool:
    version = client.get_model_version(candidate.name, str(candidate.version))
    has_role = candidate.version in _roles(tracking, candidate.name)
    return bool(_own_reason(version, now)) or has_role


def _left_over(name: str, files: _ModelFiles, now: datetime) -> Iterator[PruneCandidate]:
    """Yield the models that register() created in the experiment and that no version reads."""
    for location, model in files.models.items():
        is_old = _age(model.creation_timestamp, now) >= _MAX_REGISTRATION_TIME
        if is_old and not files.users[location]:
            yield PruneCandidate(
                name=name,
                version=LEFT_OVER,
                should_delete=True,
                reason="no version uses them",
                n_bytes=files.n_bytes(location),
                model_id=model.model_id,
            )


def _models(client: MlflowClient, name: str) -> Iterator[LoggedModel]:
    """Yield MLflow's models that register() created for this name.

    The models are searched because a version stores only the location of its model.
    """
    experiment = client.get_experiment_by_name(name)
    token, more = None, experiment is not None
    while more:
        page = client.search_logged_models(
            [experiment.experiment_id], max_results=_PAGE, page_token=token
        )
        yield from (model for model in page if model.name == name)
        token = page.token
        more = bool(token)


def _delete_files(client: MlflowClient, candidate: PruneCandidate) -> None:
    """Delete the files, then MLflow's model; leftover files are found through that model."""
    if not candidate.model_id:
        return
    location = client.get_logged_model(candidate.model_id).artifact_location
    try:
        _repository(client, location).delete_artifacts()
    except (OSError, MlflowException, NotImplementedError) as error:
        raise RegistryError(
            f"Expected to delete the files of {candidate.name}/{candidate.version} in {location}, "
            f"but: {error}. The version itself was deleted. Check the folder, then prune again to "
            "delete the leftover files."
        ) from None
    client.delete_logged_model(candidate.model_id)


def _repository(client: MlflowClient, location: str) -> ArtifactRepository:
    return get_artifact_repository(location, client.tracking_uri, client.tracking_uri)


def _age(timestamp_ms: int, now: datetime) -> timedelta:
    return now - datetime.fromtimestamp(timestamp_ms / 1000, UTC)
