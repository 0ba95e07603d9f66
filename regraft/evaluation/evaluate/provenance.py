"""What the challenger was made from, as text that a reader can check."""

import pandas as pd

from regraft.data.split import Splits
from regraft.training.tune import Challenger


def class_counts(splits: Splits, classes: tuple[str, ...]) -> pd.DataFrame:
    """Photos a class and side, a row a class in order; 0 where a class is missing."""
    counts = splits.counts.reindex(list(classes), fill_value=0)
    return counts.rename_axis(index="label", columns=None).reset_index()


def facts(challenger: Challenger, splits: Splits) -> dict[str, str]:
    """Photos, backbone, run and library versions, in the order in which they are read."""
    card = challenger.classifier.card
    backbone = card.backbone
    task = backbone.source_task
    n = splits.counts.sum()
    return {
        "source": splits.source,
        "dataset digest": splits.digest,
        **{f"{side} photos": str(count) for side, count in n.items()},
        "files ignored (no photos)": str(splits.n_ignored),
        "photos that have a copy": str(splits.n_duplicates),
        "photos in quarantine": str(len(splits.quarantine)),
        "photos leaked between sides": str(len(splits.leaks)),
        **splits.late_facts,
        "backbone": backbone.source,
        "architecture": backbone.architecture,
        "source task": f"{task.data} ({task.n_classes} classes)",
        "licence of the weights": task.licence,
        "sha256 of the weights": backbone.sha256,
        "freeze policy": challenger.plan.policy,
        "phase kept": challenger.kept_phase,
        "training stopped": challenger.stopped,
        "thawed part trained as": challenger.trained_as or "nothing thawed",
        "MLflow run": challenger.run_id,
        **{f"{library} version": version for library, version in card.versions.items()},
    }
