"""A look on paper: the page that is written for the reader."""

import math
from collections.abc import Hashable
from typing import Any

from regraft.core.errors import UnusablePhoto
from regraft.drift.look import DriftReport
from regraft.evaluation.evaluate.gallery import thumbnail
from regraft.evaluation.report import DriftView, FindingView, StrangeView, render_drift
from regraft.evaluation.report.drift import Answer

_ANSWERS: dict[bool | None, Answer] = {None: "open", True: "drifted", False: "quiet"}


def render_look(
    report: DriftReport, title: str, photos: str, n_gallery: int, facts: tuple[tuple[str, str], ...]
) -> str:
    """The page as HTML text; the pictures are read now, from where the photos lie.

    Args:
        title: the model's name and version.
        photos: what the user named.
        n_gallery: photos shown, the least alike first.
        facts: (what, said), shown before those of the report.
    """
    return render_drift(_view(report, photos, n_gallery, facts), title)


def _view(
    report: DriftReport, photos: str, n_gallery: int, facts: tuple[tuple[str, str], ...]
) -> DriftView:
    untested = math.inf
    ordered = sorted(
        report.findings, key=lambda one: untested if one.corrected is None else one.corrected
    )
    moved = (report.shares.estimated - report.shares.training).abs().astype(float)
    shares = report.shares.loc[moved.sort_values(ascending=False, kind="stable").index]
    return DriftView(
        answer=_ANSWERS[report.drifted],
        reason=_arrows(f"{report.reason[0].upper()}{report.reason[1:]}."),
        photos=photos,
        level=report.level,
        facts=(*facts, *_facts(report)),
        findings=tuple(
            FindingView(
                one.name,
                one.outcome,
                _arrows(one.said),
                _number(one.p_value),
                _number(one.corrected),
            )
            for one in ordered
        ),
        shares=shares.reset_index(drop=True),
        strange=tuple(_shown(row) for row in report.photos.head(n_gallery).to_dict("records")),
        n_photos=report.n_photos,
        n_far=int((report.photos.distance > 1).sum()),
        unusable=report.unusable,
    )


def _facts(report: DriftReport) -> tuple[tuple[str, str], ...]:
    counts = [f"{report.n_photos} distinct photos"]
    if report.n_compared < report.n_photos:
        counts.append(f"{report.n_compared} of them in the tests")
    if report.n_known:
        counts.append(f"{report.n_known} that the model knows left out")
    if report.n_copies:
        counts.append(f"{report.n_copies} copies and near copies left out")
    if len(report.unusable):
        counts.append(f"{len(report.unusable)} could not be read")
    return ("Looked at", ", ".join(counts)), ("Compared with", report.reference)


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _shown(row: dict[Hashable, Any]) -> StrangeView:
    try:
        jpeg = thumbnail(row["path"])
    except UnusablePhoto:  # gone since it was looked at: its name still says which it was
        jpeg = b""
    return StrangeView(row["path"], row["predicted"], row["confidence"], row["distance"], jpeg)


def _arrows(said: str) -> str:
    return said.replace("->", "\N{RIGHTWARDS ARROW}")
