"""The changes of the training photos since the last training."""

from collections.abc import Mapping

import pandas as pd

from regraft.data.split import Splits
from regraft.model.classifier import contract_of
from regraft.operations.advice import MAX_LISTED, ClassDelta, Delta


def compute_delta(
    splits: Splits,
    manifest: pd.DataFrame | None,
    since: int | None,
    classes_then: tuple[str, ...],
    renamed: Mapping[str, str],
) -> Delta:
    """Return the photos that were added, removed and relabelled, for each class.

    Photos are compared by content: a moved or copied file is no change, a file that was saved anew
    is another photo. A photo that moved to the test split counts as removed. Changes within the
    test split are not counted, because they ask for a new evaluation and not for a new training.

    Args:
        splits: of today; the train and the validation photos are compared.
        manifest: at least the columns sha256 and label, of the photos that the last model was
            trained or selected on; None if there is no model, so that all photos are new.
        since: the version of that model.
        classes_then: its classes, in any order.
        renamed: {old name: new name} of renamed classes.

    Raises:
        ConfigError: renamed would merge two classes.
    """
    today = splits.frame[splits.frame["split"] != "test"].sort_values("path")
    now = today.drop_duplicates("sha256").set_index("sha256")
    then = _labels_then(manifest, contract_of(classes_then, splits.classes, renamed).old_names)
    both = now.index.intersection(then.index)
    shared = pd.DataFrame({"path": now["path"], "was": then, "label": now["label"]}).loc[both]
    moved = shared[shared["was"] != shared["label"]].sort_values("path")
    counts = pd.DataFrame(
        {
            "before": then.value_counts(),
            "added": now["label"].drop(both).value_counts(),
            "removed": then.drop(both).value_counts(),
            "relabelled_in": moved["label"].value_counts(),
            "relabelled_out": moved["was"].value_counts(),
        }
    )
    lines = counts.fillna(0).astype(int).sort_index().itertuples()
    return Delta(
        since=since,
        classes=tuple(ClassDelta(str(label), *map(int, line)) for label, *line in lines),
        relabelled=tuple(moved.head(MAX_LISTED).itertuples(index=False, name=None)),
    )


def _labels_then(manifest: pd.DataFrame | None, old_names: Mapping[str, str]) -> "pd.Series[str]":
    """Return the earlier label of each sha256, with today's names of renamed classes."""
    if manifest is None:
        return pd.Series([], index=pd.Index([], dtype=str), dtype=str)
    today = {old: new for new, old in old_names.items()}
    labels = manifest.drop_duplicates("sha256").set_index("sha256")["label"].astype(str)
    return labels.map(lambda label: today.get(label, label))
