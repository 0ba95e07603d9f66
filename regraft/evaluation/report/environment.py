"""The Jinja environment of the pages, with filters for numbers, paths and pictures."""

import base64
from pathlib import PurePath
from typing import Any

import pandas as pd
from jinja2 import Environment

from regraft.core import pages
from regraft.evaluation.report.numbers import UNDEFINED, bounds, percent, points


def environment(source: str, *packages: str) -> Environment:
    """Return a Jinja environment with the report's templates; inserted values are escaped.

    Args:
        source: the folder of the photos; paths below it are shown relative to it.
        packages: further packages with templates, highest priority first.
    """
    filters: pages.Filters = {
        "bounds": bounds,
        "data_uri": _data_uri,
        "percent": percent,
        "number": _number,
        "points": points,
        "rows": _rows,
        "short": lambda path: short_path(path, source),
    }
    return pages.environment((*packages, "regraft.evaluation.report"), filters)


def short_path(path: str, source: str) -> str:
    """Return the path relative to the source, or its last three parts if it is elsewhere.

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
