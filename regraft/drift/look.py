"""A look at new photos: the tests, the classes that they seem to be of, and the strangest ones."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from regraft.core.config import Config
from regraft.core.errors import UnusablePhoto
from regraft.drift.distance import distances
from regraft.drift.findings import Finding, NewPhotos, findings
from regraft.drift.reference import Reference, distinct
from regraft.drift.shares import SHARES, shares_table
from regraft.evaluation.predict import max_pixels_of
from regraft.model.classifier import ImageClassifier
from regraft.model.embed import find_rows, head_scores, judging_compute, passage, probabilities
from regraft.model.pixels import photos_of

MAX_COMPARED = 2000  # new photos in the tests; the kernel of them and 1000 more takes 36 MB
PHOTOS = ("path", "predicted", "confidence", "distance")
UNUSABLE = ("path", "reason", "detail")

logger = logging.getLogger("regraft.drift")


@dataclass(frozen=True)
class DriftReport:
    """What a look at new photos came to.

    reference: which photos were compared with, in words.
    level: chance of a false alarm, of all findings together, in (0, 1).
    min_photos: fewer are not judged.
    n_compared: photos in the tests; all of them, or MAX_COMPARED.
    n_copies: files left out as copies or near copies of another, or of its group. n_known: files
        left out because the model was trained or chosen on them.
    findings: empty if there were too few photos.
    shares: a row a class, as shares_table(); empty like the findings.
    photos: a row a distinct new photo that could be read, the least alike first: path, predicted,
        confidence, distance (see distances(): above 1 it is far).
    unusable: path, reason, detail of those that could not.
    """

    reference: str
    level: float
    min_photos: int
    n_compared: int
    n_copies: int
    findings: tuple[Finding, ...]
    shares: pd.DataFrame
    photos: pd.DataFrame
    unusable: pd.DataFrame
    n_known: int = 0

    @property
    def n_photos(self) -> int:
        """Distinct new photos that could be read."""
        return len(self.photos)

    @property
    def drifted(self) -> bool | None:
        """Whether the new photos are of another kind; None if too few to say."""
        return any(one.outcome == "drifted" for one in self.findings) if self.findings else None

    @property
    def p_value(self) -> float:
        """The smallest one after the correction, 1 if there is none."""
        tested = [one.corrected for one in self.findings if one.corrected is not None]
        return min(tested, default=1.0)

    @property
    def found(self) -> tuple[Finding, ...]:
        """The findings that say "drifted", the surest first."""
        drifted = [one for one in self.findings if one.outcome == "drifted"]
        return tuple(sorted(drifted, key=lambda one: one.corrected or 0.0))

    @property
    def reason(self) -> str:
        """One sentence."""
        if self.drifted is None:
            return (
                f"{self.n_photos} new photos say nothing about drift, it takes drift.min_photos="
                f"{self.min_photos}"
            )
        if not self.found:
            return f"{self.n_photos} new photos look like those that the model learned from"
        told = "; ".join(f"{one.name}: {one.said}" for one in self.found)
        return f"{self.n_photos} new photos are of another kind: {told}"

    def __str__(self) -> str:
        return f"drift: {self.reason} (p = {self.p_value:.2g}, level {self.level:g})"


def look(
    reference: Reference,
    classifier: ImageClassifier,
    photos: pd.DataFrame,
    config: Config,
    seed: int,
) -> DriftReport:
    """Whether the photos are of another kind than those that the classifier learned from.

    Nothing is decoded that the store at config.embed knows. Fewer than config.drift.min_photos are
    not judged.

    Args:
        photos: path, sha256, brightness, sharpness, width, height and "slice:NAME", as in the image
            table; labels are not needed and not used. See distinct() for what counts once.
        seed: of the permutations.
    """
    ordered = distinct(photos, config.split.near_duplicate_bits)
    way = passage(classifier, judging_compute(), max_pixels_of(classifier.card))
    found = find_rows(way, photos_of(ordered), config.embed)
    is_usable = ~ordered.sha256.isin(list(found.refused))
    usable = ordered[is_usable].reset_index(drop=True)
    probs = probabilities(head_scores(classifier, found.rows), classifier.card.temperature).numpy()
    seen = usable.assign(
        predicted=np.array(classifier.card.classes)[probs.argmax(axis=1)].astype(object),
        confidence=probs.max(axis=1, initial=0.0),
        distance=distances(reference.embeddings, found.rows),
    )
    report = DriftReport(
        reference=str(reference),
        level=config.drift.level,
        min_photos=config.drift.min_photos,
        n_compared=min(len(usable), MAX_COMPARED),
        n_copies=len(photos) - len(ordered),
        findings=(),
        shares=pd.DataFrame(columns=SHARES),
        photos=seen.sort_values("distance", ascending=False, ignore_index=True)[list(PHOTOS)],
        unusable=_unusable(ordered[~is_usable], found.refused),
    )
    if len(usable) >= config.drift.min_photos:
        shares = shares_table(probs, reference.errors, classifier.card.classes, seed)
        n = report.n_compared  # in the order of sha256, so these are drawn by no rule
        rows = found.rows.take(np.arange(n)).float().numpy()
        new = NewPhotos(rows, seen.head(n).assign(is_far=seen.distance.head(n) > 1), shares)
        tests = findings(reference, new, config.drift, seed)
        report = replace(report, findings=tests, shares=shares)
    logger.info("%s", report)
    return report


def _unusable(photos: pd.DataFrame, refused: Mapping[str, UnusablePhoto]) -> pd.DataFrame:
    errors = [refused[sha256] for sha256 in photos.sha256]
    rows = [(p, e.reason, e.detail) for p, e in zip(photos.path, errors, strict=True)]
    return pd.DataFrame(rows, columns=list(UNUSABLE), dtype=str)
