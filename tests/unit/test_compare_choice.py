"""The Pareto front and the rule that chooses a backbone, on small numbers."""

import numpy as np
import pytest

from regraft.evaluation.compare.choice import Speed, choose, pareto_front


def answers(*n_right: int, n: int = 100) -> np.ndarray:
    """Rows of answers; each backbone is right about the first so many photos."""
    return np.array([np.arange(n) < right for right in n_right])


def steady(*ms: float) -> Speed:
    return Speed(np.array(ms), np.array(ms), np.array(ms))


def chosen(hits, *ms: float) -> int:
    return choose(hits, steady(*ms)).chosen


def test_a_slower_and_worse_one_is_not_on_the_front():
    front = pareto_front(np.array([0.9, 0.8, 0.7]), np.array([3.0, 1.0, 2.0]))
    assert front.tolist() == [True, True, False]


def test_of_two_that_are_equal_both_are_on_the_front():
    assert pareto_front(np.array([0.9, 0.9]), np.array([1.0, 1.0])).tolist() == [True, True]


def test_of_two_equally_good_the_slower_is_not_on_the_front():
    assert pareto_front(np.array([0.9, 0.9]), np.array([2.0, 1.0])).tolist() == [False, True]


def test_a_faster_one_not_shown_to_be_worse_is_chosen():
    choice = choose(answers(90, 85), steady(10.0, 1.0))  # five photos apart: p = 1/16
    assert (choice.best, choice.chosen) == (0, 1)
    assert choice.p_values.tolist() == [1.0, pytest.approx(0.0625)]


def test_a_faster_one_shown_to_be_worse_is_not():
    assert chosen(answers(90, 84), 10.0, 1.0) == 0  # six photos apart: p = 1/32


def test_answers_are_compared_in_pairs_not_by_their_totals():
    one = np.array([True] * 50 + [False] * 50)
    noisy = np.array([True] * 30 + [False] * 50 + [True] * 14 + [False] * 6)
    assert one.sum() - noisy.sum() == 6  # as above, but they differ in 34 photos: p = 0.39
    assert chosen(np.array([one, noisy]), 10.0, 1.0) == 1


def test_of_equal_answers_the_fastest_is_chosen():
    assert chosen(answers(80, 80, 80), 3.0, 1.0, 2.0) == 1


def test_of_equally_fast_ones_the_more_accurate_is_chosen():
    assert chosen(answers(79, 80), 1.0, 1.0) == 1


def test_a_full_tie_keeps_the_first():
    choice = choose(answers(80, 80), steady(1.0, 1.0))
    assert (choice.best, choice.chosen) == (0, 0)


@pytest.mark.parametrize("n_draws", [60, pytest.param(200, marks=pytest.mark.slow)])
def test_one_that_is_dominated_is_never_chosen(n_draws):
    generator = np.random.default_rng(0)
    for _ in range(n_draws):
        hits, ms = generator.random((5, 40)) < 0.8, generator.integers(1, 4, 5).astype(float)
        assert pareto_front(hits.mean(axis=1), ms)[chosen(hits, *ms)]


def test_one_that_is_more_accurate_but_shown_to_be_worse_does_not_help_a_worse_one():
    """What is right about other photos than the best may be less accurate, yet not shown worse."""
    best = np.array([True] * 80 + [False] * 20)
    shown = np.array([True] * 74 + [False] * 26)  # six photos, all one way: p = 1/32
    unsure = np.array([True] * 60 + [False] * 20 + [True] * 12 + [False] * 8)  # p = 0.22
    assert chosen(np.array([best, shown, unsure]), 10.0, 1.0, 2.0) == 0


def test_where_speeds_are_not_clearly_apart_the_more_accurate_is_chosen():
    hits = answers(90, 88)
    apart = Speed(np.array([5.0, 3.0]), np.array([4.0, 2.0]), np.array([6.0, 3.9]))
    close = Speed(np.array([5.0, 3.0]), np.array([3.5, 2.0]), np.array([6.0, 3.9]))
    assert (choose(hits, apart).chosen, choose(hits, close).chosen) == (1, 0)


def test_alone_one_is_best_and_chosen():
    choice = choose(answers(1), steady(1.0))
    assert (choice.best, choice.chosen, choice.p_values.tolist()) == (0, 0, [1.0])
