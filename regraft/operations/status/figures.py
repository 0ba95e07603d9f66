"""The figures of the page, drawn by matplotlib, which is imported late."""

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING

from regraft.core.outcomes import AttemptOutcome
from regraft.core.pages import count
from regraft.core.pages.svg import BAD, CARD, GOOD, INK, LINE, QUIET, WARN, render_svg
from regraft.operations.status.plots import Mark, Plot, Point, PointKind, TimeSpan

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDTH, _HEIGHT, _STRIP_HEIGHT = 360, 212, 84  # points
_MIN_P = 1e-4  # smaller p-values are drawn here
_BELOW = 3e-5  # place of a detection without a p-value, below the scale
# Of ticks at years, months, days, hours, minutes and seconds, and of the first tick of each such
# unit, which shows the next larger unit; see matplotlib's ConciseDateFormatter.
_DATE_FORMATS = ["%Y", "%b", "%d %b", "%H:%M", "%H:%M", "%S.%f"]
_FIRST_FORMATS = ["", "%Y", "%d %b", "%d %b", "%H:%M", "%H:%M"]
# (fill, edge, size in points) of each kind of point
_MARKERS: dict[PointKind, tuple[str, str, float]] = {
    "champion": (GOOD, CARD, 8),
    "challenger": (CARD, QUIET, 6),
    "count": (GOOD, CARD, 8),
    "stable": (CARD, QUIET, 6),
    "drifted": (BAD, CARD, 8),
}
# (colour, height in [0, 1], line width in points) of each outcome
_MARKS: dict[AttemptOutcome, tuple[str, float, float]] = {
    "promote": (GOOD, 1.0, 2.5),
    "failed": (BAD, 1.0, 2.5),
    "killed": (WARN, 1.0, 2.0),
    "pending": (WARN, 1.0, 2.0),
    "keep": (QUIET, 0.65, 1.5),
    "hold": (QUIET, 0.65, 1.5),
    "skip": (LINE, 0.4, 1.5),
    "postpone": (LINE, 0.4, 1.5),
}


def draw_accuracy(plot: Plot, span: TimeSpan, key: str) -> str:
    """Return the accuracy of every version over time as SVG; the champion's is a line.

    Args:
        key: unique on the page.
    """

    def draw(figure: "Figure") -> Mapping[str, str]:
        from matplotlib.ticker import MaxNLocator

        axes = _time_axes(figure, span)
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.6g} %")
        axes.set_ylabel("accuracy")
        for moment in plot.breaks:
            axes.axvline(_days(moment), color=WARN, linewidth=1, linestyle=(0, (3, 3)))
        _draw_line(axes, plot)
        for point in plot.points:
            if point.low is not None and point.high is not None:
                colour = GOOD if point.kind == "champion" else QUIET
                axes.vlines(_days(point.moment), point.low, point.high, colors=colour, alpha=0.5)
        tooltips = _draw_points(axes, plot.points)
        values = [v for p in plot.points for v in (p.low, p.value, p.high) if v is not None]
        margin = 0.08 * (max(values) - min(values)) or 0.05
        axes.set_ylim(min(values) - margin, min(1.0 + margin, max(values) + 2 * margin))
        return tooltips

    label = "Accuracy of every version on the test photos over time; the line is the champion."
    return render_svg(draw, _WIDTH, _HEIGHT, label, f"{key}-accuracy")


def draw_photos(plot: Plot, span: TimeSpan, key: str) -> str:
    """Return the number of photos over time as SVG.

    Args:
        key: unique on the page.
    """

    def draw(figure: "Figure") -> Mapping[str, str]:
        from matplotlib.ticker import MaxNLocator

        axes = _time_axes(figure, span)
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.yaxis.set_major_formatter(lambda value, _: count(round(value)))
        axes.set_ylabel("photos")
        _draw_line(axes, plot)
        times, values = _line_of(plot)
        axes.fill_between(times, values, step="post", color=GOOD, alpha=0.12, linewidth=0)
        tooltips = _draw_points(axes, plot.points)
        axes.set_ylim(0, 1.15 * max(values))
        return tooltips

    label = "Number of photos in all splits over time."
    return render_svg(draw, _WIDTH, _HEIGHT, label, f"{key}-photos")


def draw_drift(plot: Plot, span: TimeSpan, key: str) -> str:
    """Return the p-values of the drift tests over time as SVG.

    Args:
        key: unique on the page.
    """

    def draw(figure: "Figure") -> Mapping[str, str]:
        from matplotlib.ticker import NullLocator

        axes = _time_axes(figure, span)
        axes.set_yscale("log")
        axes.set_ylim(_BELOW / 1.6, 1.6)
        axes.set_yticks([_MIN_P, 1e-3, 1e-2, 1e-1, 1], ["≤ 0.0001", "0.001", "0.01", "0.1", "1"])
        axes.yaxis.set_minor_locator(NullLocator())
        axes.set_ylabel("p-value")
        return _draw_points(axes, plot.points)

    label = "P-values of the drift tests of new photos over time."
    return render_svg(draw, _WIDTH, _HEIGHT, label, f"{key}-drift")


def draw_retrainings(marks: tuple[Mark, ...], span: TimeSpan, key: str) -> str:
    """Return the outcome of every retraining over time as SVG.

    Args:
        key: unique on the page.
    """

    def draw(figure: "Figure") -> Mapping[str, str]:
        axes = _time_axes(figure, span, bottom=0.5)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.set_ylim(0, 1)
        tooltips = {}
        for number, mark in enumerate(marks):
            colour, height, width = _MARKS[mark.outcome]
            gid = f"mark{number}"
            axes.plot(
                [_days(mark.moment), _days(mark.moment)],
                [0, height],
                color=colour,
                linewidth=width,
                solid_capstyle="butt",
                gid=gid,
            )
            tooltips[gid] = mark.caption
        return tooltips

    label = "Outcome of every retraining over time."
    return render_svg(draw, _WIDTH, _STRIP_HEIGHT, label, f"{key}-retrainings")


def _time_axes(figure: "Figure", span: TimeSpan, bottom: float = 0.2) -> "Axes":
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    axes = figure.add_axes((0.2, bottom, 0.765, 0.95 - bottom))
    locator = AutoDateLocator(minticks=3, maxticks=6)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(
        ConciseDateFormatter(
            locator, formats=_DATE_FORMATS, zero_formats=_FIRST_FORMATS, show_offset=False
        )
    )
    first, last = _days(span.first), _days(span.last)
    pad = 0.02 * (last - first)
    axes.set_xlim(first - pad, last + pad)
    axes.set_xlabel("date (UTC)")
    axes.yaxis.set_label_coords(-0.225, 0.5)  # the same place in all figures
    return axes


def _draw_line(axes: "Axes", plot: Plot) -> None:
    if plot.line:
        times, values = _line_of(plot)
        axes.step(times, values, where="post", color=GOOD, linewidth=2)


def _draw_points(axes: "Axes", points: tuple[Point, ...]) -> Mapping[str, str]:
    """Draw the points and return their tooltips, by gid."""
    tooltips = {}
    for number, point in enumerate(points):
        fill, edge, size = _MARKERS[point.kind]
        value = _BELOW if point.value is None else point.value
        if axes.get_yscale() == "log" and point.value is not None:
            value = max(value, _MIN_P)
        gid = f"point{number}"
        axes.plot(
            _days(point.moment),
            value,
            marker="o",
            markersize=size,
            markerfacecolor=fill,
            markeredgecolor=edge,
            clip_on=False,
            gid=gid,
        )
        tooltips[gid] = point.caption
        if point.label:
            top = value if point.high is None else point.high
            axes.annotate(
                point.label,
                (_days(point.moment), top),
                xytext=(0, 5),
                textcoords="offset points",
                ha="center",
                va="bottom",
                fontsize=11,
                fontweight="bold",
                color=INK,
            )
    return tooltips


def _line_of(plot: Plot) -> tuple[list[float], list[float]]:
    return [_days(moment) for moment, _ in plot.line], [value for _, value in plot.line]


def _days(moment: datetime) -> float:
    """Return a time in the unit of matplotlib's date axes: days since 1970, UTC."""
    return moment.timestamp() / 86_400
