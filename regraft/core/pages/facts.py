"""Facts about a result as text, and as a small HTML table for notebooks."""

from collections.abc import Mapping
from html import escape

from regraft.core.intervals import Interval


def facts_html(facts: Mapping[str, str]) -> str:
    """Return a table with a row a fact; names and values are escaped."""
    rows = (
        f'<tr><th style="text-align:left">{escape(name)}</th>'
        f'<td style="text-align:left">{escape(value)}</td></tr>'
        for name, value in facts.items()
    )
    return f"<table>{''.join(rows)}</table>"


def format_version(version: int | None) -> str:
    """Return the version as text: "v3", or "none"."""
    return "none" if version is None else f"v{version}"


def format_interval(interval: Interval) -> str:
    """Return a share with its bounds in percent.

    >>> format_interval(Interval(0.85, 0.8, 0.9))
    '85.0% [80.0%, 90.0%]'
    """
    return f"{interval.value:.1%} [{interval.low:.1%}, {interval.high:.1%}]"
