"""The promotion: judged, tried, carried out, written down; one champion whenever it is killed."""

import logging
from dataclasses import replace
from datetime import datetime

from regraft import registry
from regraft.core.config import Config, TrackingConfig
from regraft.core.errors import ChampionMoved, ModelNotFound
from regraft.data.split import Splits
from regraft.evaluation.evaluate import EvaluationReport
from regraft.evaluation.predict import answers
from regraft.model.embed import logits
from regraft.model.pixels import photos_of
from regraft.promotion.duel import Duel, hold_duel
from regraft.promotion.kept import VERDICT_TAG, Kept, keep, kept_of
from regraft.promotion.page import publish
from regraft.promotion.verdict import Verdict, judge
from regraft.registry import APPROVAL, WAITING, Move, Note, RegisteredVersion
from regraft.registry.parity import golden_parity, golden_photos

MAX_DUELS = 3  # guess: each further one means that somebody promoted while it was held

logger = logging.getLogger("regraft.promote")


def promote(
    version: RegisteredVersion,
    splits: Splits,
    config: Config,
    who: str,
    now: datetime,
    report: EvaluationReport | None = None,
) -> Verdict:
    """The verdict about the version, after it was carried out and written down.

    What the verdict was made of is stored before anything moves. If another champion was crowned
    meanwhile, the duel is held again, against that one.

    Args:
        version: the challenger.
        splits: its test side judges.
        who: asks, as the ledger will say: user@host. now: UTC.
        report: of that challenger on the same splits; its page gets the verdict. None: the verdict
            gets a page of its own.

    Raises:
        ChampionMoved: the champion changed MAX_DUELS times.
    """
    for attempt in range(1, MAX_DUELS + 1):
        registry.settle(config.tracking, version.name, now)
        champion = current_champion(version.name, config.tracking)
        duel, verdict = _judged(version, champion, splits, config)
        if duel.contenders.are_one:  # what was said when it was crowned stands
            publish(*_told_then(verdict, duel, version, config), version, config, report)
            return verdict
        try:
            _act_on(verdict, duel, version, config, (who, now))
            break
        except ChampionMoved:
            if attempt == MAX_DUELS:
                raise
            logger.info("promote: another champion was crowned meanwhile; the duel is held again")
    publish(verdict, duel, version, config, report)
    return verdict


def rehearse(version: RegisteredVersion, splits: Splits, config: Config) -> Verdict:
    """The verdict that promote() would come to; nothing is moved or written."""
    champion = current_champion(version.name, config.tracking)
    return _judged(version, champion, splits, config)[1]


def current_champion(name: str, tracking: TrackingConfig) -> RegisteredVersion | None:
    """The version that serves, None if there is none yet."""
    serving = registry.serving_version(tracking, name)
    return registry.find(tracking, name, str(serving)) if serving else None


def _judged(
    version: RegisteredVersion,
    champion: RegisteredVersion | None,
    splits: Splits,
    config: Config,
) -> tuple[Duel, Verdict]:
    """The duel and its verdict; who would win must also answer the golden photos, as it serves."""
    duel = hold_duel(version, champion, splits, config)
    verdict = judge(duel, config)
    if verdict.decision != "promote":
        return duel, verdict
    golden = golden_photos(splits.test, config.registry.n_parity)
    classifier = registry.load(config.tracking, version)
    expected = answers(logits(classifier, photos_of(golden), config.embed), classifier.card)
    paths, serve = list(golden.path), config.promote.smoke_test
    parity = golden_parity(version, paths, expected, config.tracking, serve)
    duel = replace(duel, contenders=replace(duel.contenders, parity=parity))
    return duel, judge(duel, config)


def _act_on(
    verdict: Verdict,
    duel: Duel,
    version: RegisteredVersion,
    config: Config,
    by: tuple[str, datetime],
) -> None:
    """Stores the verdict, moves what has to be moved, writes it down, and only then says so."""
    (who, now), tracking = by, config.tracking
    registry.set_tags(tracking, version, {APPROVAL: ""})  # no answer to an earlier question counts
    keep(version, Kept(verdict, duel, config), tracking)
    if verdict.moves:
        move = Move("promote", version.version, verdict.id, verdict.reason, who)
        registry.move_champion(tracking, verdict.name, move, verdict.champion, now)
    else:
        told = f"version {version.version} {verdict.told_standing}: {verdict.reason}"
        is_open = verdict.waits or verdict.decision == "hold"
        note = Note("hold" if is_open else "keep", verdict.id, told, who)
        registry.record(tracking, verdict.name, note, now, verdict.champion)
    _say(verdict, version, tracking)


def _say(verdict: Verdict, version: RegisteredVersion, tracking: TrackingConfig) -> None:
    waiting = WAITING if verdict.waits else ""
    said = {"verdict": verdict.decision, "why": verdict.reason, APPROVAL: waiting}
    registry.set_tags(tracking, version, said)


def _told_then(
    verdict: Verdict, duel: Duel, version: RegisteredVersion, config: Config
) -> tuple[Verdict, Duel]:
    """The verdict that crowned the champion, and its duel; said again if a kill cut it short."""
    entries = registry.entries(config.tracking, version.name)
    crowned = [
        one.verdict for one in entries if (one.action, one.after) == ("promote", version.version)
    ]
    try:
        # Not the last one: somebody may have judged it beside the one who crowned it.
        kept = kept_of(version, config.tracking, crowned[-1] if crowned else "")
    except ModelNotFound:  # crowned by hand, or before verdicts were kept
        keep(version, Kept(verdict, duel, config), config.tracking)
        return verdict, duel
    if kept.verdict.moves:
        registry.set_tags(config.tracking, version, {VERDICT_TAG: kept.verdict.id})
        _say(kept.verdict, version, config.tracking)
    return replace(kept.verdict, waits=False), kept.duel
