"""The comparison as a figure: accuracy against milliseconds."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from regraft.core.pages.svg import escape_math
from regraft.evaluation.compare.candidate import short_name
from regraft.evaluation.compare.comparison import Comparison


def plot(comparison: Comparison) -> Figure:
    """Return a figure of each backbone's probe accuracy against its milliseconds a photo.

    The bars are the 95 % interval and the quartiles. Backbones on the Pareto front are filled and
    joined by a line; the chosen backbone has a ring.
    """
    table = comparison.table[comparison.table["error"] == ""].sort_values("ms")
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot(
        xlabel="milliseconds a photo (fp32, forward pass; bars: quartiles)",
        ylabel=f"probe accuracy ({comparison.n_photos} photos; bars: 95 %)",
        xscale="log",
        title=f"chosen: {escape_math(short_name(comparison.chosen))}",
    )
    front = table[table["on_front"].astype(bool)]
    axes.plot(front["ms"], front["probe"], color="tab:blue", linestyle="--", linewidth=1)
    for row in table.to_dict("records"):
        x, y = row["ms"], row["probe"]
        bars = [[[x - row["ms_low"]], [row["ms_high"] - x]]]
        bars += [[[y - row["probe_low"]], [row["probe_high"] - y]]]
        inside = "tab:blue" if row["on_front"] else "white"
        axes.errorbar(x, y, np.array(bars[1]), np.array(bars[0]), "o", color="tab:blue", mfc=inside)
        if row["is_chosen"]:
            axes.plot(x, y, "o", color="tab:red", mfc="none", markersize=16)
        name = escape_math(short_name(row["source"]))
        axes.annotate(name, (x, y), (8, 8), textcoords="offset points", fontsize=8)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("{x:g}")
    axes.margins(x=0.4, y=0.15)
    return figure
