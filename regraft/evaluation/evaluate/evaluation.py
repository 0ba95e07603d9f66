"""The evaluation of a challenger on the test photos, and its report as a single value."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from regraft.core.config import EmbedConfig, EvaluateConfig
from regraft.core.errors import EmptySplit
from regraft.core.intervals import Interval, wilson_interval
from regraft.core.text import format_count
from regraft.data.split import Splits
from regraft.evaluation.evaluate.abstention import coverage_of
from regraft.evaluation.evaluate.calibration import LabelledLogits, calibrate
from regraft.evaluation.evaluate.gallery import make_gallery
from regraft.evaluation.evaluate.label_errors import ASSUMED_RATE, likely_label_errors
from regraft.evaluation.evaluate.metrics import (
    class_codes,
    class_table,
    confusion_table,
    macro_f1,
    slice_table,
    top_k_interval,
    unused_slices,
)
from regraft.evaluation.evaluate.provenance import class_counts, collect_facts
from regraft.model.embed import NO_STORE, logits, probabilities
from regraft.model.freeze import FreezeAudit
from regraft.model.pixels import photos_of
from regraft.stats import TransferGain
from regraft.training.tune import Challenger


@dataclass(frozen=True)
class EvaluationReport:
    """The results of a challenger; the report page is rendered from this value alone.

    Attributes:
        interval_level: confidence of every interval, in (0, 1).
        n: test photos. accuracy: over all of them. baseline: of always predicting baseline_label,
            the largest class of train.
        top_k: k; 0 if it is left out (with two classes every photo would be a hit).
        macro_f1: over the classes that occur in test.
        temperature: fitted on validation. ece_*, nll_* (nats a photo): on test, before and after
            the temperature.
        per_class, confusion, reliability, coverage, slices: of the test photos, with probabilities
            after the temperature; coverage: see coverage_table().
        predictions: a row a test or validation photo: path, sha256, label, split, predicted,
            confidence, loss (nats), and "prob:CLASS" for each class in order.
        transfer: the gain from the pretrained weights, on a sample of the photos.
        label_errors: labels of test and validation to check, see likely_label_errors().
        gallery: pictures, see make_gallery().
        facts: see collect_facts(). config: of the training, by "section.key".
        class_counts: photos of each class and split.
        plan, audit, history, selected_phase, stopped: of the training, see Challenger.
        quarantine, leaks: of the splits, see Splits.
        notes: decisions that the user did not make, a sentence each: of ingest, split, training
            and evaluation.
    """

    classes: tuple[str, ...]
    interval_level: float
    n: int
    accuracy: Interval
    baseline: Interval
    baseline_label: str
    top_k: int
    top_k_accuracy: Interval
    macro_f1: float
    transfer: TransferGain
    temperature: float
    ece_before: float
    ece_after: float
    nll_before: float
    nll_after: float
    per_class: pd.DataFrame
    confusion: pd.DataFrame
    reliability: pd.DataFrame
    coverage: pd.DataFrame
    slices: pd.DataFrame
    predictions: pd.DataFrame
    label_errors: pd.DataFrame
    gallery: pd.DataFrame
    facts: dict[str, str]
    config: dict[str, str]
    class_counts: pd.DataFrame
    plan: pd.DataFrame
    audit: FreezeAudit
    history: pd.DataFrame
    selected_phase: str
    stopped: str
    quarantine: pd.DataFrame
    leaks: pd.DataFrame
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        low, high = self.accuracy.low, self.accuracy.high
        return (
            f"evaluate: test accuracy {self.accuracy.value:.1%} [{low:.1%}, {high:.1%}] "
            f"on {format_count(self.n, 'photo')}, majority class {self.baseline.value:.1%}, "
            f"{format_count(len(self.label_errors), 'label')} to check"
            f"{_expected_precision(self.label_errors)}"
        )


@dataclass(frozen=True)
class _JudgedSplit:
    """The photos of a split and their logits."""

    photos: pd.DataFrame
    logits: LabelledLogits


@dataclass(frozen=True)
class _Quality:
    """The metrics of the test photos, by their names in the report."""

    n: int
    accuracy: Interval
    baseline: Interval
    baseline_label: str
    top_k: int
    top_k_accuracy: Interval
    macro_f1: float
    per_class: pd.DataFrame
    confusion: pd.DataFrame
    slices: pd.DataFrame


def evaluate(
    challenger: Challenger,
    transfer: TransferGain,
    splits: Splits,
    config: EvaluateConfig,
    store: EmbedConfig = NO_STORE,
) -> EvaluationReport:
    """Return the report on the challenger, from its logits for the test and validation photos.

    Args:
        transfer: measured on the same splits; it is copied into the report.
        store: of embeddings; new ones are written to it.

    Raises:
        EmptySplit: there is no test photo.
        DataError: a test or validation label is not among the classifier's classes.
    """
    held_out = pd.concat([splits.test, splits.validation])
    scores = logits(challenger.classifier, photos_of(held_out), store)
    return evaluate_logits(challenger, transfer, splits, scores, config)


def evaluate_logits(
    challenger: Challenger,
    transfer: TransferGain,
    splits: Splits,
    scores: Tensor,
    config: EvaluateConfig,
) -> EvaluationReport:
    """Return the report on the challenger, from its logits.

    Args:
        scores: (n_test + n_validation, K) in the order of splits.test, then splits.validation.

    Raises:
        EmptySplit, DataError: as evaluate().
    """
    classes = challenger.classifier.card.classes
    n_test = len(splits.test)
    if n_test == 0:
        raise EmptySplit(
            f"Expected test photos in {splits.source}, got none. "
            "Raise split.test_fraction, or add photos to the test split."
        )
    test = _judged_split(splits.test, scores[:n_test], classes)
    validation = _judged_split(splits.validation, scores[n_test:], classes)
    quality = _quality(test, splits.train, classes, config)
    calibration = calibrate(validation.logits, test.logits, config.n_bins)
    predictions = pd.concat(
        [_predictions(part, calibration.temperature, classes) for part in (test, validation)],
        ignore_index=True,
    )
    label_errors = _label_errors(predictions, classes)
    return EvaluationReport(
        classes=classes,
        interval_level=config.confidence,
        **vars(quality),
        transfer=transfer,
        **vars(calibration),
        coverage=coverage_of(predictions[: len(splits.test)]),
        predictions=predictions,
        label_errors=label_errors,
        gallery=make_gallery(predictions, label_errors, splits.leaks, config.n_gallery),
        facts=collect_facts(challenger, splits),
        config=dict(challenger.classifier.card.config),
        class_counts=class_counts(splits, classes),
        plan=challenger.plan.table(),
        audit=challenger.audit,
        history=challenger.history,
        selected_phase=challenger.selected_phase,
        stopped=challenger.stopped,
        quarantine=splits.quarantine,
        leaks=splits.leaks,
        notes=(*challenger.classifier.card.notes, *_notes(splits.test, config)),
    )


def _notes(test: pd.DataFrame, config: EvaluateConfig) -> Iterator[str]:
    unused = unused_slices(test, config.max_slice_values)
    if unused:
        yield (
            f"No slices of {', '.join(unused)}: more than "
            f"evaluate.max_slice_values={config.max_slice_values} values."
        )


def _judged_split(photos: pd.DataFrame, scores: Tensor, classes: tuple[str, ...]) -> _JudgedSplit:
    codes = torch.from_numpy(class_codes(photos.label, classes))  # (N,)
    return _JudgedSplit(photos.reset_index(drop=True), LabelledLogits(scores, codes))


def _quality(
    test: _JudgedSplit, train: pd.DataFrame, classes: tuple[str, ...], config: EvaluateConfig
) -> _Quality:
    codes, predicted = test.logits.codes.numpy(), test.logits.predicted.numpy()
    correct = test.logits.correct.numpy()
    n, confidence = len(codes), config.confidence
    n_train = train.label.value_counts().reindex(list(classes), fill_value=0)
    majority = str(n_train.idxmax())
    k = min(config.top_k, len(classes) - 1) if len(classes) > 2 else 0
    return _Quality(
        n=n,
        accuracy=wilson_interval(int(correct.sum()), n, confidence),
        baseline=wilson_interval(int((test.photos.label == majority).sum()), n, confidence),
        baseline_label=majority,
        top_k=k,
        top_k_accuracy=top_k_interval(codes, test.logits.scores.numpy(), k, confidence),
        macro_f1=macro_f1(codes, predicted),
        per_class=class_table(codes, predicted, classes, n_train, confidence),
        confusion=confusion_table(codes, predicted, classes),
        slices=slice_table(test.photos, correct, confidence, config.max_slice_values),
    )


def _predictions(part: _JudgedSplit, temperature: float, classes: tuple[str, ...]) -> pd.DataFrame:
    scores, codes = part.logits.scores, part.logits.codes
    probs = probabilities(scores, temperature)  # (N, K)
    loss = torch.nn.functional.cross_entropy(
        scores.double() / temperature, codes, reduction="none"
    )  # (N,)
    table = part.photos.loc[:, ["path", "sha256", "label", "split"]].assign(
        predicted=np.array(classes, dtype=object)[part.logits.predicted.numpy()],
        confidence=probs.amax(dim=1).numpy(),
        loss=loss.numpy(),
    )
    columns = [f"prob:{name}" for name in classes]
    return pd.concat([table, pd.DataFrame(probs.numpy(), columns=columns)], axis=1)


def _expected_precision(label_errors: pd.DataFrame) -> str:
    if label_errors.empty:
        return ""
    share = label_errors.expected_precision.iloc[-1]
    return f" (about {share:.0%} of them wrong, if {ASSUMED_RATE:.1%} of all are)"


def _label_errors(predictions: pd.DataFrame, classes: tuple[str, ...]) -> pd.DataFrame:
    columns = [f"prob:{name}" for name in classes]
    codes = class_codes(predictions.label, classes)
    return likely_label_errors(predictions, codes, predictions[columns].to_numpy(), classes)
