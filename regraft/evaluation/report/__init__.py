"""The HTML pages of an evaluation, a verdict and a drift report, without network and scripts."""

from typing import TYPE_CHECKING

from regraft.core.lazy import lazy_exports

if TYPE_CHECKING:
    from regraft.evaluation.report.drift import (
        DistantPhotoView,
        DriftTestView,
        DriftView,
        render_drift,
    )
    from regraft.evaluation.report.page import render
    from regraft.evaluation.report.verdict import (
        FlipView,
        GuardView,
        ScoreView,
        VerdictView,
        render_verdict,
    )
else:
    __getattr__ = lazy_exports(
        __name__,
        {
            "drift": (
                "DistantPhotoView",
                "DriftTestView",
                "DriftView",
                "render_drift",
            ),
            "page": ("render",),
            "verdict": (
                "FlipView",
                "GuardView",
                "ScoreView",
                "VerdictView",
                "render_verdict",
            ),
        },
    )

__all__ = [
    "DistantPhotoView",
    "DriftTestView",
    "DriftView",
    "FlipView",
    "GuardView",
    "ScoreView",
    "VerdictView",
    "render",
    "render_drift",
    "render_verdict",
]
