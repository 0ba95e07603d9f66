"""The challenger's examination: every test photo once, and the report as one value."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from regraft.core.config import EmbedConfig, EvaluateConfig
from regraft.core.errors import EmptySplit
from regraft.data.split import Splits
from regraft.evaluation.evaluate.abstention import coverage_of
from regraft.evaluation.evaluate.calibration import Answers, calibrate
from regraft.evaluation.evaluate.gallery import gallery
from regraft.evaluation.evaluate.label_errors import likely_label_errors
from regraft.evaluation.evaluate.metrics import (
    Interval,
    class_codes,
    class_table,
    confusion_table,
    macro_f1,
    slice_table,
    top_k_interval,
    wilson,
)
from regraft.evaluation.evaluate.provenance import class_counts, facts
from regraft.model.embed import NO_STORE, logits, probabilities
from regraft.model.freeze import FreezeAudit
from regraft.model.pixels import photos_of
from regraft.training.transfer import TransferGain
from regraft.training.tune import Challenger


@dataclass(frozen=True)
class EvaluationReport:
    """All that is known about a challenger; the report page is drawn from this value alone.

    interval_level: confidence of every interval, in (0, 1).
    n: test photos. accuracy: over exactly those. baseline: train's largest class, always said.
    top_k: k, 0 where omitted (two classes: every photo would be a hit).
    macro_f1: over the classes that occur in test.
    temperature: fitted on validation; ece_*, nll_* (nats a photo) on test, before and after it.
    per_class, confusion, reliability, coverage, slices: of the test photos, probabilities after
        temperature; coverage: see coverage_table().
    predictions: a row a test and a validation photo: path, sha256, label, side, predicted,
        confidence, loss (nats), and "prob:CLASS" for each class in order.
    transfer: what the pretrained weights were worth, on a sample of the photos.
    label_errors: among test and validation. gallery: pictures, see gallery().
    The rest says what was trained on what, by which rules, and what was left out.
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
    kept_phase: str
    stopped: str
    quarantine: pd.DataFrame
    leaks: pd.DataFrame

    def __str__(self) -> str:
        low, high = self.accuracy.low, self.accuracy.high
        return (
            f"evaluate: test accuracy {self.accuracy.value:.1%} [{low:.1%}, {high:.1%}] "
            f"on {self.n} photos, majority class {self.baseline.value:.1%}, "
            f"{len(self.label_errors)} likely label errors"
        )


@dataclass(frozen=True)
class _Side:
    """The photos of one side and what the classifier answered."""

    photos: pd.DataFrame
    answers: Answers


@dataclass(frozen=True)
class _Quality:
    """The numbers about the test photos, by their names in the report."""

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
    """The report on the challenger, from one pass over the test and the validation photos.

    Args:
        transfer: measured on the same splits; the report hands it on.
        store: where a pass over them may already be, and is kept.

    Raises:
        EmptySplit: there is no test photo.
        DataError: a test or validation label that the classifier does not know.
    """
    held_out = pd.concat([splits.test, splits.validation])
    scores = logits(challenger.classifier, photos_of(held_out), store)
    return judge(challenger, transfer, splits, scores, config)


def judge(
    challenger: Challenger,
    transfer: TransferGain,
    splits: Splits,
    scores: Tensor,
    config: EvaluateConfig,
) -> EvaluationReport:
    """The report on the challenger, from its logits.

    Args:
        scores: (n_test + n_validation, K) in the order of splits.test, then splits.validation.

    Raises:
        EmptySplit, DataError: as evaluate().
    """
    classes = challenger.classifier.card.classes
    n_test = len(splits.test)
    if n_test == 0:
        raise EmptySplit(
            f"Expected test photos to judge by in {splits.source}, got none. "
            "Raise split.test_fraction, or add photos to the test side."
        )
    test = _side(splits.test, scores[:n_test], classes)
    validation = _side(splits.validation, scores[n_test:], classes)
    quality = _quality(test, splits.train, classes, config)
    calibration = calibrate(validation.answers, test.answers, config.n_bins)
    predictions = pd.concat(
        [_predictions(side, calibration.temperature, classes) for side in (test, validation)],
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
        gallery=gallery(predictions, label_errors, splits.leaks, config.n_gallery),
        facts=facts(challenger, splits),
        config=dict(challenger.classifier.card.config),
        class_counts=class_counts(splits, classes),
        plan=challenger.plan.table(),
        audit=challenger.audit,
        history=challenger.history,
        kept_phase=challenger.kept_phase,
        stopped=challenger.stopped,
        quarantine=splits.quarantine,
        leaks=splits.leaks,
    )


def _side(photos: pd.DataFrame, scores: Tensor, classes: tuple[str, ...]) -> _Side:
    codes = torch.from_numpy(class_codes(photos.label, classes))  # (N,)
    return _Side(photos.reset_index(drop=True), Answers(scores, codes))


def _quality(
    test: _Side, train: pd.DataFrame, classes: tuple[str, ...], config: EvaluateConfig
) -> _Quality:
    answers = test.answers
    codes, predicted = answers.codes.numpy(), answers.predicted.numpy()
    correct = answers.correct.numpy()
    n, confidence = len(codes), config.confidence
    n_train = train.label.value_counts().reindex(list(classes), fill_value=0)
    majority = str(n_train.idxmax())
    k = min(config.top_k, len(classes) - 1) if len(classes) > 2 else 0
    return _Quality(
        n=n,
        accuracy=wilson(int(correct.sum()), n, confidence),
        baseline=wilson(int((test.photos.label == majority).sum()), n, confidence),
        baseline_label=majority,
        top_k=k,
        top_k_accuracy=top_k_interval(codes, answers.scores.numpy(), k, confidence),
        macro_f1=macro_f1(codes, predicted),
        per_class=class_table(codes, predicted, classes, n_train, confidence),
        confusion=confusion_table(codes, predicted, classes),
        slices=slice_table(test.photos, correct, confidence, config.max_slice_values),
    )


def _predictions(side: _Side, temperature: float, classes: tuple[str, ...]) -> pd.DataFrame:
    answers = side.answers
    shares = probabilities(answers.scores, temperature)  # (N, K)
    loss = torch.nn.functional.cross_entropy(
        answers.scores.double() / temperature, answers.codes, reduction="none"
    )  # (N,)
    table = side.photos.loc[:, ["path", "sha256", "label", "side"]].assign(
        predicted=np.array(classes, dtype=object)[answers.predicted.numpy()],
        confidence=shares.amax(dim=1).numpy(),
        loss=loss.numpy(),
    )
    columns = [f"prob:{name}" for name in classes]
    return pd.concat([table, pd.DataFrame(shares.numpy(), columns=columns)], axis=1)


def _label_errors(predictions: pd.DataFrame, classes: tuple[str, ...]) -> pd.DataFrame:
    columns = [f"prob:{name}" for name in classes]
    codes = class_codes(predictions.label, classes)
    return likely_label_errors(predictions, codes, predictions[columns].to_numpy(), classes)
