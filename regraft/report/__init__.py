"""The report page: one HTML file that a reviewer can act on, without network or script."""

from regraft.report.page import render
from regraft.report.verdict import (
    FlipView,
    GuardView,
    ScoreView,
    Standing,
    VerdictView,
    render_verdict,
)

__all__ = [
    "FlipView",
    "GuardView",
    "ScoreView",
    "Standing",
    "VerdictView",
    "render",
    "render_verdict",
]
