"""Likely label errors, and how many of the listed labels to expect to be wrong."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from regraft.evaluation.evaluate.metrics import Codes

_Floats = NDArray[np.float64]

# Mean share of wrong labels in the test sets of ten data sets. Source: Northcutt, Athalye & Mueller
# 2021. If far more labels are wrong, the list is shorter than it could be, or empty.
ASSUMED_RATE = 0.033
MIN_PRECISION = 0.5
MAX_LISTED = 50  # photos that a person checks in some minutes; guess


def likely_label_errors(
    photos: pd.DataFrame, codes: Codes, probabilities: _Floats, classes: tuple[str, ...]
) -> pd.DataFrame:
    """Return the photos whose label to check, the clearest first.

    Photos that are not predicted as labelled are ranked by the probability of their label. Where
    classes look alike, most of them are honest mistakes of the model, so the list ends where fewer
    than MIN_PRECISION of its labels are expected to be wrong, and after MAX_LISTED photos at last.

    The expected precision of the first n photos is the number of wrong labels among them, divided
    by n, if ASSUMED_RATE of all labels were replaced by any other class. It is computed from the
    rank that each wrong label of each photo would have.

    Args:
        photos: N rows with path, label and split; no training photos.
        codes: (N,) positions of the labels.
        probabilities: (N, K), rows sum to 1.
        classes: K names in order.

    Returns:
        path, label, suggested (the prediction), split, self_confidence (of the label),
        suggested_confidence, expected_precision (of the list down to this row, in [0, 1]).

    Source: Kuan & Mueller 2022 (self-confidence as the score of a label). `python -m tests.bench
        alarms` measures the precision; docs/decisions/031 has the results.
    """
    rows, predicted = np.arange(len(codes)), probabilities.argmax(axis=1)
    order = np.argsort(probabilities[rows, codes], kind="stable")
    order = order[(predicted != codes)[order]]
    self_confidence = probabilities[order, codes[order]]
    can_be_listed = np.ones(probabilities.shape, np.bool_)  # (N, K) as a wrong label
    can_be_listed[rows, codes] = can_be_listed[rows, predicted] = False
    of_wrong = np.sort(probabilities[can_be_listed])
    n_wrong = np.searchsorted(of_wrong, self_confidence, side="right") / max(1, len(classes) - 1)
    n_listed = np.arange(1, len(order) + 1)
    precision = np.minimum(1.0, ASSUMED_RATE * n_wrong / n_listed)
    enough = n_listed[(precision >= MIN_PRECISION) & (n_listed <= MAX_LISTED)]
    length = enough[-1] if len(enough) else 0
    listed, names = order[:length], np.array(classes, dtype=object)
    table: pd.DataFrame = (
        photos.iloc[listed].loc[:, ["path", "label", "split"]].reset_index(drop=True)
    )
    table.insert(2, "suggested", names[predicted[listed]])
    return table.assign(
        self_confidence=self_confidence[:length],
        suggested_confidence=probabilities[listed, predicted[listed]],
        expected_precision=precision[:length],
    )
