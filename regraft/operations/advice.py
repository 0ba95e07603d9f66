"""The retraining advice: whether to train now, with every reason for and against."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from regraft.core.config import RetrainConfig
from regraft.core.outcomes import Advice

Weight = Literal["for", "against", "info"]


@dataclass(frozen=True)
class ClassDelta:
    """The changes of one class since the last training, in numbers of photos.

    relabelled_in, relabelled_out: photos that got, or lost, this label.
    """

    label: str
    before: int
    added: int
    removed: int
    relabelled_in: int
    relabelled_out: int


@dataclass(frozen=True)
class Delta:
    """The changes of the train and validation photos since the last training.

    since: the version whose manifest the photos were compared with, None if there is none.
    classes: one entry per class, sorted by label; includes classes that appeared or vanished.
    relabelled: (path, label then, label now), at most MAX_LISTED.
    """

    since: int | None
    classes: tuple[ClassDelta, ...]
    relabelled: tuple[tuple[str, str, str], ...] = ()

    @property
    def n_before(self) -> int:
        """Photos that the last model was trained on."""
        return sum(line.before for line in self.classes)

    @property
    def n_added(self) -> int:
        """New photos."""
        return sum(line.added for line in self.classes)

    @property
    def n_removed(self) -> int:
        """Photos that no longer exist."""
        return sum(line.removed for line in self.classes)

    @property
    def n_relabelled(self) -> int:
        """Photos whose label changed."""
        return sum(line.relabelled_in for line in self.classes)

    @property
    def n_changed(self) -> int:
        """Photos that were added, removed or relabelled."""
        return self.n_added + self.n_removed + self.n_relabelled

    @property
    def changed_fraction(self) -> float:
        """Changed photos as a share of n_before; 1 if n_before is 0."""
        return self.n_changed / self.n_before if self.n_before else 1.0

    @property
    def appeared(self) -> tuple[str, ...]:
        """Classes that the last model does not have."""
        return tuple(line.label for line in self.classes if not line.before)

    @property
    def vanished(self) -> tuple[str, ...]:
        """Classes of the last model that have no photo now."""
        return tuple(line.label for line in self.classes if line.before and not _n_now(line))

    def __str__(self) -> str:
        since = "without a model before" if self.since is None else f"since version {self.since}"
        return (
            f"{self.n_added} new, {self.n_removed} removed and {self.n_relabelled} relabelled "
            f"photos {since}"
        )


MAX_LISTED = 20


@dataclass(frozen=True)
class Reason:
    """A check of the advice. name: of the check. message: a sentence with the measured number."""

    name: str
    message: str
    weight: Weight


@dataclass(frozen=True)
class RetrainSignals:
    """The measured inputs of the advice; the configuration is separate.

    champion: the version that serves, None if there is none.
    champion_since: start of its service, None if unknown.
    has_drifted: whether the new photos differ from the reference; None if it was not tested.
    drift_message: the drift result in a sentence, "" if drift was not tested.
    spent_s: seconds of training in the last seven days.
    expected_s: seconds that the next training will take, None if none was measured.
    unjudged: a sentence if the newest version has no verdict, else "".
    revision: what a revision of the champion would change, "" if nothing.
    settings: what becomes of the settings that this call changes, a sentence; "" if there is none.
    """

    delta: Delta
    champion: int | None
    champion_since: datetime | None
    has_drifted: bool | None
    drift_message: str
    spent_s: float
    expected_s: float | None
    unjudged: str = ""
    revision: str = ""
    settings: str = ""


@dataclass(frozen=True)
class RetrainAdvice:
    """The decision whether to train now.

    decision: retrain; revise = no training now, but the champion gets other class names or another
        threshold; skip = no reason to train; postpone = a reason to train, but not now.
    reason: one sentence.
    reasons: every check, in display order.
    has_drifted: whether the new photos are shown to differ from the reference.
    """

    decision: Advice
    reason: str
    reasons: tuple[Reason, ...]
    delta: Delta
    has_drifted: bool = False

    @property
    def retrain(self) -> bool:
        """Whether to train now."""
        return self.decision == "retrain"

    def __str__(self) -> str:
        return f"advise: {self.decision}, {self.reason}"

    def format_text(self) -> str:
        """Return the advice with all reasons, as text for a terminal."""
        marks = {"for": "+", "against": "-", "info": " "}
        width = max(len(line.name) for line in self.reasons)
        lines = [f"  {marks[r.weight]} {r.name:{width}}  {r.message}" for r in self.reasons]
        return "\n".join([f"{self.decision}: {self.reason}", "", *lines])


def advise(signals: RetrainSignals, config: RetrainConfig, now: datetime) -> RetrainAdvice:
    """Return the advice: retrain needs at least one reason for and none against.

    Args:
        now: UTC.
    """
    reasons = tuple(_reasons(signals, config, now))
    reasons_for = [line for line in reasons if line.weight == "for"]
    reasons_against = [line for line in reasons if line.weight == "against"]
    by_name = {line.name: line.message for line in reasons}
    decision: Advice
    if reasons_for and not reasons_against:
        decision, reason = "retrain", reasons_for[0].message
    elif signals.revision:  # costs no training, so the budget does not matter
        decision, reason = "revise", by_name["revision"]
    elif reasons_for:
        decision, reason = "postpone", reasons_against[0].message
    else:
        decision, reason = "skip", by_name["photos"]
        if signals.settings:
            reason += f"; {by_name['settings']}"
    return RetrainAdvice(decision, reason, reasons, signals.delta, bool(signals.has_drifted))


def _reasons(signals: RetrainSignals, config: RetrainConfig, now: datetime) -> Iterator[Reason]:
    delta = signals.delta
    if signals.champion is None:
        yield Reason("champion", "no version serves yet", "for")
    if signals.unjudged:
        message = f"the last training ended without a verdict: {signals.unjudged}"
        yield Reason("interrupted", message, "for")
    if delta.since is not None:
        yield from _check_photos(delta, config)
    else:
        message = f"{delta.n_added} photos, and no model was trained on any of them"
        yield Reason("photos", message, "for")
    if signals.champion_since:
        yield _check_age(signals.champion_since, delta, config, now)
    if signals.drift_message:
        is_new = bool(signals.has_drifted) and delta.n_changed > 0
        yield Reason("drift", signals.drift_message, "for" if is_new else "info")
    if signals.revision:
        yield Reason("revision", f"the champion is out of date: {signals.revision}", "info")
    if signals.settings:
        yield Reason("settings", signals.settings, "info")
    yield _check_budget(signals, config)


def _check_photos(delta: Delta, config: RetrainConfig) -> Iterator[Reason]:
    for change, labels in (("appeared", delta.appeared), ("vanished", delta.vanished)):
        if labels:
            yield Reason("classes", f"{change}: {', '.join(labels)}", "for")
    share, least = delta.changed_fraction, config.min_changed_fraction
    if not delta.n_changed:
        message = f"no train or validation photo changed since version {delta.since}"
        yield Reason("photos", message, "info")
    elif share >= least:
        yield Reason("photos", f"{delta} ({share:.1%})", "for")
    else:
        message = f"{delta} ({share:.1%}), fewer than retrain.min_changed_fraction={least:.1%}"
        yield Reason("photos", message, "info")


def _check_age(since: datetime, delta: Delta, config: RetrainConfig, now: datetime) -> Reason:
    days, limit = (now - since) / timedelta(days=1), config.max_age_days
    message = f"the champion has served for {days:.0f} days"
    if not limit or days <= limit:
        return Reason("age", message, "info")
    if not delta.n_changed:
        return Reason("age", f"{message}, but no photo changed", "info")
    return Reason("age", f"{message}, more than retrain.max_age_days={limit:g}", "for")


def _check_budget(signals: RetrainSignals, config: RetrainConfig) -> Reason:
    spent_h = signals.spent_s / 3600
    message = f"trainings took {spent_h:.2g} h in the last seven days"
    if signals.expected_s is not None:
        message += f", the next training will take about {signals.expected_s / 3600:.2g} h"
    if not config.budget_h:
        return Reason("budget", message, "info")
    message += f", limit retrain.budget_h={config.budget_h:g}"
    expected_h = (signals.expected_s or 0.0) / 3600
    if expected_h > config.budget_h:  # without this hint, it would be postponed for ever
        message += "; the limit is lower than one training, so increase it"
    is_over = spent_h + expected_h > config.budget_h
    return Reason("budget", message, "against" if is_over else "info")


def _n_now(line: ClassDelta) -> int:
    return line.before + line.added - line.removed + line.relabelled_in - line.relabelled_out
