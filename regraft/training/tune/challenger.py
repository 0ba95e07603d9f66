"""What comes out of fine-tuning."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from regraft.model.classifier import ImageClassifier
from regraft.model.freeze import FreezeAudit, FreezePlan

Phase = Literal["head", "tune"]


@dataclass(frozen=True)
class EpochRecord:
    """One line of the learning curves.

    epoch: from 1; in phase "head" the number of the candidate penalty, in the order of l2.
    train_loss: as optimised in phase "tune" (smoothed, mixed, augmented); plain in phase "head".
    validation_loss: mean negative log-likelihood, natural logarithm, nothing smoothed.
    lr: that of a factor of 1 at the epoch's end, 0 in phase "head".
    l2: the candidate penalty, 0 in phase "tune".
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


# Told every epoch, when it is done; after an interruption also those that were done before it.
EpochLog = Callable[[EpochRecord], None]


@dataclass(frozen=True)
class Challenger:
    """The model just trained, and the record of its training.

    history: a row an EpochRecord. kept_phase: whose weights were kept, by validation accuracy.
    manifest: sha256, phash, thumbnail, label, side of every photo that it was trained or chosen on.
    stopped: why training ended. run_id: of the tracking run that holds it, "" if none.
    trained_as: how this machine arranged the training of the thawed part, see Arrangement; "" if
        only the head was solved.
    """

    classifier: ImageClassifier
    plan: FreezePlan
    audit: FreezeAudit
    history: pd.DataFrame
    kept_phase: str
    manifest: pd.DataFrame
    stopped: str
    run_id: str = ""
    trained_as: str = ""

    def __str__(self) -> str:
        kept = self.history[self.history.phase == self.kept_phase]
        accuracy = kept.sort_values("validation_loss").validation_accuracy.iloc[0]
        n_still = self.audit.n_parameters + self.audit.n_buffers
        return (
            f"fine_tune: validation accuracy {accuracy:.1%}, kept phase {self.kept_phase} "
            f"({self.stopped}); {n_still} frozen tensors unmoved"
        )
