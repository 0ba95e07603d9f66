"""The signals that the advice needs, read from the photos, the registry and the journal."""

from dataclasses import dataclass
from datetime import datetime
from statistics import median

import pandas as pd

from regraft import registry
from regraft.core.config import Config, TrackingConfig
from regraft.data.split import Splits
from regraft.drift import detect_drift
from regraft.operations import journal
from regraft.operations.advice import Delta, RetrainAdvice, RetrainSignals, advise
from regraft.operations.journal import Attempt
from regraft.operations.retrain.delta import compute_delta
from regraft.operations.retrain.effects import describe_effects, effect_of
from regraft.operations.retrain.guards import inherited_settings
from regraft.registry import CHALLENGER, CHAMPION, RegisteredVersion
from regraft.registry.revision import describe_revision

_N_RECENT = 3  # trainings whose median predicts the duration of the next; guess


def advise_now(splits: Splits, config: Config, now: datetime) -> RetrainAdvice:
    """Return the advice for today's photos.

    Args:
        now: UTC.
    """
    return advise(observe_signals(splits, config, now), config.retrain, now)


def observe_signals(splits: Splits, config: Config, now: datetime) -> RetrainSignals:
    """Return all signals for and against a training now.

    Args:
        splits: of today's photos.
        now: UTC.
    """
    tracking = config.tracking
    held = registry.get_aliases(tracking, tracking.name)
    champion, last = held.get(CHAMPION), held.get(CHALLENGER, held.get(CHAMPION))
    newest = _load_version(last, config)
    serving = newest if champion == last else _load_version(champion, config)
    past = journal.read_attempts(config.retrain.journal_url, tracking.name)
    has_drifted, drift_message = _detect_drift(splits, serving, newest, config)
    revision = _revision(splits, serving, past, config)
    return RetrainSignals(
        delta=_delta(splits, newest, config),
        champion=champion,
        champion_since=_champion_since(config, champion),
        has_drifted=has_drifted,
        drift_message=drift_message,
        spent_s=journal.spent_s(past, now),
        expected_s=_expected_s(past),
        unjudged=_unjudged(newest, tracking),
        revision=revision,
        settings=_settings(newest, config, is_revised=bool(revision)),
    )


@dataclass(frozen=True)
class _TrainedVersion:
    """A registered version, and the manifest of the photos that it was trained on."""

    version: RegisteredVersion
    manifest: pd.DataFrame


def _load_version(number: int | None, config: Config) -> _TrainedVersion | None:
    if number is None:
        return None
    version = registry.find(config.tracking, config.tracking.name, str(number))
    return _TrainedVersion(version, registry.load_manifest(config.tracking, version))


def _delta(splits: Splits, newest: _TrainedVersion | None, config: Config) -> Delta:
    renamed = config.classes.renamed
    if newest is None:
        return compute_delta(splits, None, None, (), renamed)
    classes = registry.load_card(config.tracking, newest.version).classes
    return compute_delta(splits, newest.manifest, newest.version.version, classes, renamed)


def _detect_drift(
    splits: Splits,
    serving: _TrainedVersion | None,
    newest: _TrainedVersion | None,
    config: Config,
) -> tuple[bool | None, str]:
    """Return whether photos unseen by any training differ from the champion's, with a sentence.

    Photos that the newest challenger was trained on do not count as new, even if the champion was
    not trained on them. Test photos are left out, because no record tells which of them are new.
    """
    if serving is None or newest is None:
        return None, ""
    reference = registry.load_reference(config.tracking, serving.version)
    trained_on = {*serving.manifest.sha256, *newest.manifest.sha256}
    frame = splits.frame
    new = frame[(frame.split != "test") & ~frame.sha256.isin(trained_on)]
    if reference is None or new.empty:
        return None, ""
    classifier = registry.load(config.tracking, serving.version)
    report = detect_drift(reference, classifier, new, config, config.tune.seed)
    return report.drifted, report.reason


def _champion_since(config: Config, champion: int | None) -> datetime | None:
    """Return the start of the champion's service; None without a champion or a ledger entry."""
    since = None
    for entry in registry.list_entries(config.tracking, config.tracking.name):
        if entry.after != entry.before or since is None:
            since = datetime.fromisoformat(entry.when) if entry.after == champion else None
    return since if champion is not None else None


def _revision(
    splits: Splits, serving: _TrainedVersion | None, past: list[Attempt], config: Config
) -> str:
    """Return what a revision of the champion would change; "" if nothing, or if it was judged."""
    if serving is None:
        return ""
    version, flat = serving.version, config.flat()
    for attempt in past:
        is_revision = attempt.advice is not None and attempt.advice.decision == "revise"
        was = Config().flat() | attempt.settings
        is_same = all(was[key] == flat[key] for key in flat if effect_of(key) == "revise")
        if is_revision and is_same and attempt.champion == version.version:
            return ""
    card = registry.load_card(config.tracking, version)
    return describe_revision(card, splits.classes, config)


def _settings(newest: _TrainedVersion | None, config: Config, is_revised: bool) -> str:
    """Return what becomes of the settings that this call changes, but for those of a revision."""
    before = inherited_settings(config)
    if newest is None or before is None:
        return ""
    if is_revised:
        before |= {key: text for key, text in config.flat().items() if effect_of(key) == "revise"}
    model = f"{newest.version.name}/{newest.version.version}"
    return describe_effects(before, config, model)


def _expected_s(past: list[Attempt]) -> float | None:
    trained = [
        attempt.seconds
        for attempt in past
        if attempt.was_trained and not (attempt.advice and attempt.advice.decision == "revise")
    ]
    return median(trained[-_N_RECENT:]) if trained else None


def _unjudged(newest: _TrainedVersion | None, tracking: TrackingConfig) -> str:
    """Return a sentence if the newest version has no verdict, "" if it has one.

    A version stays without a verdict if its process was killed.
    """
    if newest is None or "verdict" in registry.get_tags(tracking, newest.version):
        return ""
    return f"version {newest.version.version} was never judged"
