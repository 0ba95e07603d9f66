"""One backbone on all the photos: how well its embeddings tell the classes apart, at what cost."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.neighbors import KNeighborsClassifier

from regraft.core.config import BackboneConfig, EmbedConfig, TuneConfig
from regraft.core.errors import TrainingDiverged
from regraft.evaluation.compare.cost import Cost, cost_of
from regraft.evaluation.compare.folds import Fold, Ints
from regraft.evaluation.compare.logme import logme
from regraft.model.classifier import ImageClassifier, load_pretrained
from regraft.model.embed import Rows, choose_compute, embed, judging_compute
from regraft.model.pixels import photos_of
from regraft.training.tune import SolvedHead, solve_head
from regraft.training.tune.head import Embedded

# Source: scikit-learn's default. Caron et al. 2021 find 20 best on ImageNet, but a class of a small
# data set may have no 20 photos.
N_NEIGHBOURS = 5

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Task:
    """The photos that all backbones are judged on.

    photos: (N rows) with the columns path, sha256 and side. y: (N,) positions in classes.
    """

    photos: pd.DataFrame
    y: Ints
    classes: tuple[str, ...]
    folds: tuple[Fold, ...]


@dataclass(frozen=True)
class Measured:
    """What was found out about a backbone.

    knn, probe: (N,) bool, whether each photo was told right while it was not trained on.
    """

    sha256: str
    embedding_dim: int
    knn: Bools
    probe: Bools
    logme: float
    cost: Cost


def measure(config: BackboneConfig, task: Task, tune: TuneConfig, store: EmbedConfig) -> Measured:
    """The backbone's answers to the photos, cross-validated, and its cost.

    Raises:
        UnknownBackbone, WeightsNotFound: it cannot be had.
        TrainingDiverged: its embeddings are not finite.
    """
    classifier = load_pretrained(config, task.classes)
    x = _embeddings(classifier, task.photos, tune, store)
    if not np.isfinite(x).all():
        raise TrainingDiverged(
            f"Expected finite embeddings from {config.source}, got some that are not. Its weights "
            "are damaged, or set tune.precision=fp32."
        )
    return Measured(
        sha256=classifier.card.backbone.sha256,
        embedding_dim=x.shape[1],
        knn=_hits(task, lambda fold: neighbours(x, task.y, fold)),
        probe=_hits(task, lambda fold: probe(x, task.y, fold, tune)),
        logme=logme(x, task.y),
        cost=cost_of(classifier, photos_of(task.photos)),
    )


def neighbours(x: Floats, y: Ints, fold: Fold) -> Ints:
    """What the N_NEIGHBOURS most similar training photos say of each photo that judges.

    Similar is what has a large cosine, so the length of an embedding counts for nothing.
    """
    k = min(N_NEIGHBOURS, len(fold.train))
    model = KNeighborsClassifier(k, metric="cosine", algorithm="brute")
    said: Ints = model.fit(x[fold.train], y[fold.train]).predict(x[fold.judge])
    return said


def probe(x: Floats, y: Ints, fold: Fold, tune: TuneConfig) -> Ints:
    """What the solved head says of each photo that judges; its penalty is chosen within training.

    A class that the training photos of the fold lack cannot be named: its photos count as wrong.
    """
    chosen, _ = _solved(x, y, (fold.fit, fold.choose), tune)
    settled = tune.model_copy(update={"head_l2": (chosen.best.l2,)})
    head, known = _solved(x, y, (fold.train, fold.choose), settled)
    said: Ints = known[(x[fold.judge] @ head.weight.T + head.bias).argmax(axis=1)]
    return said


def _solved(
    x: Floats, y: Ints, sides: tuple[Ints, Ints], tune: TuneConfig
) -> tuple[SolvedHead, Ints]:
    """A head over the classes that occur on the first side, and these classes."""
    known = np.unique(y[sides[0]])
    judged = sides[1][np.isin(y[sides[1]], known)]
    parts = (sides[0], judged if len(judged) else sides[0])
    train, validation = (
        Embedded(Rows.of(torch.from_numpy(x[part])), np.searchsorted(known, y[part]))
        for part in parts
    )
    return solve_head(train, validation, len(known), tune), known


def _hits(task: Task, answers: Callable[[Fold], Ints]) -> Bools:
    hits = np.zeros(len(task.y), bool)
    for fold in task.folds:
        hits[fold.judge] = answers(fold) == task.y[fold.judge]
    return hits


def _embeddings(
    classifier: ImageClassifier, photos: pd.DataFrame, tune: TuneConfig, store: EmbedConfig
) -> Floats:
    """(N, D) of each side as fine_tune() computes it, so that it finds them in the store."""
    found = np.zeros((len(photos), classifier.card.backbone.embedding_dim), np.float32)
    for side, compute in (("train", choose_compute(tune)), ("validation", judging_compute())):
        here = (photos["side"] == side).to_numpy()
        if here.any():
            rows = embed(classifier, photos_of(photos[here]), compute, store)
            found[here] = rows.all().float().numpy()
    return found
