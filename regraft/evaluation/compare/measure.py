"""The cross-validated accuracy and the cost of a backbone on all photos."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.neighbors import KNeighborsClassifier

from regraft.core.config import BackboneConfig, EmbedConfig, TuneConfig
from regraft.core.errors import TrainingDiverged
from regraft.evaluation.compare.folds import Fold, Ints
from regraft.evaluation.cost import Cost, measure_cost
from regraft.model.classifier import ImageClassifier, load_pretrained
from regraft.model.embed import Rows, choose_compute, embed, judging_compute
from regraft.model.pixels import photos_of
from regraft.training.tune import SolvedHead, solve_head
from regraft.training.tune.head import LabelledEmbeddings

# Source: scikit-learn's default. Caron et al. 2021 find 20 best on ImageNet, but a class of a small
# data set may have fewer than 20 photos.
N_NEIGHBOURS = 5

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class ComparisonTask:
    """The photos that all backbones are judged on.

    photos: (N rows) with the columns path, sha256 and split. y: (N,) positions in classes.
    """

    photos: pd.DataFrame
    y: Ints
    classes: tuple[str, ...]
    folds: tuple[Fold, ...]


@dataclass(frozen=True)
class BackboneScores:
    """The measured accuracy and cost of a backbone.

    knn, probe: (N,) bool, whether each photo was predicted correctly in the fold that judges it.
    """

    sha256: str
    embedding_dim: int
    knn: Bools
    probe: Bools
    cost: Cost


def measure(
    config: BackboneConfig, task: ComparisonTask, tune: TuneConfig, store: EmbedConfig
) -> BackboneScores:
    """Return the cross-validated scores of the backbone and its cost.

    Raises:
        UnknownBackbone, WeightsNotFound: the backbone is not available.
        TrainingDiverged: its embeddings are not finite.
    """
    classifier = load_pretrained(config, task.classes)
    x = _embeddings(classifier, task.photos, tune, store)  # (N, D)
    if not np.isfinite(x).all():
        raise TrainingDiverged(
            f"Expected finite embeddings from {config.source}, got NaN or infinity. Set "
            "tune.precision=fp32; if this does not help, its weights are damaged."
        )
    return BackboneScores(
        sha256=classifier.card.backbone.sha256,
        embedding_dim=x.shape[1],
        knn=_hits(task, lambda fold: neighbours(x, task.y, fold)),
        probe=_hits(task, lambda fold: probe(x, task.y, fold, tune)),
        cost=measure_cost(classifier, photos_of(task.photos)),
    )


def neighbours(x: Floats, y: Ints, fold: Fold) -> Ints:
    """Return the k-nearest-neighbours prediction for each photo of fold.judge.

    The similarity is the cosine, so the length of an embedding does not matter.
    """
    k = min(N_NEIGHBOURS, len(fold.train))
    model = KNeighborsClassifier(k, metric="cosine", algorithm="brute")
    predicted: Ints = model.fit(x[fold.train], y[fold.train]).predict(x[fold.judge])
    return predicted


def probe(x: Floats, y: Ints, fold: Fold, tune: TuneConfig) -> Ints:
    """Return the solved head's prediction for each photo of fold.judge.

    The penalty is chosen within fold.train. A class without a photo in fold.train cannot be
    predicted: its photos count as wrong.
    """
    first, _ = _solve(x, y, (fold.fit, fold.choose), tune)
    fixed = tune.model_copy(update={"head_l2": (first.best.l2,)})
    head, classes = _solve(x, y, (fold.train, fold.choose), fixed)
    scores = x[fold.judge] @ head.weight.T + head.bias  # (n_judge, K)
    predicted: Ints = classes[scores.argmax(axis=1)]
    return predicted


def _solve(
    x: Floats, y: Ints, parts: tuple[Ints, Ints], tune: TuneConfig
) -> tuple[SolvedHead, Ints]:
    """Return a head over the classes of the first part, and these classes.

    parts: positions of the photos to solve on, and of the photos to validate on.
    """
    fit, held_out = parts
    classes = np.unique(y[fit])
    held_out = held_out[np.isin(y[held_out], classes)]
    train, validation = (
        LabelledEmbeddings(Rows.of(torch.from_numpy(x[part])), np.searchsorted(classes, y[part]))
        for part in (fit, held_out if len(held_out) else fit)
    )
    return solve_head(train, validation, len(classes), tune), classes


def _hits(task: ComparisonTask, predict: Callable[[Fold], Ints]) -> Bools:
    hits = np.zeros(len(task.y), bool)
    for fold in task.folds:
        hits[fold.judge] = predict(fold) == task.y[fold.judge]
    return hits


def _embeddings(
    classifier: ImageClassifier, photos: pd.DataFrame, tune: TuneConfig, store: EmbedConfig
) -> Floats:
    """Return the embeddings (N, D), each split computed as in fine_tune(), which reuses them."""
    embeddings = np.zeros((len(photos), classifier.card.backbone.embedding_dim), np.float32)
    for split, compute in (("train", choose_compute(tune)), ("validation", judging_compute())):
        is_in_split = (photos["split"] == split).to_numpy()
        if is_in_split.any():
            rows = embed(classifier, photos_of(photos[is_in_split]), compute, store)
            embeddings[is_in_split] = rows.all().float().numpy()
    return embeddings
