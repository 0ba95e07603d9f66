"""The race and the volume as one picture."""

import statistics
from pathlib import Path

from matplotlib.figure import Figure

from tests.bench.measure import Row


def draw(rows: list[Row], path: Path) -> None:
    """Training seconds a competitor (logarithmic), and whole seconds and memory against N."""
    figure = Figure(figsize=(11, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    _race([row for row in rows if row["bench"] == "race"], left)
    _volume(sorted((r for r in rows if r["bench"] == "volume"), key=lambda r: r["n"]), right)
    figure.savefig(path)


def _race(rows: list[Row], axes) -> None:
    names = list(dict.fromkeys((row["policy"], row["who"]) for row in rows))
    for at, (policy, who) in enumerate(names):
        mine = [r for r in rows if (r["policy"], r["who"]) == (policy, who)]
        seconds = [float(row["training_s"]) for row in mine]
        axes.barh(at, statistics.median(seconds), color="C2" if who == "regraft" else "0.7")
        axes.plot(seconds, [at] * len(seconds), "k|")
    axes.set_yticks(range(len(names)), [" ".join(name) for name in names])
    axes.invert_yaxis()
    if rows:
        axes.set_xscale("log")
    axes.set_xlabel("training seconds (median; bars: runs)")


def _volume(rows: list[Row], axes) -> None:
    sizes = [row["n"] for row in rows]
    axes.plot(sizes, [row["whole_s"] for row in rows], "o-", label="whole process, s")
    axes.plot(sizes, [row["peak_mb"] for row in rows], "s--", label="peak memory, MB")
    if rows:
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.legend()
    axes.set_xlabel("photos")
