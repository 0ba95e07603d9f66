"""What a reviewer should look at first, in sentences."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import pandas as pd
from markupsafe import Markup

from regraft.data.split import RELABELLED, WAITING, WIDENED
from regraft.evaluation.evaluate import EvaluationReport, Interval

UNDEFINED = "\N{EN DASH}"
MINUS = "\N{MINUS SIGN}"
Tone = Literal["bad", "look", "good"]


@dataclass(frozen=True)
class Finding:
    """A sentence with its names escaped, the section that shows more, and how grave it is."""

    tone: Tone
    section: str
    text: Markup


def percent(share: float, digits: int = 1) -> str:
    """The share as a percentage with a no-break space; UNDEFINED where it is NaN."""
    return UNDEFINED if pd.isna(share) else f"{100 * share:.{digits}f}\N{NO-BREAK SPACE}%"


def bounds(low: float, high: float, digits: int = 1) -> str:
    """An interval's bounds as percentages, "80.4-90.5 %" with an en dash; UNDEFINED for NaN."""
    if pd.isna(low):
        return UNDEFINED
    return f"{100 * low:.{digits}f}\N{EN DASH}{percent(high, digits)}"


def points(gain: float, digits: int = 1) -> str:
    """The difference of two shares in points, signed.

    >>> points(0.432)
    '+43.2'
    """
    return f"{100 * gain:+.{digits}f}".replace("-", MINUS)


def findings(report: EvaluationReport) -> tuple[Finding, ...]:
    """The sentences, what endangers the numbers themselves first."""
    parts = (
        *(_baseline, _transfer, _leaks, _label_errors, _classes, _pair, _slices, _quarantine),
        *(_calibration, _waiting, _relabelled, _wider_test),
    )
    return tuple(finding for part in parts for finding in part(report))


def confused_pairs(report: EvaluationReport) -> pd.DataFrame:
    """label, predicted, n of the mistakes, the most frequent first."""
    table = report.confusion
    wrong = table[table.label != table.predicted]
    return wrong.sort_values("n", ascending=False, kind="stable", ignore_index=True)


def _baseline(report: EvaluationReport) -> Iterator[Finding]:
    if report.accuracy.low <= report.baseline.high:
        text = Markup(
            "Not clearly better than always saying <b>{}</b>: the intervals {} and {} overlap."
        ).format(report.baseline_label, _bounds(report.accuracy), _bounds(report.baseline))
        yield Finding("bad", "headline", text)


def _transfer(report: EvaluationReport) -> Iterator[Finding]:
    transfer = report.transfer
    gain = Markup("{} points, 95\N{NO-BREAK SPACE}% interval {} to {}, on {} test photos").format(
        *map(points, (transfer.gain, transfer.gain_low, transfer.gain_high)), transfer.n_test
    )
    if transfer.is_negative:
        text = Markup(
            "<b>Negative transfer</b>: the pretrained weights are worse here than random ones "
            "({}). Choose a backbone whose source task is nearer to these photos."
        )
        yield Finding("bad", "headline", text.format(gain))
    elif transfer.is_unproven:
        text = Markup(
            "Whether the pretrained weights help is unproven: random ones may do as well ({})."
        )
        yield Finding("look", "headline", text.format(gain))


def _leaks(report: EvaluationReport) -> Iterator[Finding]:
    n = len(report.leaks)
    if n:
        text = Markup(
            "<b>{}</b>: the same or nearly the same photo, or one group, stood on two sides ({})."
        ).format(_plural(n, "leak"), _counted(report.leaks.action))
        yield Finding("look", "leaks", text)


def _label_errors(report: EvaluationReport) -> Iterator[Finding]:
    n = len(report.label_errors)
    if n:
        n_test = int((report.label_errors.side == "test").sum())
        text = Markup(
            "<b>{}</b> among test and validation, {} of them in test: check these first, "
            "they may cost accuracy that the model has."
        ).format(_plural(n, "likely wrong label"), n_test)
        yield Finding("look", "labels", text)


def _classes(report: EvaluationReport) -> Iterator[Finding]:
    seen = report.per_class[report.per_class.n > 0]
    weakest = seen.iloc[int(seen.recall.argmin())]
    if weakest.recall < 1:
        n_found = round(weakest.recall * weakest.n)
        text = Markup("Weakest class: <b>{}</b>, {} of {} found ({}), {}.").format(
            weakest.label,
            n_found,
            weakest.n,
            bounds(weakest.recall_low, weakest.recall_high, 0),
            _plural(weakest.n_train, "training photo"),
        )
        yield Finding("look", "classes", text)
    silent = seen[seen.precision.isna()]
    if len(silent):
        text = Markup("Never predicted: <b>{}</b>.").format(", ".join(silent.label))
        yield Finding("bad", "classes", text)


def _pair(report: EvaluationReport) -> Iterator[Finding]:
    pairs = confused_pairs(report)
    if len(pairs):
        worst = pairs.iloc[0]
        back = pairs[(pairs.label == worst.predicted) & (pairs.predicted == worst.label)]
        text = Markup(
            "Most confused: <b>{}</b> taken for <b>{}</b> {}, the other way round {}."
        ).format(worst.label, worst.predicted, _times(worst.n), _times(back.n.sum()))
        yield Finding("look", "confusion", text)
    else:
        yield Finding("good", "confusion", Markup("No test photo was judged wrongly."))


def _slices(report: EvaluationReport) -> Iterator[Finding]:
    behind = report.slices[report.slices.high < report.accuracy.value]
    if len(behind):
        worst = behind.iloc[int(behind.accuracy.argmin())]
        text = Markup("Clearly worse where {} is <b>{}</b>: {} on {}.").format(
            worst.column, worst.value, percent(worst.accuracy), _plural(worst.n, "photo")
        )
        yield Finding("bad", "slices", text)


def _quarantine(report: EvaluationReport) -> Iterator[Finding]:
    n = len(report.quarantine)
    if n:
        text = Markup("<b>{}</b> in quarantine, used nowhere: {}.").format(
            _plural(n, "file"), _counted(report.quarantine.reason)
        )
        yield Finding("look", "quarantine", text)


def _calibration(report: EvaluationReport) -> Iterator[Finding]:
    if report.temperature == 1.0:
        text = Markup(
            "Confidence is uncorrected (no temperature could be fitted): it is off by {}."
        )
        yield Finding("look", "calibration", text.format(percent(report.ece_after)))
        return
    better = report.ece_after <= report.ece_before
    text = Markup(
        "Confidence is off by <b>{}</b> on average ({} before the temperature {:.2f} that "
        "validation chose)."
    ).format(percent(report.ece_after), percent(report.ece_before), report.temperature)
    yield Finding("good" if better else "look", "calibration", text)


def _waiting(report: EvaluationReport) -> Iterator[Finding]:
    n = int(report.facts.get(WAITING) or 0)
    if n:
        text = Markup("<b>{}</b> in the inbox without a label, used nowhere until there is one.")
        yield Finding("look", "origin", text.format(_plural(n, "photo")))


def _relabelled(report: EvaluationReport) -> Iterator[Finding]:
    n = int(report.facts.get(RELABELLED) or 0)
    if n:
        text = Markup("<b>{}</b> with another label than at first: the newest counts.")
        yield Finding("look", "origin", text.format(_plural(n, "photo")))


def _wider_test(report: EvaluationReport) -> Iterator[Finding]:
    added = report.facts.get(WIDENED)
    if added:
        text = Markup(
            "The frozen test side took in new photos, <b>{}</b>: earlier accuracies are of fewer."
        )
        yield Finding("look", "origin", text.format(added))


def _bounds(share: Interval) -> str:
    return bounds(share.low, share.high)


def _plural(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def _counted(values: "pd.Series[str]") -> str:
    return ", ".join(f"{n} {value}" for value, n in values.value_counts().items())


def _times(n: int) -> str:
    return {0: "never", 1: "once", 2: "twice"}.get(int(n), f"{n} times")
