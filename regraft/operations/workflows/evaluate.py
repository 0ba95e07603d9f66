"""The workflow evaluate: a registered model on labelled photos."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from regraft import registry
from regraft.core.config import Config, IngestConfig
from regraft.core.intervals import Interval, wilson_interval
from regraft.core.pages.facts import facts_html, format_interval
from regraft.core.state import State, places
from regraft.core.text import format_count
from regraft.data.ingest import ingest
from regraft.evaluation.evaluate.metrics import (
    class_codes,
    class_table,
    confusion_table,
    macro_f1,
)
from regraft.evaluation.predict import predict_paths
from regraft.model.card import UNSURE
from regraft.operations.workflows.settings import config_of_model, reading_config

if TYPE_CHECKING:
    from regraft.model.classifier import ImageClassifier


@dataclass(frozen=True)
class Evaluation:
    """The metrics of a registered model on labelled photos.

    model: "name/version". n: photos that were predicted, >= 1.
    accuracy: share of correct labels, in [0, 1], with its confidence interval; a photo below the
        model's abstention threshold counts by its most probable class.
    macro_f1: unweighted mean of the classes' F1, in [0, 1].
    per_class: a row a class. confusion: a row a pair (label, predicted) with n >= 1.
    predictions: a row a photo: path, true_label, label, confidence, "prob:CLASS" for each class.
    quarantine: a row a photo that could not be used, with its reason.
    n_trained_on: photos among the n that the model was trained or selected on; their share makes
        the accuracy too high.
    n_unsure: photos below the abstention threshold.
    """

    model: str
    n: int
    accuracy: Interval
    macro_f1: float
    per_class: pd.DataFrame
    confusion: pd.DataFrame
    predictions: pd.DataFrame
    quarantine: pd.DataFrame
    n_trained_on: int
    n_unsure: int

    def __str__(self) -> str:
        low, high = self.accuracy.low, self.accuracy.high
        text = (
            f"{self.model}: {self.accuracy.value:.1%} [{low:.1%}, {high:.1%}] of "
            f"{format_count(self.n, 'photo')}"
        )
        if self.n_trained_on:
            text += f"; the model was trained or selected on {self.n_trained_on} of them"
        return text

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        facts = {
            "model": self.model,
            "accuracy": format_interval(self.accuracy),
            "photos": str(self.n),
            "of these trained on": str(self.n_trained_on),
            "unusable": str(len(self.quarantine)),
        }
        return facts_html(facts) + str(self.per_class.round(3).to_html(index=False))


def evaluate(photos: str, model: str, config: Config, state: State) -> Evaluation:
    """Return the metrics of a registered model on labelled photos; nothing is registered.

    Args:
        photos: folder with a subfolder a class, manifest or "torchvision:NAME".
        model: "name@alias", "name/3" or "name"; "" means the only champion.
        state: opened and activated.

    Raises:
        DataError: a label is not among the model's classes, or there is no usable photo.
    """
    tracking = places(state).tracking
    version = registry.resolve(tracking, model)
    classifier = registry.load(tracking, version)
    config = reading_config(config, state)
    label_from = config.ingest.label_from
    if label_from == IngestConfig().label_from:  # the folders name the classes as in the training
        label_from = config_of_model(classifier.card.config, state).ingest.label_from
    named = {"photos": photos, "label_from": label_from}
    table = ingest(config.ingest.model_copy(update=named))
    predictions = _predictions(classifier, table.frame, config)
    manifest = registry.load_manifest(tracking, version)
    n_train = manifest[manifest.split == "train"].label.value_counts()
    classes = classifier.card.classes
    codes = class_codes(predictions.true_label, classes)
    probs = predictions[[f"prob:{name}" for name in classes]].to_numpy(float)  # (N, K)
    predicted = probs.argmax(axis=1)
    confidence = config.evaluate.confidence
    return Evaluation(
        model=f"{version.name}/{version.version}",
        n=len(predictions),
        accuracy=wilson_interval(int(np.sum(codes == predicted)), len(codes), confidence),
        macro_f1=macro_f1(codes, predicted),
        per_class=class_table(codes, predicted, classes, n_train, confidence),
        confusion=confusion_table(codes, predicted, classes),
        predictions=predictions.drop(columns="sha256"),
        quarantine=table.quarantine,
        n_trained_on=int(predictions.sha256.isin(manifest.sha256).sum()),
        n_unsure=int((predictions.label == UNSURE).sum()),
    )


def _predictions(
    classifier: "ImageClassifier", frame: pd.DataFrame, config: Config
) -> pd.DataFrame:
    """Return a row a photo that can be read, with its true label."""
    table = predict_paths(classifier, list(frame.path), config.embed)
    table.insert(2, "true_label", frame.label.to_numpy())
    return table[table.error == ""].drop(columns="error").reset_index(drop=True)
