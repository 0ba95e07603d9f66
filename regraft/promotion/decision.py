"""The promotion: evaluate, judge, move the alias, record. There is one champion at any moment."""

import logging
from contextlib import nullcontext
from dataclasses import replace
from datetime import datetime

from regraft import registry
from regraft.core.config import Config, TrackingConfig
from regraft.core.errors import ChampionMoved, ModelNotFound
from regraft.data.split import Splits
from regraft.evaluation.evaluate import EvaluationReport
from regraft.evaluation.predict import prediction_table
from regraft.model.embed import logits
from regraft.model.pixels import photos_of
from regraft.promotion.judgement import judge
from regraft.promotion.page import publish
from regraft.promotion.pair import PairedEvaluation
from regraft.promotion.paired_evaluation import evaluate_pair
from regraft.promotion.stored_verdict import (
    VERDICT_TAG,
    StoredVerdict,
    load_stored_verdict,
    save_verdict,
)
from regraft.promotion.verdict import Verdict
from regraft.registry import APPROVAL, PENDING, ChampionChange, DecisionRecord, RegisteredVersion
from regraft.registry.parity import golden_parity, golden_photos, starting_server

MAX_EVALUATIONS = 3  # guess: each further evaluation means another promotion at the same time

logger = logging.getLogger("regraft.promote")


def promote(
    version: RegisteredVersion,
    splits: Splits,
    config: Config,
    who: str,
    now: datetime,
    report: EvaluationReport | None = None,
) -> Verdict:
    """Return the verdict about the version, after it was carried out and recorded.

    The verdict and its paired evaluation are stored before an alias moves. If another process
    changes the champion meanwhile, the evaluation is repeated against the new champion.

    Args:
        version: the challenger.
        splits: the test split is evaluated.
        config: the configuration of the promotion.
        who: for the ledger, as user@host.
        now: UTC.
        report: of the same challenger on the same splits; the verdict is added to its page. None:
            the verdict gets a page of its own.

    Raises:
        ChampionMoved: the champion changed during each of MAX_EVALUATIONS evaluations.
    """
    for attempt in range(1, MAX_EVALUATIONS + 1):
        registry.reconcile(config.tracking, version.name, now)
        champion = find_champion(version.name, config.tracking)
        evaluation, verdict = _evaluate_and_judge(version, champion, splits, config)
        if evaluation.pair.is_same_model:  # the verdict of its promotion stays valid
            original = _original_verdict(verdict, evaluation, version, config)
            publish(original.verdict, original.evaluation, version, config, report)
            return verdict
        try:
            _carry_out(StoredVerdict(verdict, evaluation, config), version, who, now)
            break
        except ChampionMoved:
            if attempt == MAX_EVALUATIONS:
                raise
            logger.info("promote: the champion changed meanwhile; the evaluation is repeated")
    publish(verdict, evaluation, version, config, report)
    return verdict


def dry_run(version: RegisteredVersion, splits: Splits, config: Config) -> Verdict:
    """Return the verdict that promote() would return; no alias moves and nothing is written."""
    champion = find_champion(version.name, config.tracking)
    return _evaluate_and_judge(version, champion, splits, config)[1]


def find_champion(name: str, tracking: TrackingConfig) -> RegisteredVersion | None:
    """Return the version with the alias champion, None if there is none."""
    serving = registry.serving_version(tracking, name)
    return registry.find(tracking, name, str(serving)) if serving else None


def _original_verdict(
    verdict: Verdict, evaluation: PairedEvaluation, version: RegisteredVersion, config: Config
) -> StoredVerdict:
    """Return the stored verdict that promoted the champion; restore its tags if they are missing.

    A kill may have prevented the tags. A champion without a stored verdict gets the new one.

    Args:
        verdict: a new verdict about the champion.
        evaluation: what the new verdict is based on.
        version: the champion.
        config: the configuration of the new verdict.
    """
    promotions = [
        entry.verdict
        for entry in registry.list_entries(config.tracking, version.name)
        if entry.action == "promote" and entry.after == version.version
    ]
    try:
        # The latest verdict may be another one, if two processes judged the version at once.
        promotion = promotions[-1] if promotions else ""
        stored = load_stored_verdict(version, config.tracking, promotion)
    except ModelNotFound:  # the alias was moved by hand
        stored = StoredVerdict(verdict, evaluation, config)
        save_verdict(version, stored, config.tracking)
        return stored
    if stored.verdict.moves_champion:
        registry.set_tags(config.tracking, version, {VERDICT_TAG: stored.verdict.id})
        _tag_decision(stored.verdict, version, config.tracking)
    return replace(stored, verdict=replace(stored.verdict, is_pending=False))


def _evaluate_and_judge(
    version: RegisteredVersion,
    champion: RegisteredVersion | None,
    splits: Splits,
    config: Config,
) -> tuple[PairedEvaluation, Verdict]:
    """Return the paired evaluation and its verdict.

    A challenger that would be promoted must also predict the golden photos in every channel. Its
    server starts beside the evaluation, because its start takes as long on the other core.
    """
    is_new = champion is None or champion.version != version.version
    is_served = is_new and config.promote.smoke_test
    with starting_server(version, config.tracking) if is_served else nullcontext() as server:
        evaluation = evaluate_pair(version, champion, splits, config)
        verdict = judge(evaluation, config)
        if verdict.decision != "promote":
            return evaluation, verdict
        golden = golden_photos(splits.test, config.registry.n_parity)
        classifier = registry.load(config.tracking, version)
        scores = logits(classifier, photos_of(golden), config.embed)  # (N, K)
        expected = prediction_table(scores, classifier.card)
        paths = list(golden.path)
        parity = golden_parity(version, paths, expected, config.tracking, server)
    evaluation = replace(evaluation, pair=replace(evaluation.pair, parity=parity))
    return evaluation, judge(evaluation, config)


def _carry_out(stored: StoredVerdict, version: RegisteredVersion, who: str, now: datetime) -> None:
    """Store the verdict, move the alias or record the decision, and set the tags last.

    Raises:
        ChampionMoved: the champion is not the version that the verdict compared with.
    """
    verdict, tracking = stored.verdict, stored.config.tracking
    registry.set_tags(tracking, version, {APPROVAL: ""})  # an earlier approval does not count
    save_verdict(version, stored, tracking)
    if verdict.moves_champion:
        change = ChampionChange("promote", version.version, verdict.id, verdict.reason, who)
        registry.move_champion(tracking, verdict.name, change, verdict.champion, now)
    else:
        reason = f"version {version.version} {verdict.status_text}: {verdict.reason}"
        is_open = verdict.is_pending or verdict.decision == "hold"
        record = DecisionRecord("hold" if is_open else "keep", verdict.id, reason, who)
        registry.record_decision(tracking, verdict.name, record, now, verdict.champion)
    _tag_decision(verdict, version, tracking)


def _tag_decision(verdict: Verdict, version: RegisteredVersion, tracking: TrackingConfig) -> None:
    approval = PENDING if verdict.is_pending else ""
    tags = {"verdict": verdict.decision, "why": verdict.reason, APPROVAL: approval}
    registry.set_tags(tracking, version, tags)
