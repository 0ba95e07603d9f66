"""What the duel promises, on answers small enough to count by hand."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from regraft.config import PromoteConfig
from regraft.paired import mcnemar, paired_interval
from regraft.promote import Contender, Duel, judge

LABELS = "aaaabbbccc"  # the majority class is a: 40 %


def contender(version: int, said: str, classes: str = "abc") -> Contender:
    return Contender(version, tuple(classes), np.array(list(said)))


def duel(challenger: str, champion: str | None, labels: str = LABELS) -> Duel:
    return Duel(
        name="letters",
        labels=np.array(list(labels)),
        seen=np.zeros(len(labels), bool),
        majority_share=max(Counter(labels).values()) / len(labels),
        challenger=contender(2, challenger),
        champion=None if champion is None else contender(1, champion),
    )


def test_first_model_is_promoted_when_it_clears_the_floor():
    verdict = judge(duel("aaaabbbaaa", None), PromoteConfig())
    assert verdict.promote
    assert verdict.champion is None
    assert verdict.reason == "the first model, and it clears the floor"
    assert verdict.evidence == {"n_test": 10, "test_accuracy": 0.7, "majority_share": 0.4}


def test_first_model_no_better_than_the_largest_class_is_not_promoted():
    verdict = judge(duel("aaaaaaaaaa", None), PromoteConfig())
    assert not verdict.promote
    assert verdict.reason == (
        "below the floor: 40.0% of the test photos right, and always naming the largest class "
        "gives 40.0%"
    )


def test_first_model_below_the_configured_accuracy_is_not_promoted():
    verdict = judge(duel("aaaabbbaaa", None), PromoteConfig(min_accuracy=0.71))
    assert not verdict.promote
    assert verdict.reason == "below the floor: 70.0% right, promote.min_accuracy 71.0%"


def test_first_model_at_the_configured_accuracy_is_promoted():
    assert judge(duel("aaaabbbaaa", None), PromoteConfig(min_accuracy=0.7)).promote


def test_tie_keeps_the_champion():
    verdict = judge(duel("aaaabbbcca", "aaaabbaccc"), PromoteConfig())
    assert not verdict.promote
    assert verdict.reason.startswith("a tie keeps the champion: 90.0% against the champion's 90.0%")


def test_better_challenger_is_promoted_with_the_numbers_that_say_so():
    verdict = judge(duel("aaaabbbccb", "aaaabbaaac"), PromoteConfig())
    assert verdict.promote
    assert verdict.champion == 1
    assert verdict.reason == (
        "better: 90.0% against the champion's 70.0% on the same 10 photos (gain +20.0%, p = 0.62)"
    )
    counts = ("both_right", "only_champion", "only_challenger", "both_wrong", "n", "n_seen")
    assert [verdict.evidence[name] for name in counts] == [6, 1, 3, 0, 10, 0]


def test_worse_challenger_is_kept_out():
    verdict = judge(duel("aaaabbbaaa", "aaaabbbccc"), PromoteConfig())
    assert not verdict.promote
    assert verdict.reason.startswith("worse: 70.0% against the champion's 100.0%")


def test_gain_must_be_more_than_min_gain():
    close = duel("aaaabbbccc", "aaaabbbcca")
    verdict = judge(close, PromoteConfig(min_gain=0.1))
    assert not verdict.promote
    assert verdict.reason.startswith("not better by more than 10.0%: 100.0% against")
    assert judge(close, PromoteConfig(min_gain=0.09)).promote


def test_floor_applies_to_a_challenger_that_beats_the_champion():
    verdict = judge(duel("aaaaaaaaaa", "bbbbaaaaaa"), PromoteConfig())
    assert not verdict.promote
    assert verdict.reason.startswith("below the floor")


def test_photos_that_a_contender_was_trained_on_do_not_count():
    close = duel("aaaabbbccc", "aaaabbbcca")
    seen = np.zeros(10, bool)
    seen[9] = True  # the only photo on which they differ
    verdict = judge(replace(close, seen=seen), PromoteConfig())
    assert not verdict.promote
    assert verdict.reason.startswith("a tie keeps the champion: 100.0%")
    assert (verdict.evidence["n"], verdict.evidence["n_seen"]) == (9, 1)


def test_no_photo_left_keeps_the_champion():
    verdict = judge(replace(duel(LABELS, LABELS), seen=np.ones(10, bool)), PromoteConfig())
    assert not verdict.promote
    assert verdict.reason == "no test photo is left that neither contender has seen"


def test_classes_are_compared_by_name_whatever_their_order():
    champion = contender(1, LABELS, classes="cba")
    verdict = judge(replace(duel(LABELS, None), champion=champion), PromoteConfig())
    assert verdict.evidence["champion_accuracy"] == 1.0
    assert verdict.reason.startswith("a tie")


def test_photos_of_a_class_that_only_the_challenger_knows_are_left_out():
    champion = contender(1, "aaaabbabbb", classes="ab")
    verdict = judge(replace(duel(LABELS, None), champion=champion), PromoteConfig())
    assert verdict.promote
    assert (verdict.evidence["n"], verdict.evidence["n_other_classes"]) == (7, 3)
    assert verdict.evidence["only_challenger"] == 1


def test_challenger_that_lacks_a_class_of_the_champion_is_kept_out():
    champion = contender(1, "aaaabbbccc", classes="abcd")
    verdict = judge(replace(duel(LABELS, None), champion=champion), PromoteConfig())
    assert not verdict.promote
    assert verdict.reason == "the challenger lacks classes of the champion: d"


def test_same_version_is_already_the_champion():
    verdict = judge(
        replace(duel(LABELS, None), champion=contender(2, LABELS)), PromoteConfig(min_accuracy=1.0)
    )
    assert not verdict.promote
    assert verdict.reason == "version 2 is already the champion"


@pytest.mark.parametrize(
    ("only_new", "only_old", "p"), [(0, 0, 1.0), (1, 0, 1.0), (6, 0, 2 / 64), (3, 1, 10 / 16)]
)
def test_mcnemar_counts_the_coin_flips(only_new, only_old, p):
    assert mcnemar(only_new, only_old) == pytest.approx(p)


def test_paired_interval_is_symmetric_and_narrows_with_more_photos():
    low, high = paired_interval(100, 7, 7)
    assert low == pytest.approx(-high)
    assert paired_interval(10_000, 700, 700)[1] < high
    assert paired_interval(1, 1, 0)[1] <= 1.0


def test_paired_interval_holds_the_true_gain_95_times_in_100():
    generator = np.random.default_rng(0)
    draws = generator.multinomial(150, [0.7, 0.12, 0.06, 0.12], size=2000)
    bounds = [paired_interval(150, int(new), int(old)) for _, new, old, _ in draws]
    inside = np.mean([low <= 0.06 <= high for low, high in bounds])
    assert 0.93 < inside < 0.98


def test_verdict_holds_plain_numbers_that_any_store_takes():
    verdict = judge(duel("aaaabbbccb", "aaaabbaaac"), PromoteConfig())
    assert {type(value) for value in verdict.evidence.values()} <= {int, float}
