"""The level that a verdict states, by simulation through the whole gate.

Of n draws a share p is seen with a standard error of sqrt(p (1 - p) / n). All bounds are three of
them away, so a right gate passes whatever the seed, but for one seed in some hundred. At the level
of 0.05 that is 0.05 + 0.046 of the 200 draws of each commit, and 0.05 + 0.015 of 2000 (`slow`).
"""

import math
import sys
from functools import cache

import numpy as np
import pandas as pd
import pytest
from test_promote import paired, rule

from regraft.promotion import judge
from regraft.promotion.guards import check_accuracy
from regraft.promotion.regressions import regression_checks
from regraft.stats import compute_power, gain_p_value, smallest_gain

N, LEVEL = 150, 0.05
LABELS = "abc" * (N // 3)
WRONG = {"a": "b", "b": "c", "c": "a"}


def draws(full: int):
    """Parametrize by the number of draws: 200 in the unit tier, full in the slow tier."""
    return pytest.mark.parametrize("n_draws", [200, pytest.param(full, marks=pytest.mark.slow)])


def error_of(share: float, n_draws: int) -> float:
    return 3 * math.sqrt(share * (1 - share) / n_draws)


@pytest.fixture(scope="module", autouse=True)
def cached_p_values():
    """Cache both functions: they depend on a few counts that many draws share."""
    cached = {"gain_p_value": cache(gain_p_value), "smallest_gain": cache(smallest_gain)}
    with pytest.MonkeyPatch.context() as patch:
        for module, name in (
            ("guards", "gain_p_value"),
            ("guards", "smallest_gain"),
            ("regressions", "gain_p_value"),
        ):
            patch.setattr(sys.modules[f"regraft.promotion.{module}"], name, cached[name])
        yield


@pytest.fixture(autouse=True)
def least_samples(request, monkeypatch):
    """Use as few bootstrap samples as the p-value allows, except in the slow tier."""
    if not request.node.get_closest_marker("slow"):
        monkeypatch.setattr(sys.modules["regraft.promotion.regressions"], "N_RESAMPLES", 200)


def answers(right: np.ndarray) -> str:
    return "".join(c if is_right else WRONG[c] for c, is_right in zip(LABELS, right, strict=True))


def draw(generator: np.random.Generator, only_first: float, only_second: float) -> np.ndarray:
    """(N,) which model is correct: 0 both, 1 only the first, 2 only the second, 3 neither."""
    shares = (0.75, only_first, only_second, 0.25 - only_first - only_second)
    return generator.choice(4, size=N, p=shares)


def contest(cell: np.ndarray, only_first: float, only_second: float):
    """Two calibrated models with these shares of photos that only one model has correct."""
    drawn = paired(answers(cell <= 1), answers((cell == 0) | (cell == 2)), LABELS)
    sure = {"challenger_confidence": 0.75 + only_first, "champion_confidence": 0.75 + only_second}
    return drawn, drawn.photos.assign(**sure)


def share_promoted(only_first: float, only_second: float, config, seed: int, n_draws: int) -> float:
    """The share of promotions; the accuracy guard runs first because it is fast."""
    generator, promoted = np.random.default_rng(seed), 0
    for _ in range(n_draws):
        cell = draw(generator, only_first, only_second)
        if is_shown_better(cell, config):
            drawn, photos = contest(cell, only_first, only_second)
            promoted += judge(type(drawn)(drawn.pair, photos), config).decision == "promote"
    return promoted / n_draws


def is_shown_better(cell: np.ndarray, config) -> bool:
    """Whether the accuracy guard passes; cached by counts that many draws share."""
    counts = (int((cell == 1).sum()), int((cell == 2).sum()), config.promote)
    if counts not in _shown_better:
        _, photos = contest(cell, 0.0, 0.0)
        _shown_better[counts] = next(check_accuracy(photos, config.promote)).outcome == "passed"
    return _shown_better[counts]


_shown_better: dict[tuple, bool] = {}


@draws(2000)
@pytest.mark.parametrize("discordant", [0.1, 0.2])
def test_equally_good_models_are_promoted_at_most_at_the_level(discordant, n_draws):
    config = rule("promote.max_negative_flips=1")
    assert config.promote.level == LEVEL
    found = share_promoted(discordant / 2, discordant / 2, config, seed=1, n_draws=n_draws)
    # The accuracy guard alone; what the others stop of it only makes promotions rarer.
    exact = compute_power(N, discordant, 0.0, 0.0, LEVEL)
    assert exact <= LEVEL
    assert 0.005 < found <= exact + error_of(exact, n_draws)


@draws(800)
def test_model_with_exactly_the_margin_is_promoted_at_most_at_the_level(n_draws):
    config = rule("promote.max_negative_flips=1", "promote.min_gain=0.03")
    found = share_promoted(0.08, 0.05, config, seed=2, n_draws=n_draws)
    assert 0.005 < found <= LEVEL + error_of(LEVEL, n_draws)


@draws(2000)
def test_smallest_gain_is_shown_with_the_stated_power(n_draws):
    config, generator = rule(), np.random.default_rng(3)
    gain = smallest_gain(N, 0.15, 0.0, config.promote.level, config.promote.power)
    only_first, only_second = (0.15 + gain) / 2, (0.15 - gain) / 2
    shown = [
        is_shown_better(draw(generator, only_first, only_second), config) for _ in range(n_draws)
    ]
    power = config.promote.power
    assert abs(np.mean(shown) - power) < error_of(power, n_draws)


# Each takes a bootstrap: of 40 at most 0.05 + 0.103 may be stopped, of 200 0.05 + 0.046. Without
# the correction for seven tests it would be about 0.3.
@pytest.mark.parametrize("n_draws", [40, pytest.param(200, marks=pytest.mark.slow)])
def test_challenger_without_regressions_fails_the_checks_at_most_at_the_level(
    n_draws,
):
    config, generator, stopped = rule(), np.random.default_rng(4), 0
    for _ in range(n_draws):
        _, photos = contest(draw(generator, 0.08, 0.08), 0.08, 0.08)
        light = pd.Series(generator.choice(["day", "night", "dusk"], N), dtype=object)
        found = regression_checks(photos.assign(**{"slice:light": light}), config)
        stopped += any(line.outcome == "failed" for line in found)
    assert stopped / n_draws <= LEVEL + error_of(LEVEL, n_draws)
