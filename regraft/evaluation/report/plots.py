"""Positions of the lines, bars and ticks of the plots, in the units of an SVG viewBox."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from regraft.evaluation.report.numbers import percent

WIDTH, HEIGHT = 360, 230
LEFT, RIGHT, TOP, BOTTOM = 44, 348, 12, 190
N_STEPS = 200  # of the coverage-risk curve: more would be closer than a pixel
MIN_ANSWERED = 10  # guess: with fewer photos, the share of wrong answers is too noisy
MIN_SHARE_RANGE = 0.04  # four ticks of a whole percent each: closer ticks would have equal labels
MAX_X_TICKS = 8  # labels of epochs; more would overlap on a phone


@dataclass(frozen=True)
class Tick:
    """A position on an axis and its label."""

    at: float
    label: str


@dataclass(frozen=True)
class Series:
    """A line: its name and its (x, y) points; a missing value has no point."""

    name: str
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class LinePlot:
    """A line a series over numbered or named positions; best: the x of the selected position."""

    title: str
    x_title: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    series: tuple[Series, ...]
    best: float


@dataclass(frozen=True)
class Bar:
    """A bin of the reliability diagram: a bar of the accuracy, and below a bar of the photos."""

    x: float
    width: float
    top: float
    dot: tuple[float, float]
    n_height: float
    caption: str


@dataclass(frozen=True)
class CoverageCurve:
    """The share of wrong answers over the share of answered photos; dots: the table's rows."""

    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    points: tuple[tuple[float, float], ...]
    dots: tuple[tuple[float, float], ...]


def learning_curves(history: pd.DataFrame) -> tuple[LinePlot, ...]:
    """Return loss and accuracy over the epochs of the thawed part, or over the head's penalties.

    With a single row there is no curve, so nothing is returned.
    """
    tuned = history[history.phase == "tune"]
    rows = tuned if len(tuned) else history[history.phase == "head"]
    if len(rows) < 2:
        return ()
    if len(tuned):
        x_title, labels = "epoch", [str(epoch) for epoch in rows.epoch]
    else:
        x_title, labels = "L2 penalty of the head", [f"{l2:g}" for l2 in rows.l2]
    best = int(np.argmin(rows.validation_loss.to_numpy()))
    return tuple(
        _line_plot((title, x_title), labels, rows, (f"train_{name}", f"validation_{name}"), best)
        for title, name in (("Loss", "loss"), ("Accuracy", "accuracy"))
    )


def _line_plot(
    titles: tuple[str, str],
    labels: Sequence[str],
    rows: pd.DataFrame,
    columns: tuple[str, str],
    best: int,
) -> LinePlot:
    values = rows[list(columns)].to_numpy(dtype=float)  # (epochs, 2)
    is_share = titles[0] == "Accuracy"
    locator = MaxNLocator(4, steps=[1, 2, 5, 10])  # these steps always include 1, the largest share
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    low = min(low, high - MIN_SHARE_RANGE) if is_share else low
    ticks = np.asarray(locator.tick_values(low, high))
    ticks = ticks[ticks < 1.0001] if is_share else ticks
    x = np.linspace(LEFT + 8, RIGHT - 8, len(labels))
    step = -(-len(labels) // MAX_X_TICKS)
    n_decimals = max(0, -math.floor(math.log10(ticks[1] - ticks[0]) + 1e-9))
    label = _percent if is_share else f"{{:.{n_decimals}f}}".format
    return LinePlot(
        title=titles[0],
        x_title=titles[1],
        x_ticks=tuple(Tick(x[at], labels[at]) for at in range(0, len(labels), step)),
        y_ticks=tuple(Tick(_y(tick, ticks), label(tick)) for tick in ticks),
        series=tuple(
            Series(name, _points(x, values[:, at], ticks))
            for at, name in enumerate(("train", "validation"))
        ),
        best=float(x[best]),
    )


def _percent(share: float) -> str:
    return percent(share, 0)


def _y(value: float, ticks: NDArray[np.float64]) -> float:
    return float(np.interp(value, (ticks[0], ticks[-1]), (BOTTOM, TOP)))


def _points(
    x: NDArray[np.float64], values: NDArray[np.float64], ticks: NDArray[np.float64]
) -> tuple[tuple[float, float], ...]:
    return tuple(
        (float(at), _y(value, ticks))
        for at, value in zip(x, values, strict=True)
        if np.isfinite(value)
    )


def reliability_bars(reliability: pd.DataFrame) -> tuple[Bar, ...]:
    """Return a bar for each bin with photos; the plot is 100 units wide and high."""
    filled = reliability[reliability.n > 0]
    return tuple(
        Bar(
            x=100 * row["low"],
            width=100 * (row["high"] - row["low"]),
            top=100 * (1 - row["accuracy"]),
            dot=(100 * row["confidence"], 100 * (1 - row["accuracy"])),
            n_height=16 * row["n"] / filled.n.max(),
            caption=f"confidence {row['low']:.2f} to {row['high']:.2f}: {row['n']} photos, "
            f"mean confidence {row['confidence']:.3f}, accuracy {row['accuracy']:.3f}",
        )
        for row in filled.to_dict("records")
    )


def coverage_curve(coverage: pd.DataFrame, marked: pd.DataFrame) -> CoverageCurve:
    """Return the curve for at least MIN_ANSWERED answered photos, in N_STEPS steps at most.

    Args:
        coverage: from coverage_table(), not empty.
        marked: rows of coverage_at(), drawn as dots; rows without an answer are left out.
    """
    drawn = coverage[coverage.n >= min(MIN_ANSWERED, coverage.n.max())]
    step = np.ceil(drawn.coverage * N_STEPS)
    drawn = drawn[step != step.shift(-1)]  # the last of each step, so the end is included
    locator = MaxNLocator(4, steps=[1, 2, 5, 10])
    ticks = np.asarray(locator.tick_values(0.0, max(float(drawn.risk.max()), 0.01)))
    label = _percent if ticks[1] - ticks[0] > 0.0099 else percent
    dots = marked[marked.n >= drawn.n.min()]
    return CoverageCurve(
        x_ticks=tuple(Tick(_x(share), _percent(share)) for share in (0, 0.25, 0.5, 0.75, 1)),
        y_ticks=tuple(Tick(_y(tick, ticks), label(tick)) for tick in ticks if tick < 1.0001),
        points=tuple((_x(row.coverage), _y(row.risk, ticks)) for row in drawn.itertuples()),
        dots=tuple((_x(row.coverage), _y(row.risk, ticks)) for row in dots.itertuples()),
    )


def _x(share: float) -> float:
    return float(np.interp(share, (0, 1), (LEFT + 8, RIGHT - 8)))
