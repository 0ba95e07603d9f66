"""The report as one self-contained HTML page."""

import base64
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined

from regraft.evaluate import EvaluationReport
from regraft.report.findings import (
    UNDEFINED,
    bounds,
    confused_pairs,
    findings,
    percent,
    points,
)
from regraft.report.matrix import matrix
from regraft.report.plots import learning_curves, reliability_bars

MAX_ROWS = 50  # of a list of files; the rest is counted, and whole in the run's artifacts

SECTIONS = (
    ("first", "Look first"),
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


@dataclass(frozen=True)
class VerdictView:
    """Promoted or not, why, and the numbers behind it as (name, value) texts."""

    promote: bool
    reason: str
    rows: tuple[tuple[str, str], ...] = ()


def render(report: EvaluationReport, title: str, verdict: VerdictView | None = None) -> str:
    """The page as HTML text: styles, plots and photos inside, no script, no request.

    Args:
        report: all that is shown; names from outside (classes, paths, reasons) are escaped.
        title: of the page, for instance the model's name.
        verdict: the promotion's outcome, None before there is one.
    """
    context = {
        "report": report,
        "title": title,
        "verdict": verdict,
        "findings": findings(report),
        "matrix": matrix(report),
        "pairs": confused_pairs(report),
        "curves": learning_curves(report.history),
        "bars": reliability_bars(report.reliability),
        "pictures": dict(zip(report.gallery.path, report.gallery.jpeg, strict=True)),
        "sections": [item for item in SECTIONS if item[0] != "slices" or len(report.slices)],
        "max_rows": MAX_ROWS,
    }
    return _environment(report.facts.get("source", "")).get_template("page.html").render(context)


def _environment(source: str) -> Environment:
    environment = Environment(
        loader=PackageLoader("regraft.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "bounds": bounds,
        "count": lambda n: f"{n:,}".replace(",", "\N{NARROW NO-BREAK SPACE}"),
        "data_uri": _data_uri,
        "percent": percent,
        "number": _number,
        "points": points,
        "rows": _rows,
        "short": lambda path: short_path(path, source),
    }
    return environment


def short_path(path: str, source: str) -> str:
    """The path below the source, or its last three parts if it lies elsewhere.

    >>> short_path("/photos/cat/1.jpg", "/photos"), short_path("/a/b/c/d.jpg", "list.csv")
    ('cat/1.jpg', 'b/c/d.jpg')
    """
    folder = source.rstrip("/") + "/"
    return path.removeprefix(folder) if path.startswith(folder) else "/".join(_tail(path))


def _tail(path: str) -> tuple[str, ...]:
    return tuple(part for part in PurePath(path).parts[-3:] if part != "/")


def _data_uri(jpeg: bytes) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()


def _number(value: float, digits: int = 3) -> str:
    return UNDEFINED if pd.isna(value) else f"{value:.{digits}f}"


def _rows(table: pd.DataFrame) -> list[dict[Any, Any]]:
    return table.to_dict("records")
