"""What is recorded of a registered model: in its bundle, on its version, in its training run."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import pandas as pd

from regraft import registry
from regraft.core.config import EvaluateConfig, TrackingConfig
from regraft.evaluation.evaluate import Interval, wilson
from regraft.model.classifier import Card
from regraft.registry import RegisteredVersion
from regraft.registry.tracking import connect


@dataclass(frozen=True)
class ModelCard:
    """The facts of one version; what is not recorded is not in them.

    made: when it was registered, UTC. content_hash: of the classifier.
    aliases: {alias: version} of the whole model, so that the card can say what serves instead.
    card: the bundle's. counts: label, train, validation: photos, a row a class in order.
    tags: of the version. run_id, run_tags, metrics: of its training run; empty if it is gone.
    tracking_uri: of the store that it was read from.
    """

    name: str
    version: int
    made: datetime
    content_hash: str
    aliases: Mapping[str, int]
    card: Card
    counts: pd.DataFrame
    tags: Mapping[str, str]
    run_id: str
    run_tags: Mapping[str, str]
    metrics: Mapping[str, float]
    tracking_uri: str

    @property
    def reference(self) -> str:
        """It as every command takes it: "name/3"."""
        return f"{self.name}/{self.version}"

    @property
    def called(self) -> tuple[str, ...]:
        """Its own aliases."""
        return tuple(sorted(alias for alias, v in self.aliases.items() if v == self.version))

    @property
    def n_test(self) -> int:
        """Test photos of the last judgement, 0 if none is recorded."""
        return int(self.tags.get("n_test", 0))

    @property
    def level(self) -> float:
        """Confidence of the intervals, in (0, 1)."""
        return float(self.card.config.get("evaluate.confidence", EvaluateConfig().confidence))

    @property
    def accuracy(self) -> Interval:
        """Of the last judgement, in [0, 1]; NaN if none is recorded."""
        share = float(self.tags.get("test_accuracy", 0.0))
        return wilson(round(share * self.n_test), self.n_test, self.level)

    @property
    def abstain_below(self) -> float:
        """The least confidence of an answer, 0 if every photo is answered."""
        return self.card.abstain_below


def card_of(version: RegisteredVersion, tracking: TrackingConfig) -> ModelCard:
    """The facts of the version, as they are recorded now.

    Args:
        version: as registry.resolve() finds it.
        tracking: the store that holds it.

    Raises:
        WeightsNotFound, WeightsMismatch: its bundle is gone or damaged.
    """
    client = connect(tracking)
    found = client.get_model_version(version.name, str(version.version))
    card = registry.load(tracking, version).card
    run_tags, metrics = _run(version, tracking)
    return ModelCard(
        name=version.name,
        version=version.version,
        made=datetime.fromtimestamp(found.creation_timestamp / 1000, UTC),
        content_hash=version.content_hash,
        aliases=registry.aliases(tracking, version.name),
        card=card,
        counts=_counts(registry.load_manifest(tracking, version), card.classes),
        tags=dict(found.tags),
        run_id=version.run_id,
        run_tags=run_tags,
        metrics=metrics,
        tracking_uri=tracking.uri,
    )


def _run(
    version: RegisteredVersion, tracking: TrackingConfig
) -> tuple[dict[str, str], dict[str, float]]:
    """Tags and final metrics of the run that trained it; searched for, since it may be deleted."""
    client = connect(tracking)
    experiment = client.get_experiment_by_name(version.name)
    if experiment is None or not version.run_id:
        return {}, {}
    wanted = f"attributes.run_id = '{version.run_id}'"
    for run in client.search_runs([experiment.experiment_id], wanted):
        return dict(run.data.tags), dict(run.data.metrics)
    return {}, {}


def _counts(manifest: pd.DataFrame, classes: tuple[str, ...]) -> pd.DataFrame:
    counts = pd.crosstab(manifest.label, manifest.side)
    sides = ["train", "validation"]
    counts = counts.reindex(index=list(classes), columns=sides, fill_value=0)
    return counts.rename_axis(index="label", columns=None).reset_index()
