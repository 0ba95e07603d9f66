"""Register a challenger as a version, and verify the stored version before reporting success."""

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
from regraft.drift import Reference, choose_reference_split, make_reference
from regraft.evaluation.evaluate import EvaluationReport, abstain_below
from regraft.evaluation.predict import prediction_table, with_abstention
from regraft.evaluation.report import render
from regraft.evaluation.report.numbers import bounds, percent
from regraft.model.classifier import ImageClassifier
from regraft.model.embed import NO_STORE, choose_compute, logits
from regraft.model.pixels import Photo, photos_of
from regraft.registry.champion import registry_lock
from regraft.registry.package import git_sha, save_model
from regraft.registry.parity import MODEL_ERRORS, max_difference, open_model
from regraft.registry.revision import card_settings, revised_model
from regraft.registry.tracking import (
    Run,
    connect,
    end_run,
    has_other_settings,
    log_config,
    log_report,
    log_training,
    open_experiment,
    start_run,
)
from regraft.registry.versions import (
    BUNDLE_PATH,
    CHALLENGER,
    CONTENT_HASH,
    RegisteredVersion,
    delete,
    describe_version,
    downloaded,
    find_by_content,
    load_reference,
    set_alias,
    set_tags,
    to_registered_version,
)
from regraft.training.tune import Challenger


def register(
    challenger: Challenger,
    report: EvaluationReport,
    splits: Splits,
    config: Config,
    origin: Mapping[str, str],
) -> RegisteredVersion:
    """Register the challenger, give it the alias "challenger" and return its version.

    The same content is registered only once. The stored version is loaded and its predictions are
    compared on test photos, for every input format. Only then the version gets the tag that
    makes it visible, so an interrupted registration leaves no version that could serve.

    A version has a tracking run of its own: that of its training, unless another version was
    registered from it (a cached training, registered under other settings).

    Args:
        challenger: its classifier gets the temperature of the report, and the abstention threshold
            that config.predict implies.
        splits: the check uses photos of the test split.
        config: of the whole run; stored in the card, and logged as parameters of the run.
        origin: further tags, for example ZenML's run id and name.

    Raises:
        ConfigError: a class has the name of the label for withheld answers ("unsure").
        ReloadMismatch: the stored version predicts other values; the version is deleted.
    """
    tracking = config.tracking
    classifier = with_abstention(
        challenger.classifier.with_card(
            temperature=report.temperature,
            config=card_settings(challenger.classifier.card, config),
        ),
        abstain_below(report.predictions, config.predict),
    )
    content_hash = classifier.content_hash
    version = find_by_content(tracking, content_hash)
    if version is None:
        run = _own_run(challenger, config)
        challenger = replace(challenger, classifier=classifier, run_id=run.run_id)
        log_config(run, config)
        tags = {**origin, **_tags(challenger)}
        created = _create(challenger, _reference(challenger, splits, config), tracking, tags)
        _check_reload(created, classifier, photos_of(splits.test), config)
        with registry_lock(tracking):  # of two processes with the same content, one is faster
            version = find_by_content(tracking, content_hash)
            if version is None:
                set_tags(tracking, created, {CONTENT_HASH: content_hash})
        if version:
            delete(tracking, created)
        else:
            version = replace(created, content_hash=content_hash, created=True)
    elif load_reference(tracking, version) is None:
        _add_reference(version, _reference(challenger, splits, config), tracking)
    # The results on today's test photos, for an old version too.
    set_tags(tracking, version, _scores(report))
    log_report(Run(version.run_id, tracking.uri), report, render(report, tracking.name))
    describe_version(tracking, version, _description(classifier, report))
    with registry_lock(tracking):  # two processes at once would both insert the alias
        set_alias(tracking, version, CHALLENGER)
    return version


def _tags(challenger: Challenger) -> dict[str, str]:
    return {
        "dataset_digest": challenger.classifier.card.dataset_digest,
        "mlflow_run_id": challenger.run_id,
        "git_sha": git_sha(),
    }


def _description(classifier: ImageClassifier, report: EvaluationReport) -> str:
    return (
        f"One of {len(report.classes)} classes for each photo: {', '.join(report.classes)}. "
        f"Trained on {report.class_counts.train.sum()} photos from "
        f"{classifier.card.backbone.source}. Test accuracy {percent(report.accuracy.value)} "
        f"({bounds(report.accuracy.low, report.accuracy.high)}) on {report.n} photos."
    )


def _scores(report: EvaluationReport) -> dict[str, str]:
    return {"test_accuracy": f"{report.accuracy.value:.6f}", "n_test": str(report.n)}


def _reference(challenger: Challenger, splits: Splits, config: Config) -> Reference:
    """Return the drift reference; the embeddings of the photos are in the store since training."""
    card = challenger.classifier.card
    if content_hash := revised_model(card):
        revised = find_by_content(config.tracking, content_hash)
        reference = load_reference(config.tracking, revised) if revised else None
        if reference:
            return reference.with_names(dict(card.contract.renamed))
    any_model = config.tracking.model_copy(update={"name": ""})
    parent = find_by_content(any_model, card.parent) if card.parent else None
    before = load_reference(config.tracking, parent) if parent else None
    learned_before = bool(card.parent) and (before is None or before.split != "train")
    training = choose_compute(config.tune)
    split = choose_reference_split(challenger.plan.thaws_backbone, learned_before, training)
    return make_reference(challenger.classifier, splits, config, split)


def _add_reference(
    version: RegisteredVersion, reference: Reference, tracking: TrackingConfig
) -> None:
    """Add the drift reference to a version without one; its predictions do not change."""
    with tempfile.TemporaryDirectory() as folder:
        reference.save(Path(folder))
        repository = get_artifact_repository(version.bundle_url, tracking_uri=tracking.uri)
        repository.log_artifacts(folder, drift.FOLDER)


def _create(
    challenger: Challenger,
    reference: Reference,
    tracking: TrackingConfig,
    tags: Mapping[str, str],
) -> RegisteredVersion:
    """Create a version without the tag that makes it visible."""
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
    created = client.create_model_version(
        tracking.name,
        model.artifact_location,  # MLflow would resolve "models:/ID" at the process-wide URI
        run_id=run_id,
        tags=dict(tags),
        model_id=model.model_id,
        await_creation_for=None,
    )
    return to_registered_version(client, created)


def _own_run(challenger: Challenger, config: Config) -> Run:
    """Return the run of the training, or a new run if that one belongs to another version.

    MLflow refuses another value of a parameter in a run, and a second report would replace the
    first. Without a run, MLflow would look the model up at the process-wide URI.
    """
    tracking = config.tracking
    training = Run(challenger.run_id, tracking.uri)
    if training.run_id and not (_has_version(training) or has_other_settings(training, config)):
        return training
    run = start_run(tracking, "register")
    if training.run_id:
        log_training(run, challenger)
    end_run(run, "FINISHED")
    return run


def _has_version(run: Run) -> bool:
    """Return whether a version of any model was registered from the run."""
    return bool(run.client.search_model_versions(f"run_id='{run.run_id}'", max_results=1))


def _ensure_name(tracking: TrackingConfig) -> None:
    try:
        description = (
            "An image classifier. The version with the alias champion serves; the tags of a "
            "version name the last verdict and its reason."
        )
        connect(tracking).create_registered_model(tracking.name, description=description)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _check_reload(
    version: RegisteredVersion,
    classifier: ImageClassifier,
    photos: list[Photo],
    config: Config,
) -> None:
    """Delete the version and raise if its predictions differ from those of the classifier."""
    limits, tracking = config.registry, config.tracking
    photos = photos[:: max(1, len(photos) // limits.n_parity)][: limits.n_parity]
    expected = prediction_table(logits(classifier, photos, NO_STORE), classifier.card)
    paths = [photo.path for photo in photos]
    try:
        distance = max(
            max_difference(expected, table) for table in _served_answers(version, paths, tracking)
        )
        result = f"probabilities differ by up to {distance:.2g}"
    except MODEL_ERRORS as error:
        distance, result = float("inf"), f"it cannot be used: {error}"
    if distance > limits.parity_tolerance:
        delete(tracking, version)
        raise ReloadMismatch(
            f"Expected {version.name}/{version.version}, loaded from the registry, to predict the "
            f"same as the trained model on {len(photos)} test photos, within "
            f"{limits.parity_tolerance:g}, but {result}. The version was deleted. Check the disk "
            "of the artifact store, then run again."
        )


def _served_answers(
    version: RegisteredVersion, paths: list[str], tracking: TrackingConfig
) -> Iterator[pd.DataFrame]:
    """Yield the predictions of the registered model for the photos as bytes, then as base64."""
    files = [read_bytes(path) for path in paths]
    model_url = version.bundle_url.removesuffix(BUNDLE_PATH)
    with downloaded(tracking, model_url) as folder, open_model(folder) as model:
        for images in (files, [base64.b64encode(file).decode() for file in files]):
            yield model.predict(pd.DataFrame({"image": images}, dtype=object))
