"""What changed in the photos that a model learns from, since the last one was trained."""

from collections.abc import Mapping

import pandas as pd

from regraft.data.split import Splits
from regraft.model.classifier import contract_of
from regraft.operations.advice import MAX_TOLD, ClassDelta, Delta


def delta_of(
    splits: Splits,
    manifest: pd.DataFrame | None,
    since: int | None,
    classes_then: tuple[str, ...],
    renamed: Mapping[str, str],
) -> Delta:
    """The photos that were added, removed and relabelled, a class each.

    Photos are told apart by content: a file that was moved or copied is no change, one that was
    saved anew is another photo. A photo that has moved to the test side is one removed from what a
    model learns from. Whatever changed on the test side is not counted: it asks for another
    judgement, not for another training.

    Args:
        splits: of today; the train and the validation photos are compared.
        manifest: sha256 and label, at least, of the photos that the last model was trained or
            chosen on; None if there is no model: all photos are new.
        since: the version of that model.
        classes_then: its classes, in any order.
        renamed: {old name: new name}; such a class is the same one, under its new name.

    Raises:
        ConfigError: renamed would merge two classes.
    """
    today = splits.frame[splits.frame["side"] != "test"].sort_values("path")
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
        relabelled=tuple(moved.head(MAX_TOLD).itertuples(index=False, name=None)),
    )


def _labels_then(manifest: pd.DataFrame | None, old_names: Mapping[str, str]) -> "pd.Series[str]":
    """The label of each content then, by the class's name of today."""
    if manifest is None:
        return pd.Series([], index=pd.Index([], dtype=str), dtype=str)
    today = {old: new for new, old in old_names.items()}
    labels = manifest.drop_duplicates("sha256").set_index("sha256")["label"].astype(str)
    return labels.map(lambda label: today.get(label, label))
