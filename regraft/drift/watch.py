"""Drift of the photos at a place; photos that the model knows are left out."""

from collections.abc import Set
from dataclasses import replace

import pandas as pd

from regraft.core.config import Config
from regraft.drift.detect import DriftReport, detect_drift
from regraft.drift.photos import gather
from regraft.drift.reference import Reference
from regraft.model.classifier import ImageClassifier


def watch(
    photos: str,
    reference: Reference,
    classifier: ImageClassifier,
    trained_on: Set[str],
    config: Config,
) -> DriftReport:
    """Return the result of detect_drift() for the photos at a place.

    Unusable photos are counted with their reason.

    Args:
        photos: a folder or a manifest, labelled or not; local path or fsspec URL.
        trained_on: sha256 of the photos that the classifier was trained or selected on; they are
            left out and counted.
        config: ingest says how photos are read, embed where embeddings are stored, drift how the
            photos are tested, tune.seed seeds the permutations.

    Raises:
        NoPhotos, ManifestError: there is nothing to read.
    """
    gathered = gather(photos, config.ingest)
    is_known = gathered.photos.sha256.isin(list(trained_on))
    new = gathered.photos[~is_known]
    report = detect_drift(reference, classifier, new, config, config.tune.seed)
    unusable = pd.concat([gathered.unusable, report.unusable], ignore_index=True)
    return replace(report, unusable=unusable, n_known=int(is_known.sum()))
