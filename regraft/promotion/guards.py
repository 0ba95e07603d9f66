"""The guards of a verdict: each checks one property of the challenger and reports its number."""

import math
import shlex
from collections.abc import Iterator

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from regraft.core.config import Config, PromoteConfig
from regraft.core.outcomes import CheckOutcome
from regraft.evaluation.behaviour_result import Behaviour
from regraft.promotion.guard import NO_LIMIT, Guard, is_correct
from regraft.promotion.pair import ModelPair, PairedEvaluation
from regraft.promotion.regressions import regression_checks
from regraft.stats import discordant_share, gain_p_value, holm, smallest_gain


def run_guards(evaluation: PairedEvaluation, config: Config) -> Iterator[Guard]:
    """Yield every guard that applies to this paired evaluation, in the order of display."""
    yield check_floor(evaluation, config.promote)
    yield check_coverage(evaluation, config.promote)
    if evaluation.pair.champion is None:
        yield from check_previous_champion(evaluation.pair)
    elif not evaluation.pair.is_same_model:
        yield check_classes(evaluation.pair, config)
        yield from compare_models(evaluation, config)
    yield from check_behaviour(evaluation.pair, config)
    yield from check_costs(evaluation.pair, config.promote)
    yield from check_serving(evaluation.pair, config.registry.parity_tolerance)


def compare_models(evaluation: PairedEvaluation, config: Config) -> Iterator[Guard]:
    """Yield the guards that compare the challenger with the champion.

    A revision has the champion's weights, so each photo has the same prediction of both, and no
    number of photos could show it to be better.
    """
    if changes := evaluation.pair.revises:
        message = f"the same weights as version {evaluation.pair.champion}; {changes}"
        yield Guard("weights", "passed", math.nan, NO_LIMIT, message)
        return
    photos = check_photos(evaluation, config.promote)
    yield photos
    if photos.outcome == "passed":  # otherwise the two models cannot be compared
        yield from check_accuracy(evaluation.compared, config.promote)
        yield from regression_checks(evaluation.compared, config)
        yield check_negative_flips(evaluation.compared, config.promote)


def check_floor(evaluation: PairedEvaluation, config: PromoteConfig) -> Guard:
    """Check that the accuracy exceeds the majority class's and reaches promote.min_accuracy.

    The accuracy is that on unseen photos. Without such photos the guard is inconclusive.
    """
    unseen, wanted = evaluation.unseen, config.min_accuracy
    if not len(unseen):
        message = f"all {len(evaluation.photos)} test photos were used in training or selection"
        return Guard("floor", "inconclusive", math.nan, wanted, message)
    n_invalid = int((~np.isfinite(unseen.challenger_confidence)).sum())
    if n_invalid:
        message = f"{n_invalid} of {len(unseen)} predictions have a confidence that is not finite"
        return Guard("floor", "failed", math.nan, wanted, message)
    accuracy = float(is_correct(unseen, "challenger").mean())
    baseline = evaluation.majority_share
    if accuracy <= baseline:
        message = (
            f"below the floor: {accuracy:.1%} of the test photos correct, the majority class alone "
            f"gives {baseline:.1%}"
        )
        return Guard("floor", "failed", accuracy, baseline, message)
    if accuracy < wanted:
        message = f"below the floor: {accuracy:.1%} correct, promote.min_accuracy {wanted:.1%}"
        return Guard("floor", "failed", accuracy, wanted, message)
    limit = max(baseline, wanted)
    message = f"{accuracy:.1%} correct, the floor is {limit:.1%}"
    return Guard("floor", "passed", accuracy, limit, message)


def check_coverage(evaluation: PairedEvaluation, config: PromoteConfig) -> Guard:
    """Check that the challenger does not answer "unsure" on too many photos."""
    threshold, unseen = evaluation.pair.abstain_below, evaluation.unseen
    if not threshold or not len(unseen):
        return Guard("coverage", "info", 1.0, NO_LIMIT, "every photo is answered")
    coverage = float((unseen.challenger_confidence >= threshold).mean())
    outcome: CheckOutcome = "failed" if coverage < config.min_coverage else "passed"
    message = (
        f"{coverage:.1%} of {len(unseen)} photos are answered (confidence >= {threshold:.3g}), at "
        f"least {config.min_coverage:.1%}"
    )
    return Guard("coverage", outcome, coverage, config.min_coverage, message)


def check_previous_champion(pair: ModelPair) -> Iterator[Guard]:
    """Without a champion, require a rollback first if there was a champion before.

    Otherwise removing the alias would replace the comparison.
    """
    if previous := pair.last_champion:
        message = (
            f"there is no champion now, but version {previous} was champion before: restore a "
            f"champion first (regraft rollback {shlex.quote(pair.name)})"
        )
        yield Guard("previous champion", "inconclusive", previous, NO_LIMIT, message)


def check_classes(pair: ModelPair, config: Config) -> Guard:
    """Check that the challenger has every class of the champion."""
    contract, n = pair.contract, len(pair.contract.removed)
    if n and not config.classes.allow_removal:
        names = ", ".join(contract.removed)
        message = (
            f"the challenger lacks classes of the champion: {names} (classes.allow_removal is off)"
        )
        return Guard("classes", "failed", n, 0, message)
    return Guard("classes", "passed", n, NO_LIMIT, str(contract))


def check_photos(evaluation: PairedEvaluation, config: PromoteConfig) -> Guard:
    """Check that enough unseen photos of each shared class are left to compare the models."""
    pair, compared = evaluation.pair, evaluation.compared
    n, n_seen = len(compared), int(evaluation.photos.seen.sum())
    n_other = int((~evaluation.unseen.label.isin(pair.contract.retained)).sum())
    n_copies = len(evaluation.unseen) - n_other - n
    if pair.unknown_ancestor:
        message = (
            f"the parent model of version {pair.unknown_ancestor} is no longer in the registry, so "
            "the photos it was trained on are unknown"
        )
        return Guard("photos", "inconclusive", n, config.min_photos, message)
    counts = compared.label.value_counts()
    too_few = [
        name for name in pair.contract.retained if counts.get(name, 0) < config.min_class_photos
    ]
    message = (
        f"{n} of {len(evaluation.photos)} test photos compared: {n_seen} were used in training or "
        "selection"
    )
    if n_other:
        message += f", {n_other} are of classes that only one model has"
    if n_copies:
        message += f", {n_copies} are copies of another"
    if n < config.min_photos:
        message = f"too few photos: {message}; promote.min_photos is {config.min_photos}"
        return Guard("photos", "inconclusive", n, config.min_photos, message)
    if too_few:
        message = (
            f"too few photos of a class: {message}; of {', '.join(too_few)} fewer than "
            f"{config.min_class_photos}"
        )
        return Guard("photos", "inconclusive", n, config.min_photos, message)
    return Guard("photos", "passed", n, config.min_photos, message)


def check_accuracy(compared: pd.DataFrame, config: PromoteConfig) -> Iterator[Guard]:
    """Check promote.rule: the challenger is shown to be better, or shown to be not worse.

    The second guard is the smallest gain that this number of photos can show. With it a reader can
    distinguish a model that is no better from too few photos.
    """
    new, old = is_correct(compared, "challenger"), is_correct(compared, "champion")  # (N,), (N,)
    n, b, c = len(compared), int((new & ~old).sum()), int((old & ~new).sum())
    margin = config.min_gain if config.rule == "superior" else 0.0 - config.max_loss
    gain, p_value = (b - c) / n, gain_p_value(n, b, c, margin)
    outcome: CheckOutcome = "passed" if p_value <= config.level else "failed"
    numbers = (
        f"{new.mean():.1%} against the champion's {old.mean():.1%} on the same {n} photos "
        f"(gain {gain:+.1%}, p = {p_value:.2g})"
    )
    message = f"{_comparison_text(gain, outcome, config)}: {numbers}"
    yield Guard("accuracy", outcome, gain, margin, message)
    detectable = smallest_gain(n, discordant_share(n, b, c), margin, config.level, config.power)
    message = _detectable_gain_text(n, detectable, config)
    yield Guard("smallest gain", "info", detectable, NO_LIMIT, message)


def check_negative_flips(compared: pd.DataFrame, config: PromoteConfig) -> Guard:
    """Check the share of photos that the champion has correct and the challenger has wrong.

    Source: Yan et al. 2021, negative flip rate.
    """
    n_lost = int((is_correct(compared, "champion") & ~is_correct(compared, "challenger")).sum())
    share, limit = n_lost / len(compared), config.max_negative_flips
    outcome: CheckOutcome = "failed" if share > limit else "passed"
    message = (
        f"{n_lost} of {len(compared)} photos were correct before and are wrong now "
        f"({share:.1%}, at most {limit:.1%})"
    )
    return Guard("negative flips", outcome, share, limit, message)


def check_behaviour(pair: ModelPair, config: Config) -> Iterator[Guard]:
    """Check the must-pass photos, and how stable the predictions are under small perturbations."""
    must_pass = pair.behaviour.must_pass
    if must_pass:
        wrong = [photo for photo in must_pass if not photo.is_right]
        message = f"{len(wrong)} of {len(must_pass)} must-pass photos are wrong"
        if wrong:
            message += f" (first: {wrong[0].path}, {wrong[0].error or wrong[0].predicted})"
        if n_trained := sum(photo.trained_on for photo in must_pass):
            message += f"; {n_trained} were training photos and are no evidence"
        outcome: CheckOutcome = "failed" if wrong else "passed"
        if not wrong and n_trained == len(must_pass):
            outcome = "inconclusive"
            message += ": add photos to behaviour.must_pass that no training has"
        yield Guard("must pass", outcome, len(wrong), 0, message)
    yield from _stability(pair.behaviour, config)


def check_costs(pair: ModelPair, config: PromoteConfig) -> Iterator[Guard]:
    """Check the challenger's latency and size."""
    yield _at_most("latency", pair.ms, config.max_ms, "ms a photo")
    yield _at_most("size", pair.mb, config.max_mb, "MB of weights")


def check_serving(pair: ModelPair, tolerance: float) -> Iterator[Guard]:
    """Check that every serving channel predicts the golden photos as the evaluation did."""
    for parity in pair.parity:
        name = f"serving: {parity.channel}"
        if parity.error:
            yield Guard(name, "failed", math.inf, tolerance, parity.error)
            continue
        is_same = parity.max_difference <= tolerance and parity.agreement == 1
        outcome: CheckOutcome = "passed" if is_same else "failed"
        message = (
            f"probabilities of {parity.n} golden photos differ by up to "
            f"{parity.max_difference:.1g}, {parity.agreement:.0%} of the labels agree"
        )
        yield Guard(name, outcome, parity.max_difference, tolerance, message)


def _stability(behaviour: Behaviour, config: Config) -> Iterator[Guard]:
    """Check that the share of unchanged predictions is not shown to be below its limit.

    The p-values are corrected by Holm's method. A comparison of the bare share would fail a model
    with a true share of 77 % at a limit of 70 % in about one of nine evaluations with forty photos
    (measured; binomial).
    """
    limits = {
        "flip": config.behaviour.min_flip,
        "jpeg": config.behaviour.min_jpeg,
        "brightness": config.behaviour.min_brightness,
        "rotation": config.behaviour.min_rotation,
    }
    n = behaviour.n_photos
    adjusted = holm(
        [
            float(binomtest(round(share * n), n, limits[name], alternative="less").pvalue)
            for name, share in behaviour.agreement.items()
        ]
    )
    for (name, share), p in zip(behaviour.agreement.items(), adjusted, strict=True):
        limit = limits[name]
        outcome: CheckOutcome = "failed" if p <= config.promote.level else "passed"
        message = f"{share:.1%} of {n} predictions are unchanged under {name}, at least {limit:.1%}"
        if share < limit:
            shown = "shown" if outcome == "failed" else "not shown"
            message += f"; {shown} to be below the limit (p = {p:.2g})"
        yield Guard(f"stable: {name}", outcome, share, limit, message)


def _at_most(name: str, measured: float, limit: float, unit: str) -> Guard:
    """Return a guard for an upper limit; 0 = no limit."""
    if not limit:
        return Guard(name, "info", measured, NO_LIMIT, f"{measured:.1f} {unit}, no limit")
    message = f"{measured:.1f} {unit}, at most {limit:g}"
    return Guard(name, "failed" if measured > limit else "passed", measured, limit, message)


def _comparison_text(gain: float, outcome: CheckOutcome, config: PromoteConfig) -> str:
    if outcome == "passed":
        return "better" if config.rule == "superior" else f"not worse by {config.max_loss:.1%}"
    if config.rule == "not_inferior":
        return "not shown to be as good"
    if gain == 0:
        return "a tie keeps the champion"
    if gain < 0:
        return "worse"
    by = f" by more than {config.min_gain:.1%}" if config.min_gain else ""
    return f"not shown to be better{by}"


def _detectable_gain_text(n: int, gain: float, config: PromoteConfig) -> str:
    chance = f"with a chance of {config.power:.0%}"
    if math.isnan(gain):
        return f"{n} photos cannot show any gain {chance}"
    if config.rule == "not_inferior":
        return f"{n} photos show {chance} that a model with a true gain of {gain:+.1%} is not worse"
    return f"{n} photos show a true gain of {gain:.1%} {chance}"
