"""Plots for the artifacts of a run, drawn without a display and without pyplot's global state."""

import numpy as np
from matplotlib.figure import Figure

from regraft.core.pages.svg import escape_math
from regraft.evaluation.evaluate import EvaluationReport


def confusion_plot(report: EvaluationReport) -> Figure:
    """Return the confusion matrix: rows are labels, columns predictions, colour the row share."""
    names = list(report.classes)
    table = report.confusion.pivot(index="label", columns="predicted", values="n")
    counts = table.reindex(index=names, columns=names).fillna(0).to_numpy(dtype=float)  # (K, K)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    size = 2.5 + 0.35 * len(names)
    figure = Figure(figsize=(size, size), layout="constrained")
    axes = figure.add_subplot(xlabel="predicted", ylabel="label")
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    texts = [escape_math(name) for name in names]
    axes.set_xticks(range(len(names)), texts, rotation=90)
    axes.set_yticks(range(len(names)), texts)
    return figure


def reliability_plot(report: EvaluationReport) -> Figure:
    """Return accuracy over confidence, a point for each bin that contains photos."""
    figure = Figure(figsize=(4, 4), layout="constrained")
    axes = figure.add_subplot(xlabel="confidence", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1))
    axes.plot([0, 1], [0, 1], color="grey", linestyle=":")
    filled = report.reliability[report.reliability.n > 0]
    axes.plot(filled.confidence, filled.accuracy, marker="o")
    return figure


def history_plot(report: EvaluationReport) -> Figure:
    """Return the loss over the epochs, two lines for each phase."""
    figure = Figure(figsize=(6, 3), layout="constrained")
    axes = figure.add_subplot(xlabel="epoch (in phase head: candidate penalty)", ylabel="loss")
    for phase, epochs in report.history.groupby("phase", sort=False):
        axes.plot(
            epochs.epoch, epochs.train_loss, marker=".", linestyle=":", label=f"{phase} train"
        )
        axes.plot(epochs.epoch, epochs.validation_loss, marker=".", label=f"{phase} validation")
    if not report.history.empty:
        axes.legend()
    return figure
