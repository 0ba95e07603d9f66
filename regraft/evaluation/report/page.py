"""The evaluation report as a self-contained HTML page."""

from regraft.evaluation.evaluate import EvaluationReport, coverage_at
from regraft.evaluation.report.environment import environment
from regraft.evaluation.report.findings import confused_pairs, findings, format_label_precision
from regraft.evaluation.report.matrix import matrix
from regraft.evaluation.report.plots import coverage_curve, learning_curves, reliability_bars
from regraft.evaluation.report.verdict import VerdictView

MAX_ROWS = 50  # of a list of files; the whole list is in the run's artifacts
TARGET_RISKS = (0.01, 0.02, 0.05, 0.1)  # guess: useful limits of the share of wrong answers

SECTIONS = (
    ("first", "Findings"),
    ("mistakes", "Mistakes"),
    ("labels", "Labels"),
    ("confusion", "Confusion"),
    ("classes", "Classes"),
    ("slices", "Slices"),
    ("calibration", "Calibration"),
    ("curves", "Learning"),
    ("leaks", "Leaks"),
    ("quarantine", "Quarantine"),
    ("freeze", "Freezing"),
    ("origin", "Origin"),
)


def render(report: EvaluationReport, title: str, verdict: VerdictView | None = None) -> str:
    """Return the page as HTML text, with styles, plots and photos, without scripts and requests.

    Args:
        report: names from outside (classes, paths, reasons) are escaped.
        title: of the page, for instance the model's name.
        verdict: of the promotion, None if there is none yet.
    """
    answered = coverage_at(report.coverage, TARGET_RISKS, report.interval_level)
    context = {
        "report": report,
        "title": title,
        "verdict": verdict,
        "findings": findings(report),
        "label_precision": format_label_precision(report),
        "matrix": matrix(report),
        "pairs": confused_pairs(report),
        "curves": learning_curves(report.history),
        "bars": reliability_bars(report.reliability),
        "answered": answered,
        "coverage": coverage_curve(report.coverage, answered),
        "pictures": dict(zip(report.gallery.path, report.gallery.jpeg, strict=True)),
        "sections": [
            (anchor, name) for anchor, name in SECTIONS if anchor != "slices" or len(report.slices)
        ],
        "max_rows": MAX_ROWS,
    }
    return environment(report.facts.get("source", "")).get_template("page.html").render(context)
