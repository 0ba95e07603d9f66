"""The result of fine-tuning."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from regraft.model.classifier import ImageClassifier
from regraft.model.freeze import FreezeAudit, FreezePlan

Phase = Literal["head", "tune"]


@dataclass(frozen=True)
class EpochRecord:
    """One point of the learning curves.

    epoch: from 1; in phase "head" the number of the candidate penalty, in the order of l2.
    train_loss: in phase "tune" as optimised (smoothed, mixed, augmented); in phase "head" plain.
    validation_loss: mean negative log-likelihood, natural logarithm, without smoothing.
    lr: for a factor of 1 at the end of the epoch; 0 in phase "head".
    l2: the candidate penalty; 0 in phase "tune".
    """

    phase: Phase
    epoch: int
    train_loss: float
    train_accuracy: float
    validation_loss: float
    validation_accuracy: float
    lr: float
    l2: float
    seconds: float


# Called at the end of every epoch; a resumed training first repeats the earlier epochs.
EpochLog = Callable[[EpochRecord], None]


@dataclass(frozen=True)
class Challenger:
    """The trained model and the record of its training.

    history: one row per EpochRecord; none if nothing was trained (a revision of the champion).
    selected_phase: the phase with the better validation accuracy, whose weights the model has; ""
        if nothing was trained.
    manifest: sha256, phash, thumbnail, label, split of every photo used in training or validation.
    stopped: why training ended. run_id: of the tracking run, "" if there is none.
    trained_as: how this machine trained the thawed part, see TrainingSetup; "" if only the head was
        solved.
    """

    classifier: ImageClassifier
    plan: FreezePlan
    audit: FreezeAudit
    history: pd.DataFrame
    selected_phase: str
    manifest: pd.DataFrame
    stopped: str
    run_id: str = ""
    trained_as: str = ""

    def __str__(self) -> str:
        if self.history.empty:
            return self.stopped
        curve = self.history[self.history.phase == self.selected_phase]
        accuracy = curve.sort_values("validation_loss").validation_accuracy.iloc[0]
        n_still = self.audit.n_parameters + self.audit.n_buffers
        return (
            f"fine_tune: validation accuracy {accuracy:.1%}, selected phase {self.selected_phase} "
            f"({self.stopped}); {n_still} frozen tensors unchanged"
        )
