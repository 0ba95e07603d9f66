"""Counts of hits and what they say, each share with its interval; undefined shares are NaN."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import binomtest
from sklearn.metrics import confusion_matrix, f1_score, top_k_accuracy_score

from regraft.core.errors import DataError

SLICE_PREFIX = "slice:"
Codes = NDArray[np.int64]


@dataclass(frozen=True)
class Interval:
    """A share in [0, 1] and its bounds; all NaN where nothing was counted."""

    value: float
    low: float
    high: float


def wilson(n_hits: int, n: int, confidence: float) -> Interval:
    """The share of hits with its Wilson interval; NaN if n is 0.

    Args:
        n_hits: in [0, n].
        n: trials, >= 0.
        confidence: of the interval, in (0, 1).

    Source: Wilson 1927; Brown, Cai & DasGupta 2001 recommend it for small n. scipy computes it.

    >>> wilson(9, 10, 0.95).value
    0.9
    """
    if n == 0:
        return Interval(math.nan, math.nan, math.nan)
    bounds = binomtest(int(n_hits), int(n)).proportion_ci(confidence, method="wilson")
    return Interval(n_hits / n, float(bounds.low), float(bounds.high))


def class_codes(labels: "pd.Series[str]", classes: tuple[str, ...]) -> Codes:
    """The position of each label in classes, (N,); a class without photos shifts nothing.

    Raises:
        DataError: a label that the classifier does not know.
    """
    codes = pd.Index(classes).get_indexer(pd.Index(labels))
    unknown = labels[codes < 0]
    if len(unknown):
        raise DataError(
            f"Expected labels among the classifier's classes ({', '.join(classes)}), got "
            f"{len(unknown)} others (first: {unknown.iloc[0]!r}). "
            "Train again with these classes, or leave their photos out."
        )
    return codes.astype(np.int64)


def top_k_interval(
    codes: Codes, scores: NDArray[np.float64], k: int, confidence: float
) -> Interval:
    """The share of photos whose label is among the k highest scores; NaN if k is 0 (omitted).

    Args:
        codes: (N,) true positions.
        scores: (N, K), K > k.
    """
    if k == 0:
        return wilson(0, 0, confidence)
    n_classes = scores.shape[1]
    hits = top_k_accuracy_score(codes, scores, k=k, labels=range(n_classes), normalize=False)
    return wilson(int(hits), len(codes), confidence)


def macro_f1(codes: Codes, predicted: Codes) -> float:
    """The unweighted mean F1 of the classes that occur among the true labels, in [0, 1].

    A class that the test photos lack is left out: its recall is undefined, and neither 0 nor 1
    would be true. A class that is there and never predicted counts as 0.
    """
    present = np.unique(codes)
    return float(f1_score(codes, predicted, labels=present, average="macro", zero_division=0.0))


def confusion_table(codes: Codes, predicted: Codes, classes: tuple[str, ...]) -> pd.DataFrame:
    """A row for each (label, predicted) that happened, with n >= 1, in the order of the classes."""
    counts = confusion_matrix(codes, predicted, labels=range(len(classes)))  # (K, K) true x said
    rows, columns = np.nonzero(counts)
    names = np.array(classes, dtype=object)
    return pd.DataFrame(
        {"label": names[rows], "predicted": names[columns], "n": counts[rows, columns]}
    )


def class_table(
    codes: Codes,
    predicted: Codes,
    classes: tuple[str, ...],
    n_train: "pd.Series[int]",
    confidence: float,
) -> pd.DataFrame:
    """A row a class: n, n_train, precision and recall with intervals, f1; NaN where undefined.

    Args:
        codes, predicted: (N,) positions in classes.
        n_train: photos a class in train, indexed by class; a class may be missing.
        confidence: of the intervals.
    """
    counts = confusion_matrix(codes, predicted, labels=range(len(classes)))  # (K, K) true x said
    hits, n, n_said = counts.diagonal(), counts.sum(axis=1), counts.sum(axis=0)
    precision = [wilson(h, said, confidence) for h, said in zip(hits, n_said, strict=True)]
    recall = [wilson(h, true, confidence) for h, true in zip(hits, n, strict=True)]
    with np.errstate(invalid="ignore"):  # 0 / 0 is the NaN that is meant
        f1 = 2 * hits / (n + n_said)
    return pd.DataFrame(
        {
            "label": list(classes),
            "n": n,
            "n_train": n_train.reindex(list(classes), fill_value=0).to_numpy(dtype=int),
            "precision": [share.value for share in precision],
            "precision_low": [share.low for share in precision],
            "precision_high": [share.high for share in precision],
            "recall": [share.value for share in recall],
            "recall_low": [share.low for share in recall],
            "recall_high": [share.high for share in recall],
            "f1": f1,
        }
    )


def slice_table(
    photos: pd.DataFrame, correct: NDArray[np.bool_], confidence: float, max_values: int
) -> pd.DataFrame:
    """Accuracy in every slice, the least accurate first: column, value, n, accuracy, low, high.

    A column "slice:NAME" is used if it has 2 to max_values values; an empty cell is the value
    "(missing)".
    """
    rows = [
        (column, value, *_slice_row(correct[inside], confidence))
        for column, value, inside in slices_of(photos, max_values)
    ]
    table = pd.DataFrame(rows, columns=["column", "value", "n", "accuracy", "low", "high"])
    return table.sort_values(["column", "accuracy"], kind="stable", ignore_index=True)


def slices_of(
    photos: pd.DataFrame, max_values: int
) -> Iterator[tuple[str, str, NDArray[np.bool_]]]:
    """Each slice of the photos: the name of its column, its value, and (N,) who belongs to it."""
    for column in photos.columns:
        if column.startswith(SLICE_PREFIX):
            cells = [str(c) if pd.notna(c) else "(missing)" for c in photos[column]]
            values = pd.Series(cells, dtype=object).to_numpy()
            names = sorted(set(cells))
            if 2 <= len(names) <= max_values:
                yield from ((column.removeprefix(SLICE_PREFIX), n, values == n) for n in names)


def _slice_row(correct: NDArray[np.bool_], confidence: float) -> tuple[int, float, float, float]:
    share = wilson(int(correct.sum()), len(correct), confidence)
    return len(correct), share.value, share.low, share.high
