"""Drift of new photos: the tests, the estimated class shares, and the most distant photos."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from regraft.core.config import Config
from regraft.core.errors import UnusablePhoto
from regraft.core.text import format_count
from regraft.drift.distance import measure_distances
from regraft.drift.hypothesis_tests import DriftTest, NewPhotos, run_drift_tests
from regraft.drift.reference import Reference, distinct
from regraft.drift.shares import SHARES, shares_table
from regraft.evaluation.predict import max_pixels_of
from regraft.model.classifier import ImageClassifier
from regraft.model.embed import (
    head_scores,
    judging_compute,
    probabilities,
    spec_for,
    try_embeddings_for,
)
from regraft.model.pixels import photos_of

MAX_COMPARED = 2000  # new photos in the tests; their kernel with 1000 more photos takes 36 MB
PHOTOS = ("path", "predicted", "confidence", "distance")
UNUSABLE = ("path", "reason", "detail")

logger = logging.getLogger("regraft.drift")


@dataclass(frozen=True)
class DriftReport:
    """The result of detect_drift().

    Attributes:
        reference: the photos of the comparison, in words.
        level: chance of a false alarm of all tests together, in (0, 1).
        min_photos: fewer photos are not tested.
        n_compared: photos in the tests, at most MAX_COMPARED.
        n_copies: files left out as copies or near copies of another file, or of its group.
        tests: empty if there were too few photos.
        shares: a row a class, as shares_table() returns it; empty if there were too few photos.
        photos: a row a distinct readable photo, the most distant first: path, predicted,
            confidence, distance (see measure_distances(): above 1 it is far).
        unusable: path, reason and detail of the photos that cannot be read.
        n_known: files left out because the model was trained or selected on them.
    """

    reference: str
    level: float
    min_photos: int
    n_compared: int
    n_copies: int
    tests: tuple[DriftTest, ...]
    shares: pd.DataFrame
    photos: pd.DataFrame
    unusable: pd.DataFrame
    n_known: int = 0

    @property
    def n_photos(self) -> int:
        """Number of distinct new photos that can be read."""
        return len(self.photos)

    @property
    def drifted(self) -> bool | None:
        """Whether any test shows a distribution shift; None if there were too few photos."""
        return any(test.outcome == "drifted" for test in self.tests) if self.tests else None

    @property
    def p_value(self) -> float:
        """The smallest corrected p-value; 1 if nothing was tested."""
        tested = [test.corrected for test in self.tests if test.corrected is not None]
        return min(tested, default=1.0)

    @property
    def drifted_tests(self) -> tuple[DriftTest, ...]:
        """The tests with the outcome "drifted", the smallest p-value first."""
        drifted = [test for test in self.tests if test.outcome == "drifted"]
        return tuple(sorted(drifted, key=lambda test: test.corrected or 0.0))

    @property
    def reason(self) -> str:
        """The result in one sentence."""
        if self.drifted is None:
            return (
                f"{format_count(self.n_photos, 'new photo')}, too few to test for drift; expected "
                f"at least drift.min_photos={self.min_photos}"
            )
        if not self.drifted_tests:
            return f"{self.n_photos} new photos show no distribution shift"
        effects = "; ".join(f"{test.name}: {test.effect}" for test in self.drifted_tests)
        return f"{self.n_photos} new photos show a distribution shift: {effects}"

    def __str__(self) -> str:
        return f"drift: {self.reason} (p = {self.p_value:.2g}, level {self.level:g})"


def detect_drift(
    reference: Reference,
    classifier: ImageClassifier,
    photos: pd.DataFrame,
    config: Config,
    seed: int,
) -> DriftReport:
    """Return whether the photos come from another distribution than the model's training photos.

    Photos whose embeddings are in the store at config.embed are not decoded. Fewer than
    config.drift.min_photos photos are not tested.

    Args:
        photos: path, sha256, brightness, sharpness, width, height and "slice:NAME", as in the image
            table; labels are not used. distinct() removes the copies.
        seed: of the permutations.
    """
    ordered = distinct(photos, config.split.near_duplicate_bits)
    spec = spec_for(classifier, judging_compute(), max_pixels_of(classifier.card))
    embeddings = try_embeddings_for(spec, photos_of(ordered), config.embed)
    is_usable = ~ordered.sha256.isin(list(embeddings.refused))
    usable = ordered[is_usable].reset_index(drop=True)
    scores = head_scores(classifier, embeddings.rows)  # (N, K)
    probs = probabilities(scores, classifier.card.temperature).numpy()  # (N, K)
    answered = usable.assign(
        predicted=np.array(classifier.card.classes)[probs.argmax(axis=1)].astype(object),
        confidence=probs.max(axis=1, initial=0.0),
        distance=measure_distances(reference.embeddings, embeddings.rows),
    )
    report = DriftReport(
        reference=str(reference),
        level=config.drift.level,
        min_photos=config.drift.min_photos,
        n_compared=min(len(usable), MAX_COMPARED),
        n_copies=len(photos) - len(ordered),
        tests=(),
        shares=pd.DataFrame(columns=SHARES),
        photos=answered.sort_values("distance", ascending=False, ignore_index=True)[list(PHOTOS)],
        unusable=_unusable(ordered[~is_usable], embeddings.refused),
    )
    if len(usable) >= config.drift.min_photos:
        shares = shares_table(probs, reference.errors, classifier.card.classes, seed)
        n = report.n_compared  # the lowest sha256, so independent of the content
        rows = embeddings.rows.take(np.arange(n)).float().numpy()  # (n, D)
        new = NewPhotos(rows, answered.head(n).assign(is_far=answered.distance.head(n) > 1), shares)
        tests = run_drift_tests(reference, new, config.drift, seed)
        report = replace(report, tests=tests, shares=shares)
    logger.info("%s", report)
    return report


def _unusable(photos: pd.DataFrame, refused: Mapping[str, UnusablePhoto]) -> pd.DataFrame:
    errors = [refused[sha256] for sha256 in photos.sha256]
    rows = [(p, e.reason, e.detail) for p, e in zip(photos.path, errors, strict=True)]
    return pd.DataFrame(rows, columns=list(UNUSABLE), dtype=str)
