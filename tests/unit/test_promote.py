"""What the verdict promises, on paired evaluations small enough to count by hand."""

import math
import re
import sys
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from regraft.core.config import Config, apply_overrides
from regraft.evaluation.behaviour_result import Behaviour, MustPass
from regraft.model.card import Card
from regraft.model.classifier import ImageClassifier, contract_of
from regraft.promotion import ModelPair, PairedEvaluation, judge
from regraft.promotion.paired_evaluation import describe_difference
from regraft.registry.channel_parity import ChannelParity

LABELS = "aaaabbbccc" * 10  # the majority class is a: 40 %
WRONG = {"a": "b", "b": "c", "c": "a"}


@pytest.fixture(autouse=True)
def least_samples(monkeypatch):
    """Use as few bootstrap samples as the p-value allows."""
    monkeypatch.setattr(sys.modules["regraft.promotion.regressions"], "N_RESAMPLES", 200)


def rule(*settings: str) -> Config:
    return apply_overrides(Config(), settings)


def said(wrong_at: range | list[int] = (), labels: str = LABELS) -> str:
    """The labels, wrong at these positions."""
    return "".join(WRONG[c] if at in set(wrong_at) else c for at, c in enumerate(labels))


def share_right(answers: str, labels: str) -> float:
    """The confidence of a calibrated model."""
    return float(np.mean([said == label for said, label in zip(answers, labels, strict=True)]))


def paired(
    challenger: str, champion: str | None, labels: str = LABELS, **known: object
) -> PairedEvaluation:
    n = len(labels)
    photos = pd.DataFrame(
        {
            "path": [f"/photos/{at}.png" for at in range(n)],
            "sha256": [f"{at:064x}" for at in range(n)],
            "label": list(labels),
            "seen": np.zeros(n, bool),
            "unit": np.arange(n),
            "challenger": list(challenger),
            "challenger_confidence": share_right(challenger, labels),
            "champion": list(champion or [""] * n),
            "champion_confidence": share_right(champion, labels) if champion else math.nan,
        }
    )
    pair = ModelPair(
        name="letters",
        challenger=2,
        champion=1 if champion else None,
        contract=contract_of(tuple("abc"), tuple("abc")),
        majority=Counter(labels).most_common(1)[0][0],
        behaviour=Behaviour(0, {}, ()),
        ms=5.0,
        mb=20.0,
    )
    return PairedEvaluation(replace(pair, **known), photos)


def guard(verdict, name):
    [found] = [line for line in verdict.guards if line.name == name]
    return found


def stopped_by(verdict):
    """The guard whose message is the reason; it is the first that did not pass."""
    [found] = [line for line in verdict.guards if line.message and line.message in verdict.reason]
    assert found.outcome == {"keep": "failed", "hold": "inconclusive"}[verdict.decision]
    return found


def outcomes(verdict):
    return {line.name: line.outcome for line in verdict.guards}


def test_first_model_is_promoted_when_it_clears_the_floor():
    verdict = judge(paired(said(range(30)), None), rule())
    assert verdict.decision == "promote"
    assert verdict.champion is None
    assert verdict.moves_champion
    assert verdict.reason
    assert verdict.evidence == {"n_test": 100, "test_accuracy": 0.7, "majority_share": 0.4}


def test_first_model_no_better_than_the_largest_class_is_not_promoted():
    verdict = judge(paired("a" * 100, None), rule())
    assert verdict.decision == "keep"
    floor = stopped_by(verdict)
    assert (floor.name, floor.measured) == ("floor", 0.4)
    assert verdict.reason.count("40.0%") == 2  # its own share, and that of the largest class


def test_first_model_below_the_configured_accuracy_is_not_promoted():
    verdict = judge(paired(said(range(30)), None), rule("promote.min_accuracy=0.71"))
    assert verdict.decision == "keep"
    floor = stopped_by(verdict)
    assert (floor.name, floor.measured, floor.limit) == ("floor", 0.7, 0.71)
    assert re.search(r"70\.0%.* promote\.min_accuracy 71\.0%", verdict.reason)
    assert judge(paired(said(range(30)), None), rule("promote.min_accuracy=0.7")).moves_champion


def test_tie_keeps_the_champion():
    verdict = judge(paired(said([99]), said([6])), rule())
    assert verdict.decision == "keep"
    tie = stopped_by(verdict)
    assert (tie.name, tie.measured) == ("accuracy", 0.0)
    assert verdict.reason.startswith("a tie")
    assert verdict.reason.count("99.0%") == 2


def test_better_challenger_is_promoted_and_the_reason_has_the_numbers():
    verdict = judge(paired(said(range(1)), said(range(10, 20))), rule())
    assert verdict.decision == "promote"
    assert verdict.reason == guard(verdict, "accuracy").message
    assert re.findall(r"\d+\.\d%", verdict.reason) == ["99.0%", "90.0%", "9.0%"]
    assert "p = 0.0059" in verdict.reason
    counts = ("both_right", "only_champion", "only_challenger", "both_wrong", "n", "n_seen")
    assert [verdict.evidence[name] for name in counts] == [89, 1, 10, 0, 100, 0]
    assert verdict.moves_champion
    assert verdict.is_serving


def test_insignificant_gain_is_not_promoted_and_the_smallest_detectable_gain_is_reported():
    verdict = judge(paired(said([0]), said([1, 2, 4])), rule())
    assert verdict.decision == "keep"
    assert stopped_by(verdict).name == "accuracy"
    assert re.search(r"99\.0%.* 97\.0%", verdict.reason)
    line = guard(verdict, "smallest gain")
    assert 0.03 < line.measured < 0.12
    assert [number in line.message for number in ("100", f"{line.measured:.1%}", "80%")] == [
        True
    ] * 3


def test_worse_challenger_is_not_promoted():
    verdict = judge(paired(said(range(30)), said()), rule())
    assert verdict.decision == "keep"
    assert guard(verdict, "accuracy").measured == pytest.approx(-0.3)
    assert re.search(r"70\.0%.* 100\.0%", verdict.reason)
    failed = [name for name, outcome in outcomes(verdict).items() if outcome == "failed"]
    assert failed == ["accuracy", "recall", "negative flips"]
    assert "recall, negative flips" in verdict.reason


def test_gain_must_be_shown_to_be_more_than_min_gain():
    clear = paired(said(), said(range(10)))
    assert judge(clear, rule("promote.min_gain=0.02")).decision == "promote"
    verdict = judge(clear, rule("promote.min_gain=0.09"))
    assert verdict.decision == "keep"
    assert stopped_by(verdict).limit == 0.09
    assert re.search(r"9\.0%.* 100\.0%", verdict.reason)


def test_model_that_is_not_inferior_may_replace_an_equal_one():
    equal, settings = paired(said([3], LABELS * 5), said([6], LABELS * 5), LABELS * 5), rule()
    assert judge(equal, settings).decision == "keep"
    verdict = judge(equal, rule("promote.rule=not_inferior", "promote.max_loss=0.02"))
    assert verdict.decision == "promote"
    assert re.search(r"2\.0%.* 99\.8%", verdict.reason)
    assert guard(verdict, "accuracy").limit == -0.02


def test_model_that_might_have_lost_too_much_is_not_shown_to_be_as_good():
    loses = paired(said(range(4)), said())
    verdict = judge(loses, rule("promote.rule=not_inferior", "promote.max_loss=0.02"))
    assert (verdict.decision, guard(verdict, "accuracy").outcome) == ("keep", "failed")
    assert re.search(r"96\.0%.* 100\.0%", verdict.reason)


def test_floor_applies_to_a_challenger_that_beats_the_champion():
    verdict = judge(paired("a" * 100, "b" * 40 + "a" * 60), rule())
    assert verdict.decision == "keep"
    assert guard(verdict, "floor").outcome == "failed"
    assert "floor" in verdict.reason


def test_photos_that_either_model_was_trained_on_are_not_compared():
    close = paired(said(), said(range(10)))
    photos = close.photos.assign(seen=[at < 10 for at in range(100)])  # all on which they differ
    verdict = judge(replace(close, photos=photos), rule())
    assert verdict.decision == "keep"
    tie = stopped_by(verdict)
    assert (tie.name, tie.measured) == ("accuracy", 0.0)
    assert "100.0%" in verdict.reason
    assert (verdict.evidence["n"], verdict.evidence["n_seen"]) == (90, 10)
    photos = guard(verdict, "photos")
    assert photos.measured == 90
    assert re.findall(r"\d+", photos.message) == ["90", "100", "10"]


@pytest.mark.parametrize("challenger", [said(), said(range(30)), said(range(10))])
def test_too_few_photos_decide_nothing_for_any_predictions(challenger):
    close = paired(challenger, said(range(10)))
    photos = close.photos.assign(seen=[at >= 19 for at in range(100)])
    verdict = judge(replace(close, photos=photos), rule())
    assert verdict.decision == ("keep" if challenger == said(range(30)) else "hold")  # the floor
    if verdict.decision == "hold":
        fair = stopped_by(verdict)
        assert (fair.name, fair.measured, fair.limit) == ("photos", 19, 20)
        assert re.search(r"19 of 100 .* 81 .*\bmin_photos is 20", verdict.reason)
    assert not verdict.is_serving
    assert "accuracy" not in outcomes(verdict)


def test_test_photos_that_are_all_training_photos_decide_nothing_even_for_a_first_model():
    for champion in (None, said()):
        first = paired(said(), champion)
        verdict = judge(replace(first, photos=first.photos.assign(seen=True)), rule())
        assert verdict.decision == "hold"
        assert outcomes(verdict)["floor"] == "inconclusive"
        assert "100 test photos" in verdict.reason


def test_floor_is_measured_on_unseen_photos():
    photos = paired(said(range(60)), None).photos.assign(seen=[at >= 60 for at in range(100)])
    first = replace(paired(said(range(60)), None), photos=photos)
    floor = stopped_by(judge(first, rule()))
    assert (floor.name, floor.measured) == ("floor", 0.0)


def test_missing_champion_does_not_replace_the_comparison():
    vacant = paired(said(), None, last_champion=3)
    verdict = judge(vacant, rule())
    assert verdict.decision == "hold"
    vacancy = stopped_by(verdict)
    assert (vacancy.name, vacancy.measured) == ("previous champion", 3)
    assert "version 3" in verdict.reason
    assert "regraft rollback letters" in verdict.reason
    spaced = replace(vacant, pair=replace(vacant.pair, name="my letters"))
    assert "regraft rollback 'my letters'" in judge(spaced, rule()).reason


def test_model_with_a_deleted_ancestor_cannot_be_compared():
    verdict = judge(paired(said(), said(range(10)), unknown_ancestor=2), rule())
    assert verdict.decision == "hold"
    assert stopped_by(verdict).name == "photos"
    assert re.search(r"version 2 .*registry", verdict.reason)


def test_copies_of_one_photo_count_once():
    close = paired(said(), said(range(10)))
    photos = close.photos.assign(unit=[max(at, 9) for at in range(100)])  # the first ten are one
    verdict = judge(replace(close, photos=photos), rule())
    assert (verdict.evidence["n"], verdict.evidence["only_challenger"]) == (91, 1)
    assert verdict.decision == "keep"
    assert re.findall(r"\d+", guard(verdict, "photos").message) == ["91", "100", "0", "9"]


def test_model_that_abstains_on_most_photos_is_not_promoted():
    sure = paired(said(), None, abstain_below=0.95)
    coverage = guard(judge(sure, rule()), "coverage")
    assert (coverage.outcome, coverage.measured, coverage.limit) == ("passed", 1.0, 0.5)
    numbers = re.findall(r"[\d.]+%?", coverage.message)
    assert numbers == ["100.0%", "100", "0.95", "50.0%"]
    shy = replace(sure, photos=sure.photos.assign(challenger_confidence=0.94))
    coverage = stopped_by(judge(shy, rule()))
    assert (coverage.name, coverage.measured) == ("coverage", 0.0)
    assert judge(shy, rule("promote.min_coverage=0")).moves_champion


def test_confidences_that_are_not_finite_stop_the_challenger():
    contest = paired(said(), said(range(10)))
    broken = contest.photos.assign(challenger_confidence=math.nan)
    verdict = judge(replace(contest, photos=broken), rule())
    floor = stopped_by(verdict)
    assert (floor.name, math.isnan(floor.measured)) == ("floor", True)
    assert "100 of 100" in verdict.reason


def test_missing_class_decides_nothing():
    close = paired(said(), said(range(10)))
    photos = close.photos.assign(seen=close.photos.label == "c")
    verdict = judge(replace(close, photos=photos), rule())
    assert verdict.decision == "hold"
    missing = stopped_by(verdict)
    assert (missing.name, missing.measured) == ("photos", 70)
    assert re.search(r"70 of 100 .* \bc\b .* 1$", verdict.reason)
    loose = judge(replace(close, photos=photos), rule("promote.min_class_photos=0"))
    assert loose.decision == "promote"


def test_photos_of_a_class_that_only_the_challenger_knows_are_left_out():
    contract = contract_of(tuple("ab"), tuple("abc"))
    champion = said(range(12)).replace("c", "b")
    contest = paired(said(), champion, contract=contract)
    photos = contest.photos.assign(champion_confidence=60 / 70)
    verdict = judge(replace(contest, photos=photos), rule())
    assert verdict.decision == "promote"
    assert (verdict.evidence["n"], verdict.evidence["n_other_classes"]) == (70, 30)
    assert guard(verdict, "classes").message == "added c"


def test_challenger_that_lacks_a_class_of_the_champion_needs_a_flag():
    fewer = paired(said(), said(range(10)), contract=contract_of(tuple("abcd"), tuple("abc")))
    verdict = judge(fewer, rule())
    assert verdict.decision == "keep"
    lacking = stopped_by(verdict)
    assert (lacking.name, lacking.measured) == ("classes", 1)
    assert re.search(r"\bd\b.*classes\.allow_removal", verdict.reason)
    allowed = judge(fewer, rule("classes.allow_removal=true"))
    assert allowed.decision == "promote"
    assert guard(allowed, "classes").message == "removed d"


def classifier_of(classes="abc", weight=1.0, **card) -> ImageClassifier:
    preprocessing = SimpleNamespace(size=8)
    info = SimpleNamespace(preprocessing=preprocessing)
    made = Card.model_construct(
        classes=tuple(classes), backbone=info, abstain_below=0.0
    ).model_copy(update=card)
    return ImageClassifier(made, {"head.weight": torch.full((len(classes), 2), weight)})


@pytest.mark.parametrize(
    ("challenger", "renamed", "difference"),
    [
        (classifier_of("xbc"), {"a": "x"}, "a is called x"),
        (classifier_of(abstain_below=0.6), {}, "photos below a confidence of 0.6 are answered"),
        (classifier_of(), {}, ""),  # nothing differs
        (classifier_of("xbc", weight=2.0), {"a": "x"}, ""),
        (classifier_of("bxc"), {"a": "x"}, ""),  # the same rows mean other classes
        (classifier_of("xbc"), {}, ""),  # another class, not another name
    ],
)
def test_revision_has_the_same_weights_for_the_same_classes(challenger, renamed, difference):
    champion = classifier_of()
    contract = contract_of(champion.card.classes, challenger.card.classes, renamed)
    found = describe_difference(challenger, champion, contract)
    assert found.startswith(difference)
    assert bool(found) == bool(difference)


def test_same_version_is_already_the_champion():
    itself = paired(said(), said())
    itself = replace(itself, pair=replace(itself.pair, challenger=1))
    verdict = judge(itself, rule("promote.min_accuracy=1.0"))
    assert verdict.decision == "keep"
    assert "version 1" in verdict.reason
    assert verdict.status == "serving"
    assert verdict.is_serving
    too_large = judge(itself, rule("promote.max_mb=19.5"))
    assert too_large.status == "serving"
    assert "already the champion, although it fails today: 20.0 MB" in too_large.reason


def test_class_that_got_worse_stops_a_challenger_that_is_better_in_all():
    labels = "a" * 60 + "b" * 60 + "c" * 60
    challenger = said(range(120, 134), labels)  # loses 14 photos of c
    champion = said(range(50), labels)  # had lost 50 of a
    verdict = judge(paired(challenger, champion, labels), rule())
    assert outcomes(verdict)["accuracy"] == "passed"
    assert verdict.decision == "keep"
    assert stopped_by(verdict).name == "recall"
    assert "c (-23.3% on 60) (p = " in verdict.reason
    tolerant = judge(paired(challenger, champion, labels), rule("promote.max_recall_drop=0.3"))
    assert tolerant.decision == "promote"


@pytest.mark.parametrize(("n_lost", "outcome"), [(5, "passed"), (8, "failed")])
def test_losses_in_a_class_count_once_they_are_significant_after_correction(n_lost, outcome):
    """Five losses without a gain are p = 1/32; corrected for four tests that is not significant."""
    labels = "a" * 60 + "b" * 60 + "c" * 60
    contest = paired(said(range(120, 120 + n_lost), labels), said(range(30), labels), labels)
    verdict = judge(contest, rule("promote.max_recall_drop=0"))
    assert guard(verdict, "recall").outcome == outcome
    assert verdict.moves_champion == (outcome == "passed")


def test_slice_that_got_worse_stops_the_challenger():
    labels = LABELS * 2
    contest = paired(said(range(0, 12), labels), said(range(100, 140), labels), labels)
    inside = ["night" if at < 50 else "day" for at in range(200)]
    sliced = replace(contest, photos=contest.photos.assign(**{"slice:light": inside}))
    verdict = judge(sliced, rule("promote.max_recall_drop=1"))
    assert guard(verdict, "slices").outcome == "failed"
    assert "light night (-24.0% on 50)" in guard(verdict, "slices").message
    assert verdict.decision == "keep"
    assert judge(contest, rule("promote.max_recall_drop=1")).decision == "promote"


def test_overconfident_challenger_is_not_promoted():
    contest = paired(said(range(0, 20)), said(range(20, 60)))
    loose = rule("promote.max_negative_flips=1", "promote.max_recall_drop=1")
    assert judge(contest, loose).decision == "promote"
    boasts = contest.photos.assign(challenger_confidence=0.99)
    verdict = judge(replace(contest, photos=boasts), loose)
    error = stopped_by(verdict)
    assert (error.name, f"{error.measured:.3f}") == ("calibration", "0.221")
    assert re.search(r"\+22\.1%.* \(p = ", verdict.reason)


def test_negative_flips_are_counted_listed_and_limited():
    contest = paired(said([0, 4, 7]), said(range(20, 40)))
    verdict = judge(contest, rule())
    assert verdict.decision == "promote"
    assert [(flip.path, flip.champion, flip.challenger) for flip in verdict.flips] == [
        ("/photos/0.png", "a", "b"),
        ("/photos/4.png", "b", "c"),
        ("/photos/7.png", "c", "a"),
    ]
    strict = judge(contest, rule("promote.max_negative_flips=0.02"))
    flips = stopped_by(strict)
    assert (flips.name, flips.measured, flips.limit) == ("negative flips", 0.03, 0.02)
    assert re.search(r"3 of 100 .*3\.0%.* 2\.0%", strict.reason)
    assert judge(contest, rule("promote.max_negative_flips=0.03")).decision == "promote"


def test_must_pass_photo_that_is_wrong_or_unreadable_stops_even_the_first_model():
    photos = (
        MustPass("/must/a.png", "a", "a", 0.9, ""),
        MustPass("/must/b.png", "b", "", 0.0, "truncated: no pixels"),
    )
    verdict = judge(paired(said(), None, behaviour=Behaviour(0, {}, photos)), rule())
    failed = stopped_by(verdict)
    assert (failed.name, failed.measured) == ("must pass", 1)
    assert re.search(r"1 of 2 .*/must/b\.png, truncated: no", verdict.reason)


def test_must_pass_photos_that_were_all_trained_on_decide_nothing():
    trained = MustPass("/must/a.png", "a", "a", 0.9, "", trained_on=True)
    verdict = judge(paired(said(), None, behaviour=Behaviour(0, {}, (trained,))), rule())
    assert (verdict.decision, stopped_by(verdict).name) == ("hold", "must pass")
    assert re.search(r"1 were training photos and are no evidence.*must_pass", verdict.reason)
    other = replace(trained, path="/must/b.png", trained_on=False)
    both = paired(said(), None, behaviour=Behaviour(0, {}, (trained, other)))
    assert judge(both, rule()).decision == "promote"
    wrong = replace(trained, predicted="b")
    failing = paired(said(), None, behaviour=Behaviour(0, {}, (wrong,)))
    assert judge(failing, rule()).decision == "keep"


@pytest.mark.parametrize("change", ["flip", "jpeg", "brightness", "rotation"])
def test_unstable_answers_stop_the_challenger(change):
    stays = {"flip": 0.675, "jpeg": 0.9, "brightness": 0.9, "rotation": 0.9} | {change: 0.5}
    unstable = paired(said(), None, behaviour=Behaviour(40, stays, ()))
    verdict = judge(unstable, rule())
    changed = stopped_by(verdict)
    assert (changed.name, changed.measured, changed.limit) == (f"stable: {change}", 0.5, 0.7)
    assert re.search(rf"50\.0% of 40 .*\b{change}\b.* 70\.0%.*\(p = ", verdict.reason)
    assert judge(unstable, rule(f"behaviour.min_{change}=0.6")).decision == "promote"


def test_latency_and_size_are_reported_and_limited_if_a_limit_is_set():
    verdict = judge(paired(said(), None), rule())
    latency = guard(verdict, "latency")
    assert (latency.outcome, latency.measured) == ("info", 5.0)
    assert "5.0 ms" in latency.message
    slow = stopped_by(judge(paired(said(), None), rule("promote.max_ms=4")))
    assert (slow.name, slow.measured, slow.limit) == ("latency", 5.0, 4)
    assert re.search(r"5\.0 ms.* 4$", slow.message)
    large = stopped_by(judge(paired(said(), None), rule("promote.max_mb=19.5")))
    assert (large.name, large.measured, large.limit) == ("size", 20.0, 19.5)
    assert re.search(r"20\.0 MB.* 19\.5$", large.message)


def test_serving_channel_with_other_predictions_stops_the_challenger():
    good = ChannelParity("predict", 8, 1e-7, 1.0, "")
    other = ChannelParity("server", 8, 0.02, 0.875, "")
    dead = ChannelParity("server", 8, math.inf, 0.0, "the server did not come up")
    assert judge(paired(said(), None, parity=(good,)), rule()).decision == "promote"
    verdict = judge(paired(said(), None, parity=(good, other)), rule())
    differs = stopped_by(verdict)
    assert (differs.name, differs.measured) == ("serving: server", 0.02)
    assert re.findall(r"[\d.]+%?", verdict.reason) == ["8", "0.02", "88%"]
    assert judge(paired(said(), None, parity=(dead,)), rule()).reason == dead.error


@pytest.mark.parametrize(
    ("difference", "agreement", "outcome"),
    [
        (0.001, 1.0, "passed"),
        (0.0011, 1.0, "failed"),  # the labels alone would not tell
        (0.0, 0.875, "failed"),
        (math.nan, 1.0, "failed"),
    ],
)
def test_serving_channel_must_give_the_same_probabilities_and_labels(
    difference, agreement, outcome
):
    channel = ChannelParity("pyfunc", 8, difference, agreement, "")
    verdict = judge(
        paired(said(), None, parity=(channel,)), rule("registry.parity_tolerance=0.001")
    )
    assert guard(verdict, "serving: pyfunc").outcome == outcome
    assert verdict.moves_champion == (outcome == "passed")


def revision(**known) -> PairedEvaluation:
    return paired(said([0, 5]), said([0, 5]), **({"revises": "a is called b"} | known))


def test_revision_is_promoted_by_the_guards_that_apply_because_a_tie_is_all_it_can_reach():
    verdict = judge(revision(), rule())
    assert (verdict.decision, verdict.reason) == (
        "promote",
        "the same weights as version 1; a is called b",
    )
    assert judge(revision(revises=""), rule()).decision == "keep"
    assert judge(revision(), rule("promote.approval=human")).is_pending
    names = {line.name for line in verdict.guards}
    assert {"floor", "coverage", "classes", "latency"} <= names
    assert names.isdisjoint({"accuracy", "recall", "negative flips"})


def test_revision_that_answers_too_few_photos_is_not_promoted():
    unsure = revision(revises="photos are answered unsure", abstain_below=0.99)
    assert stopped_by(judge(unsure, rule())).name == "coverage"


def test_verdict_that_needs_approval_is_pending_and_moves_no_alias():
    verdict = judge(paired(said(), None), rule("promote.approval=human"))
    assert verdict.decision == "promote"
    assert verdict.is_pending
    assert not verdict.moves_champion
    assert not verdict.is_serving
    assert verdict.status == "pending"
    assert "approval" in verdict.status_text
    assert not judge(paired("a" * 100, None), rule("promote.approval=human")).is_pending


def test_verdict_id_depends_on_predictions_and_deciding_settings_only():
    contest = paired(said(), said(range(10)))
    first = judge(contest, rule())
    faster = replace(contest, pair=replace(contest.pair, ms=1.0))
    assert judge(faster, rule()).id == first.id
    assert judge(contest, rule("promote.reports_url=/elsewhere")).id == first.id
    surer = replace(contest, photos=contest.photos.assign(champion_confidence=0.5))
    assert judge(surer, rule()).id != first.id
    assert judge(contest, rule("promote.level=0.01")).id != first.id
    assert judge(paired(said(), said(range(11))), rule()).id != first.id


def test_verdict_text_has_a_line_for_each_guard():
    told = judge(paired(said([0]), said(range(10, 20))), rule()).format_text("letters/2")
    lines = told.splitlines()
    assert re.match(r"letters/2 .* version 1: promoted$", lines[0])
    assert re.search(r"^  ok    negative flips  1 of 100 ", told, re.MULTILINE)
    names = ("floor", "classes", "photos", "accuracy", "smallest gain", "recall", "calibration")
    assert all(any(name in line for line in lines) for name in names)
