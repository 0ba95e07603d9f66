"""The most important findings of a report, as sentences."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import pandas as pd
from markupsafe import Markup

from regraft.core.intervals import Interval
from regraft.core.text import format_count
from regraft.evaluation.evaluate import EvaluationReport
from regraft.evaluation.evaluate.label_errors import ASSUMED_RATE
from regraft.evaluation.report.numbers import bounds, percent, points

Tone = Literal["bad", "warn", "good"]


@dataclass(frozen=True)
class Finding:
    """A sentence with escaped names, the section with the details, and the severity."""

    tone: Tone
    section: str
    text: Markup


def findings(report: EvaluationReport) -> tuple[Finding, ...]:
    """Return the findings, those that question the numbers themselves first."""
    parts = (
        _baseline,
        _transfer,
        _leaks,
        _label_errors,
        _classes,
        _pair,
        _slices,
        _quarantine,
        _calibration,
        _notes,
    )
    return tuple(finding for part in parts for finding in part(report))


def confused_pairs(report: EvaluationReport) -> pd.DataFrame:
    """Return label, predicted and n of the mistakes, the most frequent first."""
    table = report.confusion
    wrong = table[table.label != table.predicted]
    return wrong.sort_values("n", ascending=False, kind="stable", ignore_index=True)


def _baseline(report: EvaluationReport) -> Iterator[Finding]:
    if report.accuracy.low <= report.baseline.high:
        text = Markup(
            "Not shown to be better than always predicting <b>{}</b>: the intervals {} and {} "
            "overlap."
        ).format(report.baseline_label, _bounds(report.accuracy), _bounds(report.baseline))
        yield Finding("bad", "headline", text)


def _transfer(report: EvaluationReport) -> Iterator[Finding]:
    transfer = report.transfer
    gain = Markup("{} points, 95\N{NO-BREAK SPACE}% interval {} to {}, on {} test photos").format(
        *map(points, (transfer.gain, transfer.gain_low, transfer.gain_high)), transfer.n_test
    )
    if transfer.is_negative:
        text = Markup(
            "<b>Negative transfer</b>: the pretrained weights are worse here than random weights "
            "({}). Choose a backbone whose source task is more similar to these photos."
        )
        yield Finding("bad", "headline", text.format(gain))
    elif transfer.is_unproven:
        text = Markup("The pretrained weights are not shown to be better than random weights ({}).")
        yield Finding("warn", "headline", text.format(gain))


def _leaks(report: EvaluationReport) -> Iterator[Finding]:
    n = len(report.leaks)
    if n:
        text = Markup(
            "<b>{}</b>: copies, near copies or photos of a group were in two splits ({})."
        ).format(format_count(n, "leak"), _counted(report.leaks.action))
        yield Finding("warn", "leaks", text)


def _label_errors(report: EvaluationReport) -> Iterator[Finding]:
    n = len(report.label_errors)
    if n:
        n_test = int((report.label_errors.split == "test").sum())
        text = Markup(
            "<b>{} to check</b> in test and validation, {} of them in test: wrong labels lower the "
            "measured accuracy. {}"
        ).format(format_count(n, "label"), n_test, format_label_precision(report))
        yield Finding("warn", "labels", text)


def format_label_precision(report: EvaluationReport) -> str:
    """Return how many of the listed label errors to expect, and from what; "" without any."""
    if report.label_errors.empty:
        return ""
    share = report.label_errors.expected_precision.iloc[-1]
    return (
        f"About {percent(share, 0)} of them are wrong if {percent(ASSUMED_RATE)} of all labels "
        "are, estimated from the rank that a random wrong label of each photo would have."
    )


def _classes(report: EvaluationReport) -> Iterator[Finding]:
    seen = report.per_class[report.per_class.n > 0]
    weakest = seen.iloc[int(seen.recall.argmin())]
    if weakest.recall < 1:
        n_correct = round(weakest.recall * weakest.n)
        text = Markup("Weakest class: <b>{}</b>, {} of {} photos correct ({}), {}.").format(
            weakest.label,
            n_correct,
            weakest.n,
            bounds(weakest.recall_low, weakest.recall_high, 0),
            format_count(weakest.n_train, "training photo"),
        )
        yield Finding("warn", "classes", text)
    unpredicted = seen[seen.precision.isna()]
    if len(unpredicted):
        text = Markup("Never predicted: <b>{}</b>.").format(", ".join(unpredicted.label))
        yield Finding("bad", "classes", text)


def _pair(report: EvaluationReport) -> Iterator[Finding]:
    pairs = confused_pairs(report)
    if len(pairs):
        worst = pairs.iloc[0]
        reverse = pairs[(pairs.label == worst.predicted) & (pairs.predicted == worst.label)]
        text = Markup("Most confused: <b>{}</b> predicted as <b>{}</b> {}, the reverse {}.").format(
            worst.label, worst.predicted, _times(worst.n), _times(reverse.n.sum())
        )
        yield Finding("warn", "confusion", text)
    else:
        yield Finding("good", "confusion", Markup("Every test photo was predicted correctly."))


def _slices(report: EvaluationReport) -> Iterator[Finding]:
    behind = report.slices[report.slices.high < report.accuracy.value]
    if len(behind):
        worst = behind.iloc[int(behind.accuracy.argmin())]
        text = Markup("Significantly worse if {} is <b>{}</b>: {} on {}.").format(
            worst.column, worst.value, percent(worst.accuracy), format_count(worst.n, "photo")
        )
        yield Finding("bad", "slices", text)


def _quarantine(report: EvaluationReport) -> Iterator[Finding]:
    n = len(report.quarantine)
    if n:
        text = Markup("<b>{}</b> in quarantine, not used: {}.").format(
            format_count(n, "file"), _counted(report.quarantine.reason)
        )
        yield Finding("warn", "quarantine", text)


def _calibration(report: EvaluationReport) -> Iterator[Finding]:
    if report.temperature == 1.0:
        text = Markup(
            "The confidence is not calibrated, because no temperature could be fitted. "
            "Calibration error: {}."
        )
        yield Finding("warn", "calibration", text.format(percent(report.ece_after)))
        return
    better = report.ece_after <= report.ece_before
    text = Markup(
        "Calibration error: <b>{}</b> ({} before the temperature {:.2f}, which was fitted on "
        "validation)."
    ).format(percent(report.ece_after), percent(report.ece_before), report.temperature)
    yield Finding("good" if better else "warn", "calibration", text)


def _notes(report: EvaluationReport) -> Iterator[Finding]:
    for note in report.notes:
        yield Finding("warn", "origin", Markup("{}").format(note))


def _bounds(share: Interval) -> str:
    return bounds(share.low, share.high)


def _counted(values: "pd.Series[str]") -> str:
    return ", ".join(f"{n} {value}" for value, n in values.value_counts().items())


def _times(n: int) -> str:
    return {0: "never", 1: "once", 2: "twice"}.get(int(n), f"{n} times")
