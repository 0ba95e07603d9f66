"""The origin of a challenger: photos, backbone, run and library versions, as text."""

import pandas as pd

from regraft.data.split import Splits
from regraft.training.tune import Challenger


def class_counts(splits: Splits, classes: tuple[str, ...]) -> pd.DataFrame:
    """Return the number of photos of each class and split, a row a class in order."""
    counts = splits.counts.reindex(list(classes), fill_value=0)
    return counts.rename_axis(index="label", columns=None).reset_index()


def collect_facts(challenger: Challenger, splits: Splits) -> dict[str, str]:
    """Return the facts by their names, in the order in which the report shows them."""
    card = challenger.classifier.card
    backbone = card.backbone
    task = backbone.source_task
    n = splits.counts.sum()
    return {
        "source": splits.source,
        "dataset digest": splits.digest,
        **{f"{split} photos": str(count) for split, count in n.items()},
        "files ignored (not photos)": str(splits.n_ignored),
        "photos that have a copy": str(splits.n_duplicates),
        "photos in quarantine": str(len(splits.quarantine)),
        "leaks between splits": str(len(splits.leaks)),
        "backbone": backbone.source,
        "architecture": backbone.architecture,
        "source task": f"{task.data} ({task.n_classes} classes)",
        "licence of the weights": task.licence,
        "sha256 of the weights": backbone.sha256,
        "freeze policy": challenger.plan.policy,
        "selected phase": challenger.selected_phase,
        "training stopped": challenger.stopped,
        "thawed part trained as": challenger.trained_as or "nothing thawed",
        "MLflow run": challenger.run_id,
        **{f"{library} version": version for library, version in card.versions.items()},
    }
