"""The report page: one HTML file that a reviewer can act on, without network or script."""

from regraft.evaluation.report.drift import DriftView, FindingView, StrangeView, render_drift
from regraft.evaluation.report.page import render
from regraft.evaluation.report.verdict import (
    FlipView,
    GuardView,
    ScoreView,
    Standing,
    VerdictView,
    render_verdict,
)

__all__ = [
    "DriftView",
    "FindingView",
    "FlipView",
    "GuardView",
    "ScoreView",
    "Standing",
    "StrangeView",
    "VerdictView",
    "render",
    "render_drift",
    "render_verdict",
]
