"""Train a registered model again from its record, and compare it with the registered one."""

import logging
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from regraft import registry
from regraft.core.config import Config, TrackingConfig
from regraft.core.errors import DataError, NotReproduced, WeightsNotFound
from regraft.data.ingest import ImageTable, ingest
from regraft.data.split import Splits, split
from regraft.evaluation.evaluate import abstain_below, class_codes, fit_temperature
from regraft.evaluation.predict import prediction_table, with_abstention
from regraft.model.card import Card
from regraft.model.classifier import ImageClassifier, load_pretrained
from regraft.model.embed import logits, probabilities
from regraft.model.freeze import freeze
from regraft.model.pixels import photos_of
from regraft.promotion.recorded_config import isolated_config, recorded_config
from regraft.registry import RegisteredVersion
from regraft.registry.blend_record import training_start
from regraft.registry.interpolate import repeat_blend
from regraft.registry.package import git_sha
from regraft.registry.tracking import connect
from regraft.registry.versions import find_by_content, get_tags
from regraft.training.tune import Challenger, fine_tune

_PHOTO_KEY = ["sha256", "label", "copy"]

logger = logging.getLogger("regraft.reproduce")


@dataclass(frozen=True)
class Reproduction:
    """The comparison of a registered model with its retraining.

    is_identical: whether both models have the same content hash, so are the same bit for bit.
    has_all_photos: whether all photos that the registered model was trained or selected on exist,
        with the same labels.
    weight_difference: the largest absolute difference of a weight; infinite if the shapes differ.
    n_test: today's test photos.
    agreement: share of the test photos with the same prediction of both models, in [0, 1].
    accuracy_registered, accuracy_retrained: of the two models on these photos, in [0, 1].
    accuracy_recorded: as recorded in the registry, in [0, 1]; NaN if there is none.
    differences: between the recorded and today's circumstances, a sentence each.
    """

    reference: str
    is_identical: bool
    has_all_photos: bool
    weight_difference: float
    n_test: int
    agreement: float
    accuracy_registered: float
    accuracy_retrained: float
    accuracy_recorded: float
    differences: tuple[str, ...]

    @property
    def is_reproduced(self) -> bool:
        """Whether it is identical, or has the same training photos and the same predictions."""
        return self.is_identical or (self.has_all_photos and self.agreement == 1.0)

    def __str__(self) -> str:
        if self.is_identical:
            result = "the same model, bit for bit"
        elif self.is_reproduced:
            result = "another model with the same prediction for every test photo"
        else:
            result = "another model"
        lines = [f"reproduce: {self.reference} trained again is {result}"]
        if not self.is_identical:
            lines.append(f"  weights    differ by up to {self.weight_difference:.2g}")
        differences = " ".join(self.differences) or "nothing that is recorded"
        lines += [
            f"  answers    the same for {self.agreement:.1%} of {self.n_test} test photos",
            f"  accuracy   {self.accuracy_registered:.1%} registered, "
            f"{self.accuracy_retrained:.1%} trained again, {self.accuracy_recorded:.1%} recorded",
            f"  differs    {differences}",
        ]
        return "\n".join(lines)


@dataclass(frozen=True)
class _RecordedTraining:
    """What is recorded about the training of a registered version."""

    reference: str
    classifier: ImageClassifier
    manifest: pd.DataFrame
    tags: dict[str, str]
    trained_as: str


@dataclass(frozen=True)
class _AbsentPhotos:
    """Recorded photos that today's training lacks.

    n: recorded photos. n_relabelled: of these, labelled otherwise today. n_gone: of these, no
    longer among the usable photos.
    """

    n: int
    n_relabelled: int = 0
    n_gone: int = 0

    def __bool__(self) -> bool:
        return bool(self.n_relabelled or self.n_gone)

    def __str__(self) -> str:
        counts = ((self.n_relabelled, "labelled otherwise today"), (self.n_gone, "gone"))
        return " and ".join(f"{n} {what}" for n, what in counts if n)


@dataclass(frozen=True)
class _Retraining:
    """Today's training. splits: the recorded photos, in their recorded splits."""

    splits: Splits
    absent: "_AbsentPhotos"
    challenger: Challenger
    classifier: ImageClassifier


def reproduce(
    version: RegisteredVersion, tracking: TrackingConfig, overrides: tuple[str, ...] = ()
) -> Reproduction:
    """Train the version again from its card, in a temporary folder, and return the comparison.

    Nothing is registered, and no memory of the state folder is written. Only stores that are
    addressed by content may grow: the embeddings, and the photos of a data set of arrays. Photos
    that were added later are excluded from training, by the manifest in the bundle.

    Args:
        version: as returned by registry.resolve().
        tracking: the store that contains it.
        overrides: "section.field=value", for files that were moved.

    Raises:
        ConfigError: an override or the card is not valid.
        DataError: the recorded photos do not exist now.
        WeightsError: the backbone or the parent model does not exist now.
    """
    recorded = _load_record(version, tracking)
    config = recorded_config(recorded.classifier.card, tracking, overrides)
    with tempfile.TemporaryDirectory() as scratch:
        retraining = _train_again(recorded, isolated_config(config, Path(scratch)), version.name)
    old, new = recorded.classifier, retraining.classifier
    test = retraining.splits.test
    agreement, accuracy_registered, accuracy_retrained = _compare(old, new, test, config)
    return Reproduction(
        reference=recorded.reference,
        is_identical=new.content_hash == old.content_hash,
        has_all_photos=not retraining.absent,
        weight_difference=_largest_difference(old.weights, new.weights),
        n_test=len(test),
        agreement=agreement,
        accuracy_registered=accuracy_registered,
        accuracy_retrained=accuracy_retrained,
        accuracy_recorded=float(recorded.tags.get("test_accuracy", "nan")),
        differences=(*_differences(recorded, retraining), *_override_notes(overrides)),
    )


def check_reproduced(reproduction: Reproduction) -> None:
    """Raise an error that lists the differences, unless the model was reproduced.

    Raises:
        NotReproduced: the retrained model is another model.
    """
    if reproduction.is_reproduced:
        return
    why = " ".join(reproduction.differences) or (
        "No recorded circumstance differs, so the cause is the machine or a library that the card "
        "does not record. Try on the machine that trained it."
    )
    n_other = round((1 - reproduction.agreement) * reproduction.n_test)
    raise NotReproduced(
        f"Expected {reproduction.reference} trained again to be the registered model, got a model "
        f"with another prediction for {n_other} of {reproduction.n_test} test photos (accuracy "
        f"{reproduction.accuracy_retrained:.1%}, not {reproduction.accuracy_registered:.1%}; "
        f"weights differ by up to {reproduction.weight_difference:.2g}). {why}"
    )


def _load_record(version: RegisteredVersion, tracking: TrackingConfig) -> _RecordedTraining:
    client = connect(tracking)
    experiment = client.get_experiment_by_name(version.name)
    query = f"attributes.run_id = '{version.run_id}'"
    runs = client.search_runs([experiment.experiment_id], query) if experiment else []
    return _RecordedTraining(
        reference=f"{version.name}/{version.version}",
        classifier=registry.load(tracking, version),
        manifest=registry.load_manifest(tracking, version),
        tags=get_tags(tracking, version),
        trained_as=runs[0].data.tags.get("trained_as", "") if runs else "",
    )


def _train_again(recorded: _RecordedTraining, config: Config, name: str) -> _Retraining:
    card = recorded.classifier.card
    table = ingest(config.ingest)
    logger.info("%s", table)
    splits = split(table, config.split)
    absent = _AbsentPhotos(len(recorded.manifest))
    logger.info("%s", splits)
    if splits.digest != card.dataset_digest:
        splits, absent = _recorded_splits(table, splits, recorded)
    pretrained = _load_start(card, config, name)
    plan = freeze(pretrained, config.freeze)
    challenger = fine_tune(pretrained, plan, splits, config.tune, lambda _: None, config.embed)
    tracking = config.tracking.model_copy(update={"name": name})
    challenger = repeat_blend(challenger, card, tracking, config.classes.renamed)
    logger.info("%s", challenger)
    classifier = _calibrated(challenger.classifier, splits, config)
    return _Retraining(splits, absent, challenger, classifier)


def _recorded_splits(
    table: ImageTable, splits: Splits, recorded: _RecordedTraining
) -> tuple[Splits, _AbsentPhotos]:
    """Return splits with the recorded train and validation photos, and which are absent.

    The manifest has no test photos, so today's test photos are used.

    Raises:
        DataError: a class has no training photo left, or no validation photo is left.
    """
    classes, manifest = recorded.classifier.card.classes, recorded.manifest
    wanted = _numbered(manifest)[[*_PHOTO_KEY, "split"]]
    existing = _numbered(table.frame).merge(wanted, on=_PHOTO_KEY).drop(columns="copy")
    test = splits.test
    test = test[~test.sha256.isin(manifest.sha256) & test.label.isin(classes)]
    trained_classes = set(existing[existing.split == "train"].label)
    lacking = [name for name in classes if name not in trained_classes]
    absent = _count_absent(wanted, existing, table)
    if lacking or not (existing.split == "validation").any():
        part = f"all of {', '.join(lacking)}" if lacking else "all validation photos"
        raise DataError(
            f"Expected the {absent.n} photos that {recorded.reference} was trained or selected on "
            f"in {table.source}, with the labels of then; {absent}, among them {part}. Restore "
            "them, or set a place that has them so with --set ingest.photos=PLACE."
        )
    frame = pd.concat([existing, test]).sort_values("path").reset_index(drop=True)
    return replace(splits, frame=frame), absent


def _count_absent(wanted: pd.DataFrame, existing: pd.DataFrame, table: ImageTable) -> _AbsentPhotos:
    """Return how many recorded photos have another label today, and how many are gone."""
    columns = ["sha256", "label"]
    # How often a photo is missing under its recorded label, and present under labels of today.
    missing = wanted[columns].value_counts().sub(existing[columns].value_counts(), fill_value=0)
    n_missing = missing[missing > 0].groupby("sha256").sum()
    n_today = table.frame.sha256.value_counts().sub(existing.sha256.value_counts(), fill_value=0)
    n_relabelled = np.minimum(n_missing, n_today.reindex(n_missing.index, fill_value=0))
    n_gone = n_missing.sum() - n_relabelled.sum()
    return _AbsentPhotos(len(wanted), int(n_relabelled.sum()), int(n_gone))


def _numbered(photos: pd.DataFrame) -> pd.DataFrame:
    """Return the photos with a column copy: 0, 1, ... for photos of the same content and label."""
    return photos.assign(copy=photos.groupby(["sha256", "label"]).cumcount())


def _load_start(card: Card, config: Config, name: str) -> ImageClassifier:
    """Return the classifier that training starts from.

    A parent model is searched in the registry by its content hash, since its bundle may have moved.

    Raises:
        WeightsNotFound: the parent model is not in the registry, and no bundle is given.
    """
    backbone = config.backbone
    if start := training_start(card):
        parent = find_by_content(config.tracking.model_copy(update={"name": name}), start)
        if parent:
            backbone = backbone.model_copy(update={"source": f"bundle:{parent.bundle_url}"})
        elif not backbone.source.startswith("bundle:"):
            raise WeightsNotFound(
                f"Expected the model {start[:12]} that training started from among the "
                f"versions of {name} in {config.tracking.uri}, found none. If you have its bundle, "
                "set its place with --set backbone.source=bundle:URL."
            )
    return load_pretrained(backbone, card.classes, config.classes.renamed)


def _calibrated(classifier: ImageClassifier, splits: Splits, config: Config) -> ImageClassifier:
    """Return it with the temperature and the threshold that evaluate() and register() set."""
    held_out = pd.concat([splits.test, splits.validation], ignore_index=True)
    scores = logits(classifier, photos_of(held_out), config.embed)  # (N, K)
    classes = classifier.card.classes
    is_validation = (held_out.split == "validation").to_numpy(copy=True)  # (N,)
    codes = torch.from_numpy(class_codes(held_out.label[is_validation], classes))
    temperature = fit_temperature(scores[torch.from_numpy(is_validation)], codes)
    predictions = held_out[["label", "split"]].assign(
        predicted=np.array(classes, dtype=object)[scores.argmax(dim=1).numpy()],
        confidence=probabilities(scores, temperature).amax(dim=1).numpy(),
    )
    calibrated = classifier.with_card(temperature=temperature)
    return with_abstention(calibrated, abstain_below(predictions, config.predict))


def _compare(
    old: ImageClassifier, new: ImageClassifier, test: pd.DataFrame, config: Config
) -> tuple[float, float, float]:
    """Return the share of equal predictions and both accuracies; NaN without photos."""
    if test.empty:
        return float("nan"), float("nan"), float("nan")
    both = [logits(model, photos_of(test), config.embed) for model in (old, new)]  # (N, K) each
    labels = [prediction_table(scores, old.card).label for scores in both]
    agreement = float((labels[0].to_numpy() == labels[1].to_numpy()).mean())
    codes = torch.from_numpy(class_codes(test.label, old.card.classes))
    accuracies = [float((scores.argmax(dim=1) == codes).double().mean()) for scores in both]
    return agreement, accuracies[0], accuracies[1]


def _largest_difference(old: dict[str, Tensor], new: dict[str, Tensor]) -> float:
    """Return the largest absolute difference of a weight; infinite if names or shapes differ."""
    shapes = [{name: tensor.shape for name, tensor in weights.items()} for weights in (old, new)]
    if shapes[0] != shapes[1]:
        return float("inf")
    return max(
        float((old[name].double() - new[name].double()).abs().max())
        for name in old
        if old[name].numel()
    )


def _differences(recorded: _RecordedTraining, retraining: _Retraining) -> Iterator[str]:
    """Yield the differences between the recorded and today's training, the most serious first."""
    card, info = recorded.classifier.card, retraining.classifier.card.backbone
    n = len(recorded.manifest)
    if retraining.absent:
        yield f"Of the {n} photos that it was trained or selected on, {retraining.absent}."
    elif retraining.splits.digest != card.dataset_digest:
        yield (
            f"The photos have changed, but all {n} that it was trained or selected on exist, and "
            "only these were used; the test photos are today's."
        )
    if info.sha256 != card.backbone.sha256:
        yield f"The backbone's weights were {card.backbone.sha256[:12]}, are {info.sha256[:12]}."
    trained_as = retraining.challenger.trained_as
    if recorded.trained_as and trained_as != recorded.trained_as:
        yield (
            f"The thawed part was trained as {recorded.trained_as}, now as "
            f"{trained_as or 'nothing'}."
        )
    for name, version in card.versions.items():
        if _installed_version(name) != version:
            yield f"{name} was {version}, is {_installed_version(name)}."
    recorded_sha, sha = recorded.tags.get("git_sha", ""), git_sha()
    if recorded_sha != sha:
        yield (
            f"The code was at commit {recorded_sha[:12] or 'unknown'}, is at "
            f"{sha[:12] or 'unknown'}."
        )


def _override_notes(overrides: tuple[str, ...]) -> Iterator[str]:
    if overrides:
        yield f"Set for this run: {', '.join(overrides)}."


def _installed_version(name: str) -> str:
    try:
        return installed(name)
    except PackageNotFoundError:
        return "not installed"
