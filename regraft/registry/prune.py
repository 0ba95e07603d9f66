"""Old versions go, and their files with them; what serves, served or may yet serve stays."""

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
from regraft.registry.champion import chain, turn
from regraft.registry.ledger import meant, verified
from regraft.registry.tracking import connect
from regraft.registry.versions import (
    APPROVAL,
    SEAL,
    WAITING,
    RegisteredVersion,
    aliases,
    all_versions,
    names,
    set_tags,
)

KEEP = 5  # guess: a week of nightly trainings
PINNED = "pinned"
LEFT_OVER = 0  # as a version's number: files of a registration that has no version
_MAY_BE_RUNNING = timedelta(days=1)  # guess: no registration takes so long
_PAGE = 100


@dataclass(frozen=True)
class Prunable:
    """A version, whether it goes, and why or why not.

    version: LEFT_OVER for the files of a registration that was interrupted before or after its
        version was there.
    n_bytes: of its files. model_id: of the MLflow model that holds them, "" if none does: such
        files are somebody else's and stay.
    """

    name: str
    version: int
    goes: bool
    why: str
    n_bytes: int
    model_id: str

    def __str__(self) -> str:
        what = f"{self.name}/{self.version}" if self.version else f"{self.name}: files left over"
        said = "goes" if self.goes else "stays"
        return f"{what} {said} ({self.n_bytes / 1e6:.1f} MB): {self.why}"


@dataclass(frozen=True)
class _Files:
    """Where models lie: how many versions, of all models, read each place, and what made it."""

    client: MlflowClient
    users: Counter[str]
    models: dict[str, LoggedModel]

    def n_bytes(self, place: str, folder: str | None = None) -> int:
        """Of all files below the folder, None for the whole place."""
        found = _repository(self.client, place).list_artifacts(folder)
        sizes = [self.n_bytes(place, f.path) if f.is_dir else int(f.file_size or 0) for f in found]
        return sum(sizes)


def prunable(tracking: TrackingConfig, name: str, keep: int, now: datetime) -> tuple[Prunable, ...]:
    """Every version of the model, newest first, then what is left over; nothing is changed.

    What stays: a version with any alias, one that ever was the champion, a pinned one, one that
    waits for approval, one whose registration may still be running, and the newest ones.

    Args:
        keep: how many of the newest checked versions stay in any case, >= 0.
        now: UTC.

    Raises:
        ConfigError: keep is negative.
        ModelNotFound: no such model.
        LedgerBroken: nobody can say which versions were champion.
    """
    if keep < 0:
        raise ConfigError(f"Expected a number of versions to keep, 0 or more, got {keep}.")
    client = connect(tracking)
    versions = _versions(client, meant(tracking, name))
    sealed = [int(version.version) for version in versions if SEAL in version.tags]
    stays = {number: f"among the newest {keep}" for number in sealed[:keep]}
    stays |= _roles(tracking, name)
    files = _Files(
        client, _users(tracking), {m.artifact_location: m for m in _models(client, name)}
    )
    judged = [_judged(version, stays, files, now) for version in versions]
    return (*judged, *_left_over(name, files, now))


def prune(tracking: TrackingConfig, name: str, keep: int, now: datetime) -> tuple[Prunable, ...]:
    """Removes what prunable() says goes, oldest first; returns what went.

    The version goes first, then its files: killed in between, nothing is found that cannot be
    loaded, and the next call removes what is left over. Just before, each version is looked at
    again: it may have become champion meanwhile.

    Args:
        keep, now: as prunable().

    Raises:
        As prunable().
        RegistryError: files cannot be removed.
    """
    client = connect(tracking)
    gone = []
    for one in reversed([one for one in prunable(tracking, name, keep, now) if one.goes]):
        with turn(tracking):  # nobody is crowned between the last look and the deletion
            if one.version and _may_not_go(client, tracking, one, now):
                continue
            if one.version:
                client.delete_model_version(name, str(one.version))
        _remove_files(client, one)
        gone.append(one)
    return tuple(gone)


def pin(tracking: TrackingConfig, version: RegisteredVersion) -> None:
    """The version stays, whatever is pruned."""
    set_tags(tracking, version, {PINNED: "1"})


def unpin(tracking: TrackingConfig, version: RegisteredVersion) -> None:
    """The version may go again; one that is not pinned is left alone."""
    connect(tracking).delete_model_version_tag(version.name, str(version.version), PINNED)


def _versions(client: MlflowClient, name: str) -> list[ModelVersion]:
    """Newest first."""
    found = all_versions(client, name)
    return sorted(found, key=lambda version: int(version.version), reverse=True)


def _roles(tracking: TrackingConfig, name: str) -> dict[int, str]:
    """{version: why it may not go} of all that serve, served or could be gone back to."""
    record = verified(tracking, name).entries
    served = {number for entry in record for number in (entry.before, entry.after) if number}
    called: dict[int, list[str]] = {}
    for alias, number in sorted(aliases(tracking, name).items()):
        called.setdefault(number, []).append(alias)
    once = {number: "was the champion" for number in served | set(chain(record))}
    return once | {number: f"is the {', '.join(names)}" for number, names in called.items()}


def _users(tracking: TrackingConfig) -> Counter[str]:
    """How many versions, of all models, read their files from each place: a copy has no own."""
    client = connect(tracking)
    return Counter(
        client.get_model_version_download_uri(name, version.version)
        for name in names(tracking)
        for version in all_versions(client, name)
    )


def _judged(version: ModelVersion, stays: dict[int, str], files: _Files, now: datetime) -> Prunable:
    why = stays.get(int(version.version)) or _own_reason(version, now)
    place = files.client.get_model_version_download_uri(version.name, version.version)
    ours = files.models.get(place)
    if not why and ours and files.users[place] > 1:
        why = "another version serves from the same files"
    return Prunable(
        name=version.name,
        version=int(version.version),
        goes=not why,
        why=why or ("not among the newest" if SEAL in version.tags else "was never finished"),
        n_bytes=files.n_bytes(place) if ours else 0,
        model_id=ours.model_id if ours else "",
    )


def _own_reason(version: ModelVersion, now: datetime) -> str:
    """Why the version stays by what it says of itself, "" if it says nothing."""
    if version.tags.get(PINNED) == "1":
        return "pinned"
    if version.tags.get(APPROVAL) == WAITING:
        return "waits for approval"
    if SEAL not in version.tags and _age(version.creation_timestamp, now) < _MAY_BE_RUNNING:
        return "its registration may be running"
    return ""


def _may_not_go(
    client: MlflowClient, tracking: TrackingConfig, one: Prunable, now: datetime
) -> bool:
    version = client.get_model_version(one.name, str(one.version))
    return bool(_own_reason(version, now)) or one.version in _roles(tracking, one.name)


def _left_over(name: str, files: _Files, now: datetime) -> Iterator[Prunable]:
    """Models that register() began in the experiment, and that no version reads."""
    for place, model in files.models.items():
        is_old = _age(model.creation_timestamp, now) >= _MAY_BE_RUNNING
        if is_old and not files.users[place]:
            n_bytes = files.n_bytes(place)
            yield Prunable(name, LEFT_OVER, True, "no version has them", n_bytes, model.model_id)


def _models(client: MlflowClient, name: str) -> Iterator[LoggedModel]:
    """MLflow's models that register() made for this name; a version knows only their place."""
    experiment = client.get_experiment_by_name(name)
    token, more = None, experiment is not None
    while more:
        page = client.search_logged_models(
            [experiment.experiment_id], max_results=_PAGE, page_token=token
        )
        yield from (model for model in page if model.name == name)
        token = page.token
        more = bool(token)


def _remove_files(client: MlflowClient, one: Prunable) -> None:
    """The files, then MLflow's record of them: by it the next call finds files that are left."""
    if not one.model_id:
        return
    place = client.get_logged_model(one.model_id).artifact_location
    try:
        _repository(client, place).delete_artifacts()
    except (OSError, MlflowException, NotImplementedError) as error:
        raise RegistryError(
            f"The files of {one.name}/{one.version} in {place} cannot be removed ({error}). Its "
            "version is gone already; see to the folder, then prune again: it finds what is left."
        ) from None
    client.delete_logged_model(one.model_id)


def _repository(client: MlflowClient, place: str) -> ArtifactRepository:
    return get_artifact_repository(place, client.tracking_uri, client.tracking_uri)


def _age(timestamp_ms: int, now: datetime) -> timedelta:
    return now - datetime.fromtimestamp(timestamp_ms / 1000, UTC)
