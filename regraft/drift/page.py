"""The HTML page of a drift report."""

import math
from collections.abc import Hashable
from typing import Any

from regraft.core.errors import UnusablePhoto
from regraft.core.outcomes import DriftOutcome
from regraft.drift.detect import DriftReport
from regraft.evaluation.evaluate.gallery import thumbnail
from regraft.evaluation.report import DistantPhotoView, DriftTestView, DriftView, render_drift

_OUTCOMES: dict[bool | None, DriftOutcome] = {
    None: "inconclusive",
    True: "drifted",
    False: "stable",
}


def render_drift_page(
    report: DriftReport, title: str, photos: str, n_gallery: int, facts: tuple[tuple[str, str], ...]
) -> str:
    """Return the page as HTML text; the pictures are read from the paths of the photos.

    Args:
        title: the model's name and version.
        photos: the place that the user named.
        n_gallery: number of photos shown, the most distant first.
        facts: (name, value), shown before the facts of the report.
    """
    return render_drift(_view(report, photos, n_gallery, facts), title)


def _view(
    report: DriftReport, photos: str, n_gallery: int, facts: tuple[tuple[str, str], ...]
) -> DriftView:
    ordered = sorted(
        report.tests, key=lambda test: math.inf if test.corrected is None else test.corrected
    )
    change = (report.shares.estimated - report.shares.training).abs().astype(float)
    shares = report.shares.loc[change.sort_values(ascending=False, kind="stable").index]
    return DriftView(
        outcome=_OUTCOMES[report.drifted],
        reason=_with_arrows(f"{report.reason[0].upper()}{report.reason[1:]}."),
        photos=photos,
        level=report.level,
        facts=(*facts, *_facts(report)),
        tests=tuple(
            DriftTestView(
                test.name,
                test.outcome,
                _with_arrows(test.effect),
                _number(test.p_value),
                _number(test.corrected),
            )
            for test in ordered
        ),
        shares=shares.reset_index(drop=True),
        most_distant=tuple(
            _photo_view(row) for row in report.photos.head(n_gallery).to_dict("records")
        ),
        n_photos=report.n_photos,
        n_far=int((report.photos.distance > 1).sum()),
        unusable=report.unusable,
    )


def _facts(report: DriftReport) -> tuple[tuple[str, str], ...]:
    counts = [f"{report.n_photos} distinct photos"]
    if report.n_compared < report.n_photos:
        counts.append(f"{report.n_compared} of them in the tests")
    if report.n_known:
        counts.append(f"{report.n_known} known to the model left out")
    if report.n_copies:
        counts.append(f"{report.n_copies} copies and near copies left out")
    if len(report.unusable):
        counts.append(f"{len(report.unusable)} unreadable")
    return ("New photos", ", ".join(counts)), ("Compared with", report.reference)


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _photo_view(row: dict[Hashable, Any]) -> DistantPhotoView:
    try:
        jpeg = thumbnail(row["path"])
    except UnusablePhoto:  # deleted since it was read: the page still shows its path
        jpeg = b""
    return DistantPhotoView(row["path"], row["predicted"], row["confidence"], row["distance"], jpeg)


def _with_arrows(text: str) -> str:
    return text.replace("->", "\N{RIGHTWARDS ARROW}")
