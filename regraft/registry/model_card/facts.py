"""Collect the facts of a registered model from its bundle, its version and its training run."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import pandas as pd

from regraft import registry
from regraft.core.config import EvaluateConfig, TrackingConfig
from regraft.core.intervals import Interval, wilson_interval
from regraft.model.card import Card
from regraft.registry import RegisteredVersion
from regraft.registry.tracking import connect


@dataclass(frozen=True)
class ModelCard:
    """The recorded facts of a version.

    registered: time of the registration, UTC. content_hash: of the classifier.
    aliases: {alias: version} of the whole model, so that the card can name the champion.
    card: of the bundle. counts: columns label, train, validation (photos), a row for each class in
        order.
    tags: of the version. run_id, run_tags, metrics: of the training run; empty if it was deleted.
    tracking_uri: of the MLflow store.
    """

    name: str
    version: int
    registered: datetime
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
        """The reference that every command accepts: "name/3"."""
        return f"{self.name}/{self.version}"

    @property
    def own_aliases(self) -> tuple[str, ...]:
        """The aliases of this version, sorted."""
        return tuple(sorted(alias for alias, v in self.aliases.items() if v == self.version))

    @property
    def n_test(self) -> int:
        """Number of test photos of the last evaluation, 0 if none is recorded."""
        return int(self.tags.get("n_test", 0))

    @property
    def level(self) -> float:
        """Confidence level of the intervals, in (0, 1)."""
        return float(self.card.config.get("evaluate.confidence", EvaluateConfig().confidence))

    @property
    def accuracy(self) -> Interval:
        """Test accuracy of the last evaluation, in [0, 1]; NaN if none is recorded."""
        share = float(self.tags.get("test_accuracy", 0.0))
        return wilson_interval(round(share * self.n_test), self.n_test, self.level)

    @property
    def abstain_below(self) -> float:
        """Confidence below which the label is "unsure", 0 if the model never abstains."""
        return self.card.abstain_below


def load_model_card(version: RegisteredVersion, tracking: TrackingConfig) -> ModelCard:
    """Return the facts of the version.

    Args:
        version: from registry.resolve().
        tracking: its store.

    Raises:
        WeightsNotFound, WeightsMismatch: the card is missing or damaged.
    """
    client = connect(tracking)
    stored = client.get_model_version(version.name, str(version.version))
    card = registry.load_card(tracking, version)
    run_tags, metrics = _run(version, tracking)
    return ModelCard(
        name=version.name,
        version=version.version,
        registered=datetime.fromtimestamp(stored.creation_timestamp / 1000, UTC),
        content_hash=version.content_hash,
        aliases=registry.get_aliases(tracking, version.name),
        card=card,
        counts=_counts(registry.load_manifest(tracking, version), card.classes),
        tags=dict(stored.tags),
        run_id=version.run_id,
        run_tags=run_tags,
        metrics=metrics,
        tracking_uri=tracking.uri,
    )


def _run(
    version: RegisteredVersion, tracking: TrackingConfig
) -> tuple[dict[str, str], dict[str, float]]:
    """Return tags and final metrics of the training run, empty if the run was deleted."""
    client = connect(tracking)
    experiment = client.get_experiment_by_name(version.name)
    if experiment is None or not version.run_id:
        return {}, {}
    query = f"attributes.run_id = '{version.run_id}'"
    for run in client.search_runs([experiment.experiment_id], query):
        return dict(run.data.tags), dict(run.data.metrics)
    return {}, {}


def _counts(manifest: pd.DataFrame, classes: tuple[str, ...]) -> pd.DataFrame:
    counts = pd.crosstab(manifest.label, manifest.split)
    splits = ["train", "validation"]
    counts = counts.reindex(index=list(classes), columns=splits, fill_value=0)
    return counts.rename_axis(index="label", columns=None).reset_index()
