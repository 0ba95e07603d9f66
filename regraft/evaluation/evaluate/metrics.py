"""Metrics of predictions; each share has an interval, and an undefined share is NaN."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix, f1_score, top_k_accuracy_score

from regraft.core.errors import DataError
from regraft.core.intervals import Interval, wilson_interval

SLICE_PREFIX = "slice:"
Codes = NDArray[np.int64]


def class_codes(labels: "pd.Series[str]", classes: tuple[str, ...]) -> Codes:
    """Return the position of each label in classes, (N,).

    Raises:
        DataError: a label is not in classes.
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
    """Return the share of photos whose label is among the k highest scores; NaN if k is 0.

    Args:
        codes: (N,) true positions.
        scores: (N, K), K > k.
    """
    if k == 0:
        return wilson_interval(0, 0, confidence)
    n_classes = scores.shape[1]
    hits = top_k_accuracy_score(codes, scores, k=k, labels=range(n_classes), normalize=False)
    return wilson_interval(int(hits), len(codes), confidence)


def macro_f1(codes: Codes, predicted: Codes) -> float:
    """Return the unweighted mean F1 of the classes among the true labels, in [0, 1].

    A class without test photos is left out, because its recall is undefined. A class with test
    photos that is never predicted counts as 0.
    """
    present = np.unique(codes)
    return float(f1_score(codes, predicted, labels=present, average="macro", zero_division=0.0))


def confusion_table(codes: Codes, predicted: Codes, classes: tuple[str, ...]) -> pd.DataFrame:
    """Return a row for each pair (label, predicted) with n >= 1, in the order of the classes."""
    counts = confusion_matrix(
        codes, predicted, labels=range(len(classes))
    )  # (K, K) true x predicted
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
    """Return a row a class: n, n_train, precision and recall with intervals, f1.

    Undefined numbers are NaN.

    Args:
        codes, predicted: (N,) positions in classes.
        n_train: photos of each class in train, indexed by class; a class may be missing.
        confidence: of the intervals.
    """
    counts = confusion_matrix(
        codes, predicted, labels=range(len(classes))
    )  # (K, K) true x predicted
    hits, n, n_predicted = counts.diagonal(), counts.sum(axis=1), counts.sum(axis=0)
    precision = [wilson_interval(*pair, confidence) for pair in zip(hits, n_predicted, strict=True)]
    recall = [wilson_interval(*pair, confidence) for pair in zip(hits, n, strict=True)]
    with np.errstate(invalid="ignore"):  # 0 / 0 gives the wanted NaN
        f1 = 2 * hits / (n + n_predicted)
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
    """Return a row a slice, the least accurate first: column, value, n, accuracy, low, high.

    A column "slice:NAME" is used if it has 2 to max_values values; an empty cell has the value
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
    """Yield each slice of the photos: its column, its value, and its members (N,) bool."""
    for column in photos.columns:
        if column.startswith(SLICE_PREFIX):
            cells = [str(c) if pd.notna(c) else "(missing)" for c in photos[column]]
            values = pd.Series(cells, dtype=object).to_numpy()
            names = sorted(set(cells))
            if 2 <= len(names) <= max_values:
                yield from ((column.removeprefix(SLICE_PREFIX), n, values == n) for n in names)


def unused_slices(photos: pd.DataFrame, max_values: int) -> list[str]:
    """Return the names of the slice columns that have more values than max_values, sorted."""
    columns = [column for column in photos.columns if column.startswith(SLICE_PREFIX)]
    many = [column for column in columns if photos[column].nunique(dropna=False) > max_values]
    return sorted(column.removeprefix(SLICE_PREFIX) for column in many)


def _slice_row(correct: NDArray[np.bool_], confidence: float) -> tuple[int, float, float, float]:
    share = wilson_interval(int(correct.sum()), len(correct), confidence)
    return len(correct), share.value, share.low, share.high
