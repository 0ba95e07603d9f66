"""Likely label errors, by confident learning."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from regraft.evaluation.evaluate.metrics import Codes


def likely_label_errors(
    photos: pd.DataFrame, codes: Codes, probabilities: NDArray[np.float64], classes: tuple[str, ...]
) -> pd.DataFrame:
    """Return the photos whose label is likely wrong, the clearest first.

    The threshold of a class is the mean of its probability over the photos with this label. A photo
    is confidently of a class if its probability reaches the threshold. The label is likely wrong if
    the most probable confident class is another one, and the prediction is not the label either. A
    class without held-out photos has no threshold and is never suggested.

    Args:
        photos: N rows with path, label and split; no training photos.
        codes: (N,) positions of the labels.
        probabilities: (N, K), rows sum to 1.
        classes: K names in order.

    Returns:
        path, label, suggested, split, self_confidence, suggested_confidence.

    Source: Northcutt, Jiang & Chuang 2021, eq. 1 and the method C of section 3.2. To leave out a
        photo whose label is the prediction is the rule of cleanlab's filter.py
        (find_label_issues).
    """
    n_classes = len(classes)
    rows = np.arange(len(codes))
    self_confidence = probabilities[rows, codes]  # (N,)
    thresholds = np.full(n_classes, np.inf)
    for code in np.unique(codes):
        thresholds[code] = self_confidence[codes == code].mean()
    confident = np.where(probabilities >= thresholds, probabilities, -1.0)  # (N, K)
    suggested = confident.argmax(axis=1)
    doubtful = (
        (confident.max(axis=1) > 0) & (suggested != codes) & (probabilities.argmax(axis=1) != codes)
    )
    table = photos.loc[:, ["path", "label", "split"]].reset_index(drop=True)
    table.insert(2, "suggested", np.array(classes, dtype=object)[suggested])
    table["self_confidence"] = self_confidence
    table["suggested_confidence"] = probabilities[rows, suggested]
    margin = (table.self_confidence - table.suggested_confidence)[doubtful]
    return table.reindex(margin.sort_values(kind="stable").index).reset_index(drop=True)
