"""What the verdict promises, on duels small enough to count by hand."""

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from regraft.behaviour import Behaviour, MustPass
from regraft.classifier import contract_of
from regraft.config import Config, with_settings
from regraft.promote import Contenders, Duel, judge
from regraft.registry.parity import WayParity

LABELS = "aaaabbbccc" * 10  # the majority class is a: 40 %
WRONG = {"a": "b", "b": "c", "c": "a"}


def rule(*settings: str) -> Config:
    return with_settings(Config(), settings)


def said(wrong_at: range | list[int] = (), labels: str = LABELS) -> str:
    """The labels, wrong at these places."""
    return "".join(WRONG[c] if at in set(wrong_at) else c for at, c in enumerate(labels))


def share_right(answers: str, labels: str) -> float:
    """What a calibrated model would be as sure of."""
    return float(np.mean([said == label for said, label in zip(answers, labels, strict=True)]))


def duel(challenger: str, champion: str | None, labels: str = LABELS, **known: object) -> Duel:
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
    contenders = Contenders(
        name="letters",
        challenger=2,
        champion=1 if champion else None,
        contract=contract_of(tuple("abc"), tuple("abc")),
        majority=Counter(labels).most_common(1)[0][0],
        behaviour=Behaviour(0, {}, ()),
        ms=5.0,
        mb=20.0,
    )
    return Duel(replace(contenders, **known), photos)


def guard(verdict, name):
    [found] = [line for line in verdict.guards if line.name == name]
    return found


def outcomes(verdict):
    return {line.name: line.outcome for line in verdict.guards}


def test_first_model_is_promoted_when_it_clears_the_floor():
    verdict = judge(duel(said(range(30)), None), rule())
    assert verdict.decision == "promote"
    assert verdict.champion is None
    assert verdict.reason == "the first model, and it clears the floor"
    assert verdict.evidence == {"n_test": 100, "test_accuracy": 0.7, "majority_share": 0.4}


def test_first_model_no_better_than_the_largest_class_is_not_promoted():
    verdict = judge(duel("a" * 100, None), rule())
    assert verdict.decision == "keep"
    assert verdict.reason == (
        "below the floor: 40.0% of the test photos right, and always naming the largest class "
        "gives 40.0%"
    )


def test_first_model_below_the_configured_accuracy_is_not_promoted():
    verdict = judge(duel(said(range(30)), None), rule("promote.min_accuracy=0.71"))
    assert verdict.decision == "keep"
    assert verdict.reason == "below the floor: 70.0% right, promote.min_accuracy 71.0%"
    assert judge(duel(said(range(30)), None), rule("promote.min_accuracy=0.7")).moves


def test_tie_keeps_the_champion():
    verdict = judge(duel(said([99]), said([6])), rule())
    assert verdict.decision == "keep"
    assert verdict.reason.startswith("a tie keeps the champion: 99.0% against the champion's 99.0%")


def test_better_challenger_is_promoted_with_the_numbers_that_say_so():
    verdict = judge(duel(said(range(1)), said(range(10, 20))), rule())
    assert verdict.decision == "promote"
    assert verdict.reason == (
        "better: 99.0% against the champion's 90.0% on the same 100 photos (gain +9.0%, p = 0.0059)"
    )
    counts = ("both_right", "only_champion", "only_challenger", "both_wrong", "n", "n_seen")
    assert [verdict.evidence[name] for name in counts] == [89, 1, 10, 0, 100, 0]
    assert verdict.moves
    assert verdict.serves


def test_better_challenger_without_proof_is_kept_and_told_what_could_have_been_shown():
    verdict = judge(duel(said([0]), said([1, 2, 4])), rule())
    assert verdict.decision == "keep"
    assert verdict.reason.startswith("not shown to be better: 99.0% against the champion's 97.0%")
    line = guard(verdict, "smallest gain")
    assert line.said == f"100 photos show a true gain of {line.measured:.1%} with a chance of 80%"
    assert 0.03 < line.measured < 0.12


def test_worse_challenger_is_kept_out():
    verdict = judge(duel(said(range(30)), said()), rule())
    assert verdict.decision == "keep"
    assert verdict.reason.startswith("worse: 70.0% against the champion's 100.0%")
    assert outcomes(verdict)["negative flips"] == "failed"
    assert "it also fails: recall, negative flips" in verdict.reason


def test_gain_must_be_shown_to_be_more_than_min_gain():
    clear = duel(said(), said(range(10)))
    assert judge(clear, rule("promote.min_gain=0.02")).decision == "promote"
    verdict = judge(clear, rule("promote.min_gain=0.09"))
    assert verdict.decision == "keep"
    assert verdict.reason.startswith("not shown to be better by more than 9.0%: 100.0% against")


def test_model_that_is_not_inferior_may_replace_an_equal_one():
    equal, settings = duel(said([3], LABELS * 5), said([6], LABELS * 5), LABELS * 5), rule()
    assert judge(equal, settings).decision == "keep"
    verdict = judge(equal, rule("promote.rule=not_inferior", "promote.max_loss=0.02"))
    assert verdict.decision == "promote"
    assert verdict.reason.startswith("not worse by 2.0%: 99.8% against")


def test_model_that_might_have_lost_too_much_is_not_shown_to_be_as_good():
    loses = duel(said(range(4)), said())
    verdict = judge(loses, rule("promote.rule=not_inferior", "promote.max_loss=0.02"))
    assert verdict.reason.startswith("not shown to be as good: 96.0% against")


def test_floor_applies_to_a_challenger_that_beats_the_champion():
    verdict = judge(duel("a" * 100, "b" * 40 + "a" * 60), rule())
    assert verdict.decision == "keep"
    assert verdict.reason.startswith("below the floor")


def test_photos_that_a_contender_was_trained_on_do_not_count():
    close = duel(said(), said(range(10)))
    photos = close.photos.assign(seen=[at < 10 for at in range(100)])  # all on which they differ
    verdict = judge(replace(close, photos=photos), rule())
    assert verdict.decision == "keep"
    assert verdict.reason.startswith("a tie keeps the champion: 100.0%")
    assert (verdict.evidence["n"], verdict.evidence["n_seen"]) == (90, 10)
    assert guard(verdict, "photos").said == (
        "90 of 100 test photos compared: 10 were trained or chosen on"
    )


@pytest.mark.parametrize("challenger", [said(), said(range(30)), said(range(10))])
def test_too_few_photos_decide_nothing_however_they_were_answered(challenger):
    close = duel(challenger, said(range(10)))
    photos = close.photos.assign(seen=[at >= 19 for at in range(100)])
    verdict = judge(replace(close, photos=photos), rule())
    assert verdict.decision == ("keep" if challenger == said(range(30)) else "hold")  # the floor
    if verdict.decision == "hold":
        assert verdict.reason == (
            "cannot be decided: too few photos: 19 of 100 test photos compared: 81 were trained or "
            "chosen on; promote.min_photos is 20"
        )
    assert not verdict.serves
    assert "accuracy" not in outcomes(verdict)


def test_photos_that_were_all_trained_on_decide_nothing_even_of_the_first_model():
    for champion in (None, said()):
        first = duel(said(), champion)
        verdict = judge(replace(first, photos=first.photos.assign(seen=True)), rule())
        assert verdict.decision == "hold"
        assert verdict.reason == (
            "cannot be decided: all 100 test photos were trained or chosen on"
        )


def test_floor_is_asked_about_photos_that_the_model_has_not_seen():
    photos = duel(said(range(60)), None).photos.assign(seen=[at >= 60 for at in range(100)])
    first = replace(duel(said(range(60)), None), photos=photos)
    assert judge(first, rule()).reason.startswith("below the floor: 0.0% of the test photos right")


def test_vacancy_does_not_replace_the_duel():
    vacant = duel(said(), None, last_champion=3)
    verdict = judge(vacant, rule())
    assert verdict.decision == "hold"
    assert verdict.reason == (
        "cannot be decided: no version serves, though version 3 did: let one serve first "
        "(regraft rollback letters)"
    )


def test_model_whose_ancestor_is_gone_cannot_be_compared():
    verdict = judge(duel(said(), said(range(10)), unknown_ancestor=2), rule())
    assert verdict.decision == "hold"
    assert "what version 2 started from is no longer in the registry" in verdict.reason


def test_copies_of_one_photo_count_once():
    close = duel(said(), said(range(10)))
    photos = close.photos.assign(unit=[max(at, 9) for at in range(100)])  # the first ten are one
    verdict = judge(replace(close, photos=photos), rule())
    assert (verdict.evidence["n"], verdict.evidence["only_challenger"]) == (91, 1)
    assert verdict.decision == "keep"
    assert guard(verdict, "photos").said.endswith(", 9 are copies of another")


def test_model_that_is_unsure_of_nearly_all_is_stopped():
    sure = duel(said(), None, abstain_below=0.95)
    assert guard(judge(sure, rule()), "coverage").said == (
        "100.0% of 100 photos are answered (confidence >= 0.95), at least 50.0%"
    )
    shy = replace(sure, photos=sure.photos.assign(challenger_confidence=0.94))
    assert judge(shy, rule()).reason.startswith("0.0% of 100 photos are answered")
    assert judge(shy, rule("promote.min_coverage=0")).moves


def test_answers_that_are_no_numbers_stop_the_challenger():
    contest = duel(said(), said(range(10)))
    broken = contest.photos.assign(challenger_confidence=math.nan)
    assert judge(replace(contest, photos=broken), rule()).reason.startswith(
        "100 of 100 answers are no numbers"
    )


def test_missing_class_decides_nothing():
    close = duel(said(), said(range(10)))
    photos = close.photos.assign(seen=close.photos.label == "c")
    verdict = judge(replace(close, photos=photos), rule())
    assert verdict.decision == "hold"
    assert verdict.reason.startswith("cannot be decided: a class is missing: 70 of 100 test photos")
    assert verdict.reason.endswith("of c fewer than 1")
    loose = judge(replace(close, photos=photos), rule("promote.min_class_photos=0"))
    assert loose.decision == "promote"


def test_photos_of_a_class_that_only_the_challenger_knows_are_left_out():
    contract = contract_of(tuple("ab"), tuple("abc"))
    champion = said(range(12)).replace("c", "b")
    contest = duel(said(), champion, contract=contract)
    photos = contest.photos.assign(champion_confidence=60 / 70)
    verdict = judge(replace(contest, photos=photos), rule())
    assert verdict.decision == "promote"
    assert (verdict.evidence["n"], verdict.evidence["n_other_classes"]) == (70, 30)
    assert guard(verdict, "classes").said == "added c"


def test_challenger_that_lacks_a_class_of_the_champion_needs_a_flag():
    fewer = duel(said(), said(range(10)), contract=contract_of(tuple("abcd"), tuple("abc")))
    verdict = judge(fewer, rule())
    assert verdict.decision == "keep"
    assert verdict.reason == (
        "the challenger lacks classes of the champion: d (classes.allow_removal is off)"
    )
    allowed = judge(fewer, rule("classes.allow_removal=true"))
    assert allowed.decision == "promote"
    assert guard(allowed, "classes").said == "removed d"


def test_same_version_is_already_the_champion():
    itself = duel(said(), said())
    itself = replace(itself, contenders=replace(itself.contenders, challenger=1))
    verdict = judge(itself, rule("promote.min_accuracy=1.0"))
    assert verdict.decision == "keep"
    assert verdict.reason == "version 1 is already the champion"
    assert verdict.serves


def test_class_that_got_worse_stops_a_challenger_that_is_better_in_all():
    labels = "a" * 60 + "b" * 60 + "c" * 60
    challenger = said(range(120, 134), labels)  # loses 14 photos of c
    champion = said(range(50), labels)  # had lost 50 of a
    verdict = judge(duel(challenger, champion, labels), rule())
    assert outcomes(verdict)["accuracy"] == "passed"
    assert verdict.decision == "keep"
    assert verdict.reason.startswith("worse: c (-23.3% on 60) (p = ")
    tolerant = judge(duel(challenger, champion, labels), rule("promote.max_recall_drop=0.3"))
    assert tolerant.decision == "promote"


def test_slice_that_got_worse_stops_the_challenger():
    labels = LABELS * 2
    contest = duel(said(range(0, 12), labels), said(range(100, 140), labels), labels)
    inside = ["night" if at < 50 else "day" for at in range(200)]
    sliced = replace(contest, photos=contest.photos.assign(**{"slice:light": inside}))
    verdict = judge(sliced, rule("promote.max_recall_drop=1"))
    assert guard(verdict, "slices").said.startswith("worse: light night (-24.0% on 50)")
    assert verdict.decision == "keep"
    assert judge(contest, rule("promote.max_recall_drop=1")).decision == "promote"


def test_model_that_became_too_sure_of_itself_is_stopped():
    contest = duel(said(range(0, 20)), said(range(20, 60)))
    loose = rule("promote.max_negative_flips=1", "promote.max_recall_drop=1")
    assert judge(contest, loose).decision == "promote"
    boasts = contest.photos.assign(challenger_confidence=0.99)
    verdict = judge(replace(contest, photos=boasts), loose)
    assert verdict.reason.startswith("calibration error +22.1% against the champion's (p = ")


def test_negative_flips_are_counted_listed_and_limited():
    contest = duel(said([0, 4, 7]), said(range(20, 40)))
    verdict = judge(contest, rule())
    assert verdict.decision == "promote"
    assert [(flip.path, flip.champion, flip.challenger) for flip in verdict.flips] == [
        ("/photos/0.png", "a", "b"),
        ("/photos/4.png", "b", "c"),
        ("/photos/7.png", "c", "a"),
    ]
    strict = judge(contest, rule("promote.max_negative_flips=0.02"))
    assert strict.reason == (
        "3 of 100 photos were right before and are wrong now (3.0%, at most 2.0%)"
    )


def test_must_pass_photo_that_is_wrong_or_unreadable_stops_even_the_first_model():
    photos = (
        MustPass("/must/a.png", "a", "a", 0.9, ""),
        MustPass("/must/b.png", "b", "", 0.0, "truncated: no pixels"),
    )
    verdict = judge(duel(said(), None, behaviour=Behaviour(0, {}, photos)), rule())
    assert verdict.reason == (
        "1 of 2 must-pass photos answered wrongly (first: /must/b.png, truncated: no pixels)"
    )


@pytest.mark.parametrize("change", ["flip", "jpeg", "brightness", "rotation"])
def test_unstable_answers_stop_the_challenger(change):
    stays = {"flip": 0.675, "jpeg": 0.9, "brightness": 0.9, "rotation": 0.9} | {change: 0.5}
    unstable = duel(said(), None, behaviour=Behaviour(40, stays, ()))
    verdict = judge(unstable, rule())
    told = f"50.0% of 40 answers stay under {change}, at least 70.0%; shown to be fewer (p = "
    assert verdict.reason.startswith(told)
    assert guard(verdict, f"stable: {change}").outcome == "failed"
    assert judge(unstable, rule(f"behaviour.min_{change}=0.6")).decision == "promote"


def test_latency_and_size_are_noted_and_limited_where_a_limit_is_set():
    verdict = judge(duel(said(), None), rule())
    assert guard(verdict, "latency").said == "5.0 ms a photo, no limit"
    slow = judge(duel(said(), None), rule("promote.max_ms=4"))
    assert slow.reason == "5.0 ms a photo, at most 4"
    large = judge(duel(said(), None), rule("promote.max_mb=19.5"))
    assert large.reason == "20.0 MB of weights, at most 19.5"


def test_way_of_serving_that_answers_otherwise_stops_the_challenger():
    good = WayParity("predict", 8, 1e-7, 1.0, "")
    other = WayParity("server", 8, 0.02, 0.875, "")
    dead = WayParity("server", 8, math.inf, 0.0, "the server did not come up")
    assert judge(duel(said(), None, parity=(good,)), rule()).decision == "promote"
    verdict = judge(duel(said(), None, parity=(good, other)), rule())
    assert verdict.reason == (
        "probabilities of 8 golden photos differ by up to 0.02, 88% of the labels agree"
    )
    assert judge(duel(said(), None, parity=(dead,)), rule()).reason == "the server did not come up"


def test_verdict_that_needs_a_human_waits_and_moves_nothing():
    verdict = judge(duel(said(), None), rule("promote.approval=human"))
    assert verdict.decision == "promote"
    assert verdict.waits
    assert not verdict.moves
    assert not verdict.serves
    assert verdict.told_standing == "waits for approval"
    assert not judge(duel("a" * 100, None), rule("promote.approval=human")).waits


def test_same_duel_has_the_same_verdict_id_and_another_rule_another():
    contest = duel(said(), said(range(10)))
    first = judge(contest, rule())
    faster = replace(contest, contenders=replace(contest.contenders, ms=1.0))
    assert judge(faster, rule()).id == first.id
    assert judge(contest, rule("promote.reports_url=/elsewhere")).id == first.id
    surer = replace(contest, photos=contest.photos.assign(champion_confidence=0.5))
    assert judge(surer, rule()).id != first.id
    assert judge(contest, rule("promote.level=0.01")).id != first.id
    assert judge(duel(said(), said(range(11))), rule()).id != first.id


def test_verdict_tells_every_guard_a_line():
    told = judge(duel(said([0]), said(range(10, 20))), rule()).told("letters/2")
    lines = told.splitlines()
    assert lines[0] == "letters/2 against champion version 1: promoted"
    assert "  ok    negative flips  1 of 100 photos were right before" in told
    names = ("floor", "classes", "photos", "accuracy", "smallest gain", "recall", "calibration")
    assert all(any(name in line for line in lines) for name in names)
