"""The advice: whether it is time to train again, and every reason for and against it."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from regraft.core.config import RetrainConfig

Weight = Literal["for", "against", "noted"]
Decision = Literal["retrain", "skip", "postpone"]


@dataclass(frozen=True)
class ClassDelta:
    """What became of one class's photos since the last training; numbers of photos.

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
    """What changed in the photos that a model learns from, train and validation, since the last.

    since: the version whose manifest the photos were compared with, None if there is none.
    classes: a line a class, sorted; those that appeared or vanished too.
    relabelled: (path, label then, label now), at most MAX_TOLD.
    """

    since: int | None
    classes: tuple[ClassDelta, ...]
    relabelled: tuple[tuple[str, str, str], ...] = ()

    @property
    def n_before(self) -> int:
        """Photos that the last model learned from."""
        return sum(line.before for line in self.classes)

    @property
    def n_added(self) -> int:
        """New photos."""
        return sum(line.added for line in self.classes)

    @property
    def n_removed(self) -> int:
        """Photos that are gone."""
        return sum(line.removed for line in self.classes)

    @property
    def n_relabelled(self) -> int:
        """Photos with another label than then."""
        return sum(line.relabelled_in for line in self.classes)

    @property
    def n_changed(self) -> int:
        """All of them."""
        return self.n_added + self.n_removed + self.n_relabelled

    @property
    def changed_fraction(self) -> float:
        """Of the photos that the last model learned from; 1 if there were none."""
        return self.n_changed / self.n_before if self.n_before else 1.0

    @property
    def appeared(self) -> tuple[str, ...]:
        """Classes that the last model does not know."""
        return tuple(line.label for line in self.classes if not line.before)

    @property
    def vanished(self) -> tuple[str, ...]:
        """Classes of the last model that no photo has any more."""
        return tuple(line.label for line in self.classes if line.before and not _n_now(line))

    def __str__(self) -> str:
        since = "without a model before" if self.since is None else f"since version {self.since}"
        return (
            f"{self.n_added} new, {self.n_removed} removed and {self.n_relabelled} relabelled "
            f"photos {since}"
        )


MAX_TOLD = 20


@dataclass(frozen=True)
class Reason:
    """One thing that was looked at. name: which; said: in a sentence, with its number."""

    name: str
    said: str
    weight: Weight


@dataclass(frozen=True)
class Circumstances:
    """All that the advice is made of, beside the configuration.

    champion: the version that serves, None if none does. champion_since: since when.
    has_drifted: whether the new photos look like others; None if it could not be said.
    drift_said: the same in a sentence, "" if it was not looked at.
    spent_s: seconds that trainings took in the last seven days. expected_s: that the next would
        take, None if none was measured.
    unjudged: that the newest version came to no verdict, "" if it did.
    """

    delta: Delta
    champion: int | None
    champion_since: datetime | None
    has_drifted: bool | None
    drift_said: str
    spent_s: float
    expected_s: float | None
    unjudged: str = ""


@dataclass(frozen=True)
class RetrainAdvice:
    """Whether to train again.

    decision: retrain; skip = there is no reason to; postpone = there is, but not now.
    reason: one sentence.
    reasons: all that was looked at, in the order of reading.
    has_drifted: whether the new photos are shown to look like others.
    """

    decision: Decision
    reason: str
    reasons: tuple[Reason, ...]
    delta: Delta
    has_drifted: bool = False

    @property
    def retrain(self) -> bool:
        """Whether a training follows."""
        return self.decision == "retrain"

    def __str__(self) -> str:
        return f"advise: {self.decision}, {self.reason}"

    def told(self) -> str:
        """The whole advice for a terminal."""
        marks = {"for": "+", "against": "-", "noted": " "}
        width = max(len(line.name) for line in self.reasons)
        lines = [f"  {marks[r.weight]} {r.name:{width}}  {r.said}" for r in self.reasons]
        return "\n".join([f"{self.decision}: {self.reason}", "", *lines])


def advise(seen: Circumstances, config: RetrainConfig, now: datetime) -> RetrainAdvice:
    """The advice. Something for it is needed, and nothing against it.

    Args:
        now: UTC.
    """
    reasons = tuple(_reasons(seen, config, now))
    wished = [line for line in reasons if line.weight == "for"]
    refused = [line for line in reasons if line.weight == "against"]
    decision: Decision = "retrain" if wished else "skip"
    said = next(line for line in wished or reasons if wished or line.name == "photos").said
    if wished and refused:
        decision, said = "postpone", refused[0].said
    return RetrainAdvice(decision, said, reasons, seen.delta, bool(seen.has_drifted))


def _reasons(seen: Circumstances, config: RetrainConfig, now: datetime) -> Iterator[Reason]:
    delta = seen.delta
    if seen.champion is None:
        yield Reason("champion", "no model serves yet", "for")
    if seen.unjudged:
        yield Reason("interrupted", f"the last training came to no verdict: {seen.unjudged}", "for")
    if delta.since is not None:
        yield from _about_photos(delta, config)
    else:
        yield Reason("photos", f"{delta.n_added} photos, and no model that learned from any", "for")
    if seen.champion_since:
        yield _about_age(seen.champion_since, delta, config, now)
    if seen.drift_said:
        is_new = bool(seen.has_drifted) and delta.n_changed > 0
        yield Reason("drift", seen.drift_said, "for" if is_new else "noted")
    yield _about_budget(seen, config)


def _about_photos(delta: Delta, config: RetrainConfig) -> Iterator[Reason]:
    for what, labels in (("appeared", delta.appeared), ("vanished", delta.vanished)):
        if labels:
            yield Reason("classes", f"{what}: {', '.join(labels)}", "for")
    share, least = delta.changed_fraction, config.min_changed_fraction
    if not delta.n_changed:
        yield Reason(
            "photos", f"no photo to learn from changed since version {delta.since}", "noted"
        )
    elif share >= least:
        yield Reason("photos", f"{delta} ({share:.1%})", "for")
    else:
        said = f"{delta} ({share:.1%}), fewer than retrain.min_changed_fraction={least:.1%}"
        yield Reason("photos", said, "noted")


def _about_age(since: datetime, delta: Delta, config: RetrainConfig, now: datetime) -> Reason:
    days, limit = (now - since) / timedelta(days=1), config.max_age_days
    said = f"the champion serves for {days:.0f} days"
    if not limit or days <= limit:
        return Reason("age", said, "noted")
    if not delta.n_changed:
        return Reason("age", f"{said}, but there is nothing new to learn", "noted")
    return Reason("age", f"{said}, more than retrain.max_age_days={limit:g}", "for")


def _about_budget(seen: Circumstances, config: RetrainConfig) -> Reason:
    spent_h = seen.spent_s / 3600
    said = f"trainings took {spent_h:.2g} h of the last seven days"
    if seen.expected_s is not None:
        said += f", the next would take {seen.expected_s / 3600:.2g} h"
    if not config.budget_h:
        return Reason("budget", said, "noted")
    said += f", of retrain.budget_h={config.budget_h:g}"
    expected_h = (seen.expected_s or 0.0) / 3600
    if expected_h > config.budget_h:  # else it would be put off for ever, and nobody know why
        said += "; not even one training fits, so set it higher"
    is_over = spent_h + expected_h > config.budget_h
    return Reason("budget", said, "against" if is_over else "noted")


def _n_now(line: ClassDelta) -> int:
    return line.before + line.added - line.removed + line.relabelled_in - line.relabelled_out
