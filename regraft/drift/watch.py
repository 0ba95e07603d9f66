"""A look at whatever lies at a place, beside the photos that the model knows already."""

from collections.abc import Set
from dataclasses import replace

import pandas as pd

from regraft.core.config import Config
from regraft.drift.look import DriftReport, look
from regraft.drift.photos import gather
from regraft.drift.reference import Reference
from regraft.model.classifier import ImageClassifier


def watch(
    photos: str,
    reference: Reference,
    classifier: ImageClassifier,
    known: Set[str],
    config: Config,
) -> DriftReport:
    """What look() makes of the photos at a place; what is broken is counted, with its reason.

    Args:
        photos: a folder or a manifest, labelled or not; local path or fsspec URL.
        known: sha256 of what the classifier was trained or chosen on, which is nothing new: left
            out and counted.
        config: ingest says how photos are read, embed where their numbers are kept, drift how they
            are judged, tune.seed the permutations.

    Raises:
        NoPhotos, ManifestError: nothing to read there.
    """
    found = gather(photos, config.ingest)
    is_known = found.photos.sha256.isin(list(known))
    new = found.photos[~is_known]
    report = look(reference, classifier, new, config, config.tune.seed)
    unusable = pd.concat([found.unusable, report.unusable], ignore_index=True)
    return replace(report, unusable=unusable, n_known=int(is_known.sum()))
