"""Judge a challenger by its paired evaluation: the guards, the decision and the evidence."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, replace

import pandas as pd

from regraft.core.config import Config
from regraft.core.outcomes import Decision
from regraft.model.card import ClassContract
from regraft.promotion.guard import Guard, is_correct
from regraft.promotion.guards import run_guards
from regraft.promotion.pair import PairedEvaluation
from regraft.promotion.verdict import Flip, Verdict
from regraft.stats import paired_interval

# Prefixes of the settings that affect the decision; these settings are part of the verdict's id.
_DECIDING_SETTINGS = (
    "promote.m",
    "promote.rule",
    "promote.level",
    "promote.power",
    "promote.approval",
    "behaviour.",
    "classes.",
    "evaluate.n_bins",
    "evaluate.max_slice",
    "registry.parity",
)


def judge(evaluation: PairedEvaluation, config: Config) -> Verdict:
    """Return the decision about the challenger, the reason, and the result of every guard.

    The first model is promoted if no guard fails. A later model must also pass the rule of
    config.promote, unless it is a revision: the champion's weights under other class names or
    another threshold, which cannot be better or worse. The challenger is rejected if a guard fails.
    If no guard fails and at least one is inconclusive, the decision is hold. Nothing is measured
    here, so a stored paired evaluation can be judged under another configuration.

    A promotion requires that all guards pass, so a further guard cannot raise the chance of a false
    promotion above config.promote.level (intersection-union test, Berger 1982). The regression
    checks are many; they are corrected so that they rarely reject a challenger without regressions.
    """
    guards = tuple(run_guards(evaluation, config))
    decision, reason = _decide(evaluation, guards)
    verdict = Verdict(
        id="",
        decision=decision,
        reason=reason,
        name=evaluation.pair.name,
        challenger=evaluation.pair.challenger,
        champion=evaluation.pair.champion,
        guards=guards,
        evidence=dict(_evidence(evaluation)),
        flips=tuple(_flips(evaluation.compared)),
        is_pending=decision == "promote" and config.promote.approval == "human",
    )
    return replace(verdict, id=_verdict_id(evaluation, config, verdict))


def _decide(evaluation: PairedEvaluation, guards: tuple[Guard, ...]) -> tuple[Decision, str]:
    pair = evaluation.pair
    failed = [guard for guard in guards if guard.outcome == "failed"]
    if pair.is_same_model:
        today = f", although it fails today: {failed[0].message}" if failed else ""
        return "keep", f"version {pair.champion} is already the champion{today}"
    if failed:
        others = [guard.name for guard in failed[1:]]
        more = f"; other failed guards: {', '.join(others)}" if others else ""
        return "keep", f"{failed[0].message}{more}"
    inconclusive = [guard for guard in guards if guard.outcome == "inconclusive"]
    if inconclusive:
        return "hold", f"cannot be decided: {inconclusive[0].message}"
    if pair.champion is None:
        return "promote", "the first model, and its accuracy is above the floor"
    decisive = ("accuracy", "weights")
    return "promote", next(guard.message for guard in guards if guard.name in decisive)


def _evidence(evaluation: PairedEvaluation) -> Iterator[tuple[str, int | float | str]]:
    photos, compared = evaluation.photos, evaluation.compared
    yield "n_test", len(photos)
    yield "test_accuracy", float(is_correct(photos, "challenger").mean())
    if len(evaluation.unseen):
        yield "majority_share", evaluation.majority_share
    if evaluation.pair.champion is None:
        return
    yield "n_seen", int(photos.seen.sum())
    is_other = ~evaluation.unseen.label.isin(evaluation.pair.contract.retained)
    yield "n_other_classes", int(is_other.sum())
    yield "n", len(compared)
    if len(compared):
        yield from _paired_evidence(compared)


def _paired_evidence(compared: pd.DataFrame) -> Iterator[tuple[str, int | float | str]]:
    new, old = is_correct(compared, "challenger"), is_correct(compared, "champion")  # (N,), (N,)
    n, only_new, only_old = len(compared), int((new & ~old).sum()), int((old & ~new).sum())
    yield "both_right", int((new & old).sum())
    yield "only_champion", only_old
    yield "only_challenger", only_new
    yield "both_wrong", int((~new & ~old).sum())
    yield "challenger_accuracy", float(new.mean())
    yield "champion_accuracy", float(old.mean())
    yield "gain", (only_new - only_old) / n
    low, high = paired_interval(n, only_new, only_old)
    yield "gain_low", low
    yield "gain_high", high


def _flips(compared: pd.DataFrame) -> Iterator[Flip]:
    lost = compared[is_correct(compared, "champion") & ~is_correct(compared, "challenger")]
    ordered = lost.sort_values("challenger_confidence", ascending=False, kind="stable")
    for photo in ordered.to_dict("records"):
        yield Flip(
            path=str(photo["path"]),
            label=str(photo["label"]),
            champion=str(photo["champion"]),
            challenger=str(photo["challenger"]),
            confidence=float(photo["challenger_confidence"]),
        )


def _verdict_id(evaluation: PairedEvaluation, config: Config, verdict: Verdict) -> str:
    """Return 12 hex digits: a hash of the inputs, the configuration and the outcome."""
    settings = {
        name: text for name, text in config.flat().items() if name.startswith(_DECIDING_SETTINGS)
    }
    outcomes = [[guard.name, guard.outcome] for guard in verdict.guards]
    pair = replace(evaluation.pair, ms=0.0, parity=())  # these differ between machines
    digest = hashlib.sha256(evaluation.photos.to_csv(index=False).encode())
    content = [settings, outcomes, verdict.decision, asdict(pair)]
    digest.update(json.dumps(content, default=ClassContract.model_dump).encode())
    return digest.hexdigest()[:12]
