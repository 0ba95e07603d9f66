"""What the advice is made of: the photos, the registry and the journal, looked at together."""

from dataclasses import dataclass
from datetime import datetime
from statistics import median

import pandas as pd

from regraft import registry
from regraft.core.config import Config, TrackingConfig
from regraft.data.split import Splits
from regraft.drift import look
from regraft.operations import journal
from regraft.operations.advice import Circumstances, Delta, RetrainAdvice, advise
from regraft.operations.journal import Attempt
from regraft.operations.retrain.delta import delta_of
from regraft.registry import CHALLENGER, CHAMPION, RegisteredVersion

_RECENT = 3  # trainings that the next one's time is guessed from


def advice_about(splits: Splits, config: Config, now: datetime) -> RetrainAdvice:
    """The advice of now about today's photos.

    Args:
        now: UTC.
    """
    return advise(observe(splits, config, now), config.retrain, now)


def observe(splits: Splits, config: Config, now: datetime) -> Circumstances:
    """All that speaks for and against a training now.

    Args:
        splits: of today's photos.
        now: UTC.
    """
    tracking = config.tracking
    held = registry.aliases(tracking, tracking.name)
    champion, last = held.get(CHAMPION), held.get(CHALLENGER, held.get(CHAMPION))
    newest = _learner(last, config)
    serving = newest if champion == last else _learner(champion, config)
    past = journal.attempts(config.retrain.journal_url, tracking.name)
    has_drifted, drift_said = _drift(splits, serving, newest, config)
    return Circumstances(
        delta=_delta(splits, newest, config),
        champion=champion,
        champion_since=_since(config, champion),
        has_drifted=has_drifted,
        drift_said=drift_said,
        spent_s=journal.spent_s(past, now),
        expected_s=_expected_s(past),
        unjudged=_unjudged(newest, tracking),
    )


@dataclass(frozen=True)
class _Learner:
    """A version, and the manifest of the photos that it learned from."""

    version: RegisteredVersion
    manifest: pd.DataFrame


def _learner(number: int | None, config: Config) -> _Learner | None:
    if number is None:
        return None
    version = registry.find(config.tracking, config.tracking.name, str(number))
    return _Learner(version, registry.load_manifest(config.tracking, version))


def _delta(splits: Splits, newest: _Learner | None, config: Config) -> Delta:
    renamed = config.classes.renamed
    if newest is None:
        return delta_of(splits, None, None, (), renamed)
    classes = registry.load_card(config.tracking, newest.version).classes
    return delta_of(splits, newest.manifest, newest.version.version, classes, renamed)


def _drift(
    splits: Splits, serving: _Learner | None, newest: _Learner | None, config: Config
) -> tuple[bool | None, str]:
    """Whether the photos that no training has seen are of another kind than the champion's, told.

    What the last challenger has learned is no news, even if the champion has not. The test side is
    left out: no record says which of its photos are new.
    """
    if serving is None or newest is None:
        return None, ""
    reference = registry.load_reference(config.tracking, serving.version)
    learned = {*serving.manifest.sha256, *newest.manifest.sha256}
    frame = splits.frame
    new = frame[(frame.side != "test") & ~frame.sha256.isin(learned)]
    if reference is None or new.empty:
        return None, ""
    classifier = registry.load(config.tracking, serving.version)
    report = look(reference, classifier, new, config, config.tune.seed)
    return report.drifted, report.reason


def _since(config: Config, champion: int | None) -> datetime | None:
    """When the champion began to serve; None if nobody does or nobody knows."""
    since = None
    for entry in registry.entries(config.tracking, config.tracking.name):
        if entry.after != entry.before or since is None:
            since = datetime.fromisoformat(entry.when) if entry.after == champion else None
    return since if champion is not None else None


def _expected_s(past: list[Attempt]) -> float | None:
    trained = [attempt.seconds for attempt in past if attempt.was_trained]
    return median(trained[-_RECENT:]) if trained else None


def _unjudged(newest: _Learner | None, tracking: TrackingConfig) -> str:
    """That the newest version came to no verdict, because somebody was killed; "" if it did."""
    if newest is None or "verdict" in registry.tags(tracking, newest.version):
        return ""
    return f"version {newest.version.version} was never judged"
