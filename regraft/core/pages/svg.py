"""Figures of matplotlib as SVG inside an HTML page, in the page's colours.

The colours are CSS variables of base.css, so a figure follows the light or dark scheme of the page.
The text stays text. The same input gives the same bytes: fixed hash salt, no date.
"""

import html
import re
from collections.abc import Callable, Mapping
from io import StringIO
from threading import Lock
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Drawn colour: CSS variable. The drawn colours only have to differ.
COLOURS = {
    "#010101": "--card",
    "#020202": "--ink",
    "#030303": "--muted",
    "#040404": "--line",
    "#050505": "--good",
    "#060606": "--bad",
    "#070707": "--warn",
    "#080808": "--quiet",
}
CARD, INK, MUTED, LINE, GOOD, BAD, WARN, QUIET = COLOURS
POINTS_PER_INCH = 72
_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 11,
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": LINE,
    "text.color": INK,
    "xtick.color": LINE,
    "xtick.labelcolor": MUTED,
    "ytick.color": LINE,
    "ytick.labelcolor": MUTED,
    "text.parse_math": False,
}
_LOCK = Lock()  # matplotlib's settings belong to the whole process


def escape_math(text: str) -> str:
    r"""Return a user's text so that matplotlib draws it as it is, and reads no formula from it.

    >>> escape_math("$x^{$ glass")
    '\\$x^{\\$ glass'
    """
    return text.replace("$", r"\$")


def render_svg(
    draw: Callable[["Figure"], Mapping[str, str]],
    width: float,
    height: float,
    label: str,
    key: str,
) -> str:
    """Return a figure as an SVG element that is as wide as its container.

    Args:
        draw: draws into the figure; returns {gid of an artist: text of its tooltip}.
        width, height: in points.
        label: alternative text of the figure.
        key: unique on the page; the ids of the SVG depend on it.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with _LOCK, matplotlib.rc_context({**_STYLE, "svg.hashsalt": key}):
        figure = Figure(figsize=(width / POINTS_PER_INCH, height / POINTS_PER_INCH))
        tooltips = draw(figure)
        buffer = StringIO()
        no_metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=no_metadata)
    _, _, content = buffer.getvalue().partition("<svg ")
    content = content.partition(">")[2]  # without the fixed size and the XML namespaces
    content = re.sub(r"<metadata>.*?</metadata>\s*", "", content, flags=re.DOTALL)
    content = re.sub(r"<style\b.*?</style>\s*", "", content, flags=re.DOTALL)  # for the whole page
    content = re.sub(r"<!--.*?-->\s*", "", content, flags=re.DOTALL)
    for drawn, variable in COLOURS.items():
        content = content.replace(drawn, f"var({variable})")
    for gid, tooltip in tooltips.items():
        title = f"<g><title>{html.escape(tooltip)}</title>"
        content = content.replace(f'<g id="{gid}">', title, 1)
    content = re.sub(r'<g id="[A-Za-z0-9_.]+">', "<g>", content)  # the same in each figure
    content = content.replace("'DejaVu Sans', sans-serif", "system-ui, sans-serif")
    content = content.replace("'DejaVu Sans'", "system-ui, sans-serif")
    head = (
        f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{html.escape(label)}" '
        'style="stroke-linejoin: round; stroke-linecap: butt">'
    )
    return f"{head}<title>{html.escape(label)}</title>{content}"
