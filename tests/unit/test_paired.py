"""Paired statistics: checked by hand, by brute force, and by many draws."""

import itertools
import math
from bisect import bisect_left
from functools import cache

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.stats import binomtest, bootstrap, multinomial

from regraft.stats import (
    compute_power,
    discordant_share,
    gain_p_value,
    holm,
    mcnemar,
    paired_bootstrap,
    paired_interval,
    smallest_gain,
)
from regraft.stats.score import score

LEVEL = 0.05
N_DRAWS = 2000
MARGINS = (0.03, -0.02)


def error_of(share):
    """Three standard errors of a share of N_DRAWS draws."""
    return 3 * math.sqrt(share * (1 - share) / N_DRAWS)


@cache
def fewest_wins(n, losses, margin):
    """The fewest wins that show the gain; that p falls with wins and rises with losses, see below.

    So it is never less than with one loss fewer, and it is looked for from there on.
    """
    if losses:
        wins = range(fewest_wins(n, losses - 1, margin), n - losses + 1)
        return next((b for b in wins if is_shown(n, b, losses, margin)), n - losses + 1)
    return bisect_left(range(n + 1), True, key=lambda b: is_shown(n, b, 0, margin))


def is_shown(n, wins, losses, margin):
    return gain_p_value(n, wins, losses, margin) <= LEVEL


def share_shown(n, discordant, gain, margin, seed):
    """The share of N_DRAWS duels of n photos whose gain is shown to be above the margin."""
    chances = [(discordant + gain) / 2, (discordant - gain) / 2, 1 - discordant]
    draws = np.random.default_rng(seed).multinomial(n, chances, size=N_DRAWS)
    return float(np.mean([b >= fewest_wins(n, int(c), margin) for b, c, _ in draws]))


def all_counts(n):
    return [(b, c) for b, c in itertools.product(range(n + 1), repeat=2) if b + c <= n]


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
    interval = cache(lambda new, old: paired_interval(150, new, old))
    bounds = [interval(int(new), int(old)) for _, new, old, _ in draws]
    inside = np.mean([low <= 0.06 <= high for low, high in bounds])
    assert 0.93 < inside < 0.98


@pytest.mark.parametrize(("wins", "losses"), [(5, 0), (8, 2), (12, 7), (3, 9)])
def test_a_gain_above_0_is_shown_by_the_one_sided_coin_flips(wins, losses):
    expected = binomtest(wins, wins + losses, 0.5, alternative="greater").pvalue
    assert gain_p_value(100, wins, losses) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("n", "wins", "losses", "margin", "p"),
    [
        (0, 0, 0, 0.0, 1.0),
        (0, 0, 0, -0.5, 1.0),
        (10, 0, 0, 0.0, 1.0),
        (10, 0, 0, 0.1, 1.0),
        (10, 10, 0, 1.0, 1.0),
        (10, 0, 10, -1.0, 1.0),
        (10, 0, 9, -1.0, 0.0),
        (1, 1, 0, 0.5, 0.75),  # won by (1 + 0.5) / 2 if every photo is discordant
        (2, 0, 0, -0.9, 0.01),  # nothing lost in two photos, each lost by 0.9
    ],
)
def test_p_values_that_can_be_counted_by_hand(n, wins, losses, margin, p):
    assert gain_p_value(n, wins, losses, margin) == pytest.approx(p, abs=1e-9)


@pytest.mark.parametrize("margin", [-0.9, -0.1, -0.02, 0.001, 0.03, 0.4])
def test_the_score_takes_its_spread_from_the_likeliest_models_with_that_gain(margin):
    n = 30
    for wins, losses in ((9, 3), (1, 8), (15, 15), (20, 1)):

        def unlikelihood(lost, cell=(wins, losses)):
            chances = np.array([lost + margin, lost, 1 - 2 * lost - margin])
            return -np.array([*cell, n - sum(cell)]) @ np.log(np.maximum(chances, 1e-300))

        bounds = (max(0.0, -margin), (1 - margin) / 2)
        lost = minimize_scalar(unlikelihood, bounds=bounds, method="bounded").x
        spread = math.sqrt(n * (2 * lost + margin - margin**2))
        expected = (wins - losses - n * margin) / spread
        found = score(n, np.array([wins]), np.array([losses]), margin)[0]
        assert found == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("margin", [-0.9, -0.1, -0.02, 0.0, 0.001, 0.03, 0.4])
def test_a_photo_more_that_is_won_or_less_that_is_lost_makes_p_smaller(margin):
    n = 9
    p = {counts: gain_p_value(n, *counts, margin) for counts in all_counts(n)}
    for (b, c), value in p.items():
        larger = [p[other] for other in ((b + 1, c), (b, c - 1), (b + 1, c - 1)) if other in p]
        assert all(other <= value * (1 + 1e-6) for other in larger)
        assert all(other < value or value > 0.25 for other in larger)  # near 1 there may be ties


@pytest.mark.parametrize("margin", MARGINS)
def test_p_is_the_largest_chance_of_so_high_a_score_over_all_that_may_be_true(margin):
    n, wins, losses = 25, 5, 2
    seen = score(n, np.array([wins]), np.array([losses]), margin)[0]
    as_high = [
        (b, c, n - b - c)
        for b, c in all_counts(n)
        if score(n, np.array([b]), np.array([c]), margin)[0] >= seen - 1e-12
    ]
    shares = np.linspace(abs(margin), 1, 400)
    chances = [
        multinomial.pmf(as_high, n, [(q + margin) / 2, (q - margin) / 2, 1 - q]).sum()
        for q in shares
    ]
    coins = binomtest(wins, wins + losses, 0.5, alternative="greater").pvalue
    expected = max(*chances, coins if margin > 0 else 0.0)
    assert gain_p_value(n, wins, losses, margin) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("margin", [0.0, *MARGINS])
def test_power_is_the_chance_of_all_counts_that_show_the_gain(margin):
    n, discordant, gain = 12, 0.4, 0.25
    shown = [(b, c, n - b - c) for b, c in all_counts(n) if gain_p_value(n, b, c, margin) <= LEVEL]
    chances = [(discordant + gain) / 2, (discordant - gain) / 2, 1 - discordant]
    expected = multinomial.pmf(shown, n, chances).sum()
    assert 0.05 < expected < 0.95
    assert compute_power(n, discordant, gain, margin, LEVEL) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("n", [60, 150, 400])
@pytest.mark.parametrize("discordant", [0.1, 0.3])
def test_equally_good_models_are_called_better_no_more_often_than_the_level(n, discordant):
    exact = compute_power(n, discordant, 0.0, 0.0, LEVEL)
    assert exact <= LEVEL + 1e-9
    found = share_shown(n, discordant, 0.0, 0.0, seed=n)
    assert found <= LEVEL + error_of(LEVEL)
    assert found == pytest.approx(exact, abs=error_of(exact))


@pytest.mark.parametrize("n", [60, 150, pytest.param(400, marks=pytest.mark.slow)])
@pytest.mark.parametrize("margin", MARGINS)
def test_a_gain_of_just_the_margin_is_called_more_no_more_often_than_the_level(n, margin):
    shares = np.linspace(abs(margin), 1, 200)
    sizes = [compute_power(n, share, margin, margin, LEVEL) for share in shares]
    assert max(sizes) <= LEVEL * 1.001  # what the search for the worst share may miss
    assert max(sizes) > 0.8 * LEVEL  # and nothing is given away where it can be helped
    below = [compute_power(n, share, margin - 0.02, margin, LEVEL) for share in shares]
    assert max(below) <= max(sizes)


@pytest.mark.parametrize(
    ("n", "discordant"),
    [(60, 0.3), (150, 0.1), pytest.param(400, 0.1, marks=pytest.mark.slow)],
)
@pytest.mark.parametrize("margin", MARGINS)
def test_draws_on_the_margin_agree_with_the_exact_size(n, discordant, margin):
    exact = compute_power(n, discordant, margin, margin, LEVEL)
    found = share_shown(n, discordant, margin, margin, seed=n)
    assert found <= LEVEL + error_of(LEVEL)
    assert found == pytest.approx(exact, abs=error_of(exact))


def test_who_shows_a_gain_above_a_margin_shows_that_there_is_one():
    n = 40
    for wins, losses in all_counts(n)[::20]:
        assert gain_p_value(n, wins, losses, 0.001) >= gain_p_value(n, wins, losses)


@pytest.mark.parametrize(("n", "margin"), [(60, 0.0), (150, 0.0), (400, 0.0), (150, -0.02)])
def test_the_smallest_gain_is_shown_as_often_as_it_says(n, margin):
    gain = smallest_gain(n, 0.1, margin, LEVEL, power=0.8)
    found = share_shown(n, max(0.1, gain), gain, margin, seed=n)
    assert found == pytest.approx(0.8, abs=error_of(0.8))


def test_the_smallest_gain_falls_with_more_photos_and_rises_with_the_margin_and_the_power():
    gains = [smallest_gain(n, 0.2, 0.0, LEVEL, 0.8) for n in (30, 100, 300, 1000)]
    assert gains == sorted(gains, reverse=True)
    assert gains[0] > 2 * gains[2] > 0
    wanted = [smallest_gain(300, 0.2, 0.0, LEVEL, power) for power in (0.5, 0.8, 0.95)]
    assert wanted == sorted(wanted)
    above = [smallest_gain(100, 0.2, margin, LEVEL, 0.8) for margin in (-0.05, -0.01, 0.01, 0.1)]
    assert above == sorted(above)
    assert above[0] < 0.1


def test_where_no_gain_could_be_shown_there_is_no_smallest_one():
    assert math.isnan(smallest_gain(4, 0.2, 0.0, LEVEL, 0.8))  # 1 / 16 > 0.05
    assert smallest_gain(5, 0.2, 0.0, LEVEL, 0.8) == pytest.approx(0.8 ** (1 / 5), abs=1e-5)
    assert math.isnan(smallest_gain(0, 0.2, 0.0, LEVEL, 0.8))
    assert math.isnan(smallest_gain(100, 0.2, 1.0, LEVEL, 0.8))
    assert compute_power(0, 0.2, 0.1, 0.0, LEVEL) == 0.0
    assert compute_power(100, 0.2, 0.9, 1.0, LEVEL) == 0.0
    assert compute_power(2, 1.0, -0.5, -1.0, LEVEL) == pytest.approx(7 / 16)  # not both are lost


def test_the_planned_share_of_discordant_photos_is_never_none_nor_all():
    assert discordant_share(98, 7, 2) == 0.1
    assert discordant_share(18, 0, 0) == 0.05
    assert discordant_share(9, 9, 0) < 1
    assert discordant_share(0, 0, 0) == 0.5


def test_holm_multiplies_the_smallest_by_all_the_next_by_one_less():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx((0.03, 0.06, 0.06))
    assert holm([0.6, 0.5]) == (1.0, 1.0)
    assert holm([0.02]) == (0.02,)
    assert holm([]) == ()


def test_holm_leaves_out_what_could_not_be_tested():
    assert holm([math.nan, 0.02, math.nan, 0.03]) == pytest.approx(
        (math.nan, 0.04, math.nan, 0.04), nan_ok=True
    )


def test_of_eight_tests_with_nothing_to_show_one_shows_it_no_more_often_than_the_level():
    p_values = np.random.default_rng(0).uniform(size=(N_DRAWS, 8))
    alarms = [min(holm(row)) <= LEVEL for row in p_values.tolist()]
    assert np.mean(alarms) == pytest.approx(1 - (1 - LEVEL / 8) ** 8, abs=error_of(LEVEL))
    assert np.mean(alarms) <= LEVEL + error_of(LEVEL)
    assert np.mean(p_values.min(axis=1) <= LEVEL) > 0.3  # what it is there to prevent


def mean_of(values):
    return lambda positions: float(values[positions].mean())


def test_paired_bootstrap_agrees_with_the_basic_one_of_scipy():
    values = np.random.default_rng(0).exponential(size=60)  # skewed: basic is not percentile
    ours = paired_bootstrap(60, mean_of(values), 0.8, seed=1, n_resamples=4000)
    theirs = bootstrap(
        (values,), np.mean, method="basic", n_resamples=4000, rng=np.random.default_rng(2)
    )
    assert ours.value == pytest.approx(values.mean())
    assert (ours.low, ours.high) == pytest.approx(theirs.confidence_interval, abs=0.02)
    left = 2 * values.mean() - theirs.bootstrap_distribution
    assert 0.02 < ours.p_value < 0.98
    assert ours.p_value == pytest.approx(np.mean(left <= 0.8), abs=0.03)


def test_paired_bootstrap_gives_the_same_for_the_same_seed_and_more_for_a_higher_rise():
    values = np.random.default_rng(0).normal(size=50)
    first, again, other = (paired_bootstrap(50, mean_of(values), 0.0, seed) for seed in (1, 1, 2))
    assert first == again != other
    higher = paired_bootstrap(50, mean_of(values + 0.3), 0.0, seed=1)
    assert higher.p_value < first.p_value
    assert higher.low == pytest.approx(first.low + 0.3)


# Of n draws a share p is seen with a standard error of sqrt(p (1 - p) / n): of 60 at 0.05 it is
# 0.028, so three of them allow 0 to 8 alarms (0.134), and at 0.95 at least 52 intervals (0.866).
@pytest.mark.parametrize(
    ("n_draws", "alarms", "inside"),
    [
        (60, (0.0, 0.134), (0.866, 1.0)),
        pytest.param(200, (0.015, 0.1), (0.9, 0.98), marks=pytest.mark.slow),
    ],
)
def test_a_rise_of_just_the_margin_is_called_more_about_as_often_as_the_level(
    n_draws, alarms, inside
):
    values = np.random.default_rng(3).normal(0.5, 1.0, size=(n_draws, 100))
    results = [paired_bootstrap(100, mean_of(row), 0.5, 0, n_resamples=200) for row in values]
    assert alarms[0] < np.mean([result.p_value <= LEVEL for result in results]) < alarms[1]
    covered = np.mean([result.low <= 0.5 <= result.high for result in results])
    assert inside[0] < covered < inside[1]


def test_paired_bootstrap_shows_nothing_where_there_is_nothing_to_draw():
    for n in (0, 1):
        result = paired_bootstrap(n, mean_of(np.ones(1)), 0.0, seed=0)
        assert math.isnan(result.value)
        assert result.p_value == 1.0
    equal = paired_bootstrap(30, mean_of(np.zeros(30)), 0.0, seed=0)
    assert (equal.low, equal.high, equal.p_value) == (0.0, 0.0, 1.0)
    undefined = paired_bootstrap(30, lambda positions: math.nan, 0.0, seed=0)
    assert undefined.p_value == 1.0


def gap_of(confidence, correct, n_bins=15):
    """The expected calibration error at positions, as its own sum over the bins."""
    bins = np.ceil(confidence * n_bins).astype(int) - 1

    def measure(positions):
        gaps = np.bincount(bins[positions], (correct - confidence)[positions], n_bins)
        return float(np.abs(gaps).sum() / len(positions))

    return measure


def rise_in_calibration_error(overconfidence, generator):
    """250 photos; the old model is always sure and right, the new one is seldom sure."""
    old, chance = generator.uniform(0.97, 1.0, size=250), 0.2 + 0.6 * generator.beta(2, 1.5, 250)
    new = chance + overconfidence
    before = gap_of(old, generator.uniform(size=250) < old)
    after = gap_of(new, generator.uniform(size=250) < chance)
    return paired_bootstrap(250, lambda p: after(p) - before(p), 0.05, seed=0, n_resamples=200)


def test_a_model_less_often_sure_but_as_well_calibrated_is_rarely_called_worse_calibrated():
    generator = np.random.default_rng(0)
    # The alarm is false in 2 of 100; of 40 duels 3 are seldom passed (the chance is below 0.01).
    results = [rise_in_calibration_error(0.0, generator) for _ in range(40)]
    assert np.mean([result.value for result in results]) > 0.04  # the number errs upwards
    assert sum(result.p_value <= LEVEL for result in results) <= 3
    results = [rise_in_calibration_error(0.2, generator) for _ in range(10)]
    assert np.mean([result.p_value <= LEVEL for result in results]) > 0.8
