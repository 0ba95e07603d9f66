"""The report page: one HTML file that a reviewer can act on, without network or script."""

from regraft.report.page import VerdictView, render

__all__ = ["VerdictView", "render"]
