"""A challenger becomes a version in the registry, and is read back before success is said."""

import base64
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pandas as pd
from mlflow.entities import LoggedModelOutput
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from regraft import drift
from regraft.core.config import Config, TrackingConfig
from regraft.core.errors import ReloadMismatch
from regraft.data.ingest import read_bytes
from regraft.data.split import Splits
from regraft.drift import Reference, make_reference, side_for
from regraft.evaluation.evaluate import EvaluationReport, abstain_below
from regraft.evaluation.predict import abstaining, answers
from regraft.model.classifier import ImageClassifier
from regraft.model.embed import NO_STORE, choose_compute, logits
from regraft.model.pixels import Photo, photos_of
from regraft.registry.champion import turn
from regraft.registry.package import git_sha, save_model
from regraft.registry.parity import UNUSABLE, difference, opened
from regraft.registry.tracking import Run, connect, end_run, log_config, open_experiment, start_run
from regraft.registry.versions import (
    BUNDLE_PATH,
    CHALLENGER,
    SEAL,
    RegisteredVersion,
    as_registered,
    delete,
    downloaded,
    load_reference,
    set_alias,
    set_tags,
    with_content,
)
from regraft.training.tune import Challenger


def register(
    challenger: Challenger,
    report: EvaluationReport,
    splits: Splits,
    config: Config,
    origin: Mapping[str, str],
) -> RegisteredVersion:
    """The challenger as a version with the alias "challenger"; the same content is registered once.

    The version is read back from the registry and asked about test photos in every form in which it
    can be asked. Only then it gets the tag by which it is found, so an interrupted registration
    leaves nothing that could serve.

    Args:
        challenger: its classifier gets the report's temperature, and what config.predict says
            of when it is unsure.
        splits: the test side gives the photos for the check.
        config: of the whole run; it travels in the card and becomes the run's parameters.
        origin: further tags, such as ZenML's run id and name.

    Raises:
        ConfigError: a class is called as the answer is that a model withholds.
        ReloadMismatch: it does not answer as the trained one does; the version is deleted.
    """
    tracking = config.tracking
    classifier = abstaining(
        challenger.classifier.with_card(
            temperature=report.temperature,
            # It may say more than the configuration: what the model was blended of.
            config=challenger.classifier.card.config | config.flat(),
        ),
        abstain_below(report.predictions, config.predict),
    )
    content_hash = classifier.content_hash
    version = with_content(tracking, content_hash)
    if version is None:
        run = _run_of(challenger, tracking)
        challenger = replace(challenger, classifier=classifier, run_id=run.run_id)
        log_config(run, config)
        tags = {**origin, **_tags(challenger)}
        made = _create(challenger, _reference(challenger, splits, config), tracking, tags)
        _check_reload(made, classifier, photos_of(splits.test), config)
        version = with_content(tracking, content_hash)  # another process may have been faster
        if version:
            delete(tracking, made)
        else:
            set_tags(tracking, made, {SEAL: content_hash})
            version = replace(made, content_hash=content_hash, created=True)
    elif load_reference(tracking, version) is None:
        _add_reference(version, _reference(challenger, splits, config), tracking)
    set_tags(tracking, version, _scores(report))  # of today's test photos, an old version's too
    with turn(tracking):  # two processes at once would both insert the alias
        set_alias(tracking, version, CHALLENGER)
    return version


def _tags(challenger: Challenger) -> dict[str, str]:
    return {
        "dataset_digest": challenger.classifier.card.dataset_digest,
        "mlflow_run_id": challenger.run_id,
        "git_sha": git_sha(),
    }


def _scores(report: EvaluationReport) -> dict[str, str]:
    return {"test_accuracy": f"{report.accuracy.value:.6f}", "n_test": str(report.n)}


def _reference(challenger: Challenger, splits: Splits, config: Config) -> Reference:
    """What drift is measured against; the photos' numbers are in the store from the training."""
    card = challenger.classifier.card
    any_model = config.tracking.model_copy(update={"name": ""})
    parent = with_content(any_model, card.parent) if card.parent else None
    before = load_reference(config.tracking, parent) if parent else None
    learned_before = bool(card.parent) and (before is None or before.side != "train")
    training = choose_compute(config.tune)
    side = side_for(challenger.plan.thaws_backbone, learned_before, training)
    return make_reference(challenger.classifier, splits, config, side)


def _add_reference(
    version: RegisteredVersion, reference: Reference, tracking: TrackingConfig
) -> None:
    """Completes a version that is older than references; what it answers does not change."""
    with tempfile.TemporaryDirectory() as folder:
        reference.save(Path(folder))
        place = get_artifact_repository(version.bundle_url, tracking_uri=tracking.uri)
        place.log_artifacts(folder, drift.FOLDER)


def _create(
    challenger: Challenger,
    reference: Reference,
    tracking: TrackingConfig,
    tags: Mapping[str, str],
) -> RegisteredVersion:
    """A version that is not yet sealed."""
    client = connect(tracking)
    run_id = challenger.run_id
    model = client.create_logged_model(open_experiment(tracking), tracking.name, run_id)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model"
        save_model(challenger.classifier, challenger.manifest, reference, path)
        client.log_model_artifacts(model.model_id, str(path))
    client.finalize_logged_model(model.model_id, "READY")
    client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
    _ensure_name(tracking)
    made = client.create_model_version(
        tracking.name,
        model.artifact_location,  # "models:/ID" would be looked up at the process-wide address
        run_id=run_id,
        tags=dict(tags),
        model_id=model.model_id,
        await_creation_for=None,
    )
    return as_registered(client, made)


def _run_of(challenger: Challenger, tracking: TrackingConfig) -> Run:
    """The run to hang the model on: without one, MLflow looks it up at the process-wide address."""
    if challenger.run_id:
        return Run(challenger.run_id, tracking.uri)
    run = start_run(tracking, "register")
    end_run(run, "FINISHED")
    return run


def _ensure_name(tracking: TrackingConfig) -> None:
    try:
        connect(tracking).create_registered_model(tracking.name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _check_reload(
    version: RegisteredVersion,
    classifier: ImageClassifier,
    photos: list[Photo],
    config: Config,
) -> None:
    """Refuses and deletes a version whose answers, in any form, are not the classifier's."""
    wanted, tracking = config.registry, config.tracking
    photos = photos[:: max(1, len(photos) // wanted.n_parity)][: wanted.n_parity]
    expected = answers(logits(classifier, photos, NO_STORE), classifier.card)
    paths = [photo.path for photo in photos]
    try:
        apart = max(
            difference(expected, given) for given in _served_answers(version, paths, tracking)
        )
        found = f"probabilities differ by up to {apart:.2g}"
    except UNUSABLE as error:
        apart, found = float("inf"), f"it cannot be asked: {error}"
    if apart > wanted.parity_tolerance:
        delete(tracking, version)
        raise ReloadMismatch(
            f"Expected {version.name}/{version.version}, read back from the registry, to answer as "
            f"the trained model on {len(photos)} test photos within {wanted.parity_tolerance:g}, "
            f"but {found}. The version was deleted; look at the disk of the artifact store, then "
            "run again."
        )


def _served_answers(
    version: RegisteredVersion, paths: list[str], tracking: TrackingConfig
) -> Iterator[pd.DataFrame]:
    """The registered model's answers to the photos as bytes and as base64."""
    files = [read_bytes(path) for path in paths]
    model_url = version.bundle_url.removesuffix(BUNDLE_PATH)
    with downloaded(tracking, model_url) as folder, opened(folder) as model:
        for images in (files, [base64.b64encode(file).decode() for file in files]):
            yield model.predict(pd.DataFrame({"image": images}, dtype=object))
