"""The duel: champion and challenger answer the same photos, and a verdict says who serves."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from regraft import registry
from regraft.config import Config, PromoteConfig, TrackingConfig
from regraft.embed import logits
from regraft.evaluate import EvaluationReport
from regraft.files import write_whole
from regraft.paired import mcnemar, paired_interval
from regraft.pixels import Photo, photos_of
from regraft.registry import CHAMPION, PREVIOUS, RegisteredVersion
from regraft.report import VerdictView, render
from regraft.split import Splits
from regraft.tracking import Run, attach_report

Evidence = dict[str, int | float | str]


@dataclass(frozen=True)
class Contender:
    """A version's answers. predicted: (N,) class names, one a test photo."""

    version: int
    classes: tuple[str, ...]
    predicted: NDArray[np.str_]


@dataclass(frozen=True)
class Duel:
    """N test photos and who said what about them.

    name: of the model.
    labels: (N,) true class names.
    seen: (N,) bool, whether a contender was trained or chosen on that photo or its copy.
    majority_share: of the test photos that always naming train's largest class gets right.
    champion: None if there is none.
    """

    name: str
    labels: NDArray[np.str_]
    seen: NDArray[np.bool_]
    majority_share: float
    challenger: Contender
    champion: Contender | None


@dataclass(frozen=True)
class Verdict:
    """Who serves from now on, why, and with which numbers.

    promote: whether the challenger becomes the champion.
    reason: one sentence.
    champion: the version it was compared with, None if there was none.
    evidence: counts and shares by name; which ones there are depends on how far the duel came.
    """

    promote: bool
    reason: str
    name: str
    challenger: int
    champion: int | None
    evidence: Evidence

    def __str__(self) -> str:
        return f"promote: {'yes' if self.promote else 'no'}, {self.reason}"


def promote(
    version: RegisteredVersion,
    report: EvaluationReport,
    splits: Splits,
    config: Config,
) -> Verdict:
    """The verdict about the version, after it was carried out and written down.

    The reason is written before an alias moves, and "previous" moves before "champion": whenever
    this is killed, there is exactly one champion, and running it again ends well.

    Args:
        version: the challenger, just registered.
        report: of that challenger, with its answers to the test photos.
        splits: the same ones that the report was made on.
    """
    tracking = config.tracking
    champion = _champion(version.name, tracking)
    verdict = judge(_duel(version, champion, report, splits, config), config.promote)
    if verdict.champion != version.version:  # else what was said when it became champion stands
        word = "promote" if verdict.promote else "keep"
        registry.set_tags(tracking, version, {"verdict": word, "why": verdict.reason})
    if verdict.promote:
        if champion:
            registry.set_alias(tracking, champion, PREVIOUS)
        registry.set_alias(tracking, version, CHAMPION)
    _publish(verdict, version, report, config)
    return verdict


def judge(duel: Duel, config: PromoteConfig) -> Verdict:
    """Whether the challenger wins, the reason, and the numbers behind it.

    The first model wins if it clears the floor: better than always naming the class that is largest
    in training, and config.min_accuracy at least. Later ones must also be more accurate than the
    champion by more than config.min_gain on the photos that neither has seen; a tie keeps it.
    Where the challenger knows more classes, photos of these are left out.
    """
    champion, evidence = duel.champion, _floor_evidence(duel)
    if champion and champion.version == duel.challenger.version:
        return _keep(duel, f"version {champion.version} is already the champion", evidence)
    if below := _below_floor(evidence, config):
        return _keep(duel, below, evidence)
    if champion is None:
        return _promote(duel, "the first model, and it clears the floor", evidence)
    if missing := sorted(set(champion.classes) - set(duel.challenger.classes)):
        names = ", ".join(missing)
        return _keep(duel, f"the challenger lacks classes of the champion: {names}", evidence)
    compared = ~duel.seen & np.isin(duel.labels, champion.classes)
    evidence |= _paired_evidence(duel, champion, compared)
    if not compared.any():
        return _keep(duel, "no test photo is left that neither contender has seen", evidence)
    return _compare(duel, evidence, config)


def _compare(duel: Duel, evidence: Evidence, config: PromoteConfig) -> Verdict:
    gain = float(evidence["gain"])
    told = (
        f"{evidence['challenger_accuracy']:.1%} against the champion's "
        f"{evidence['champion_accuracy']:.1%} on the same {evidence['n']} photos "
        f"(gain {gain:+.1%}, p = {evidence['p_value']:.2g})"
    )
    if gain > config.min_gain:
        return _promote(duel, f"better: {told}", evidence)
    if gain == 0:
        return _keep(duel, f"a tie keeps the champion: {told}", evidence)
    if gain < 0:
        return _keep(duel, f"worse: {told}", evidence)
    return _keep(duel, f"not better by more than {config.min_gain:.1%}: {told}", evidence)


def _promote(duel: Duel, reason: str, evidence: Evidence) -> Verdict:
    return Verdict(True, reason, duel.name, duel.challenger.version, _number(duel), evidence)


def _keep(duel: Duel, reason: str, evidence: Evidence) -> Verdict:
    return Verdict(False, reason, duel.name, duel.challenger.version, _number(duel), evidence)


def _number(duel: Duel) -> int | None:
    return duel.champion.version if duel.champion else None


def _floor_evidence(duel: Duel) -> Evidence:
    right = duel.challenger.predicted == duel.labels
    return {
        "n_test": len(duel.labels),
        "test_accuracy": float(right.mean()),
        "majority_share": duel.majority_share,
    }


def _below_floor(evidence: Evidence, config: PromoteConfig) -> str:
    accuracy, share = float(evidence["test_accuracy"]), float(evidence["majority_share"])
    if accuracy <= share:
        return (
            f"below the floor: {accuracy:.1%} of the test photos right, and always naming the "
            f"largest class gives {share:.1%}"
        )
    if accuracy < config.min_accuracy:
        return (
            f"below the floor: {accuracy:.1%} right, promote.min_accuracy {config.min_accuracy:.1%}"
        )
    return ""


def _paired_evidence(duel: Duel, champion: Contender, compared: NDArray[np.bool_]) -> Evidence:
    labels = duel.labels[compared]
    new = duel.challenger.predicted[compared] == labels
    old = champion.predicted[compared] == labels
    n, only_new, only_old = len(labels), int((new & ~old).sum()), int((old & ~new).sum())
    counts: Evidence = {
        "n": n,
        "n_seen": int(duel.seen.sum()),
        "n_other_classes": int((~np.isin(duel.labels, champion.classes)).sum()),
        "both_right": int((new & old).sum()),
        "only_champion": only_old,
        "only_challenger": only_new,
        "both_wrong": int((~new & ~old).sum()),
    }
    if n == 0:
        return counts
    low, high = paired_interval(n, only_new, only_old)
    return counts | {
        "challenger_accuracy": float(new.mean()),
        "champion_accuracy": float(old.mean()),
        "gain": (only_new - only_old) / n,
        "gain_low": low,
        "gain_high": high,
        "p_value": mcnemar(only_new, only_old),
    }


def _champion(name: str, tracking: TrackingConfig) -> RegisteredVersion | None:
    if CHAMPION not in registry.aliases(tracking, name):
        return None
    return registry.find(tracking, name, CHAMPION)


def _duel(
    version: RegisteredVersion,
    champion: RegisteredVersion | None,
    report: EvaluationReport,
    splits: Splits,
    config: Config,
) -> Duel:
    """The report's answers beside the champion's, to the same photos in the same order."""
    said = report.predictions[report.predictions.side == "test"]
    photos = said.merge(splits.test[["path", "phash"]], on="path", validate="one_to_one")
    contenders = [one for one in (version, champion) if one]
    manifests = [registry.load_manifest(config.tracking, one) for one in contenders]
    seen = [
        photos[key].isin(manifest[key]) for manifest in manifests for key in ("sha256", "phash")
    ]
    challenger = Contender(version.version, report.classes, photos.predicted.to_numpy(str))
    return Duel(
        name=version.name,
        labels=photos.label.to_numpy(str),
        seen=np.logical_or.reduce(seen),
        majority_share=report.baseline.value,
        challenger=challenger,
        champion=_rival(version, champion, challenger, photos_of(photos), config),
    )


def _rival(
    version: RegisteredVersion,
    champion: RegisteredVersion | None,
    challenger: Contender,
    photos: list[Photo],
    config: Config,
) -> Contender | None:
    """The champion's answers; where it is the challenger itself, they are known."""
    if champion is None or champion.version == version.version:
        return challenger if champion else None
    return _answers(champion, photos, config)


def _answers(champion: RegisteredVersion, photos: list[Photo], config: Config) -> Contender:
    classifier = registry.load(config.tracking, champion)
    classes = classifier.card.classes
    positions = logits(classifier, photos, config.embed).argmax(dim=1)  # (N,)
    return Contender(champion.version, classes, np.array(classes)[positions.numpy()])


def _publish(
    verdict: Verdict,
    version: RegisteredVersion,
    report: EvaluationReport,
    config: Config,
) -> None:
    serves = verdict.promote or verdict.champion == version.version
    view = VerdictView(serves, verdict.reason, tuple(_rows(verdict)))
    page = render(report, f"{version.name}, version {version.version}", view)
    if folder := config.promote.reports_url.rstrip("/"):
        write_whole(f"{folder}/{version.name}-v{version.version}.html", page.encode())
    if version.run_id:
        attach_report(Run(version.run_id, config.tracking.uri), page)


def _rows(verdict: Verdict) -> Iterator[tuple[str, str]]:
    """The evidence as a reader wants it."""
    yield "champion before", "none" if verdict.champion is None else f"version {verdict.champion}"
    for name, value in verdict.evidence.items():
        shown = f"{value:.4g}" if isinstance(value, float) else str(value)
        yield name.replace("_", " "), shown
