"""The level that a verdict states, by simulation through the whole gate."""

import numpy as np
import pandas as pd
import pytest
from test_promote import duel, rule

from regraft.paired import smallest_gain
from regraft.promote import judge
from regraft.promote.guards import accuracy
from regraft.promote.harms import harms

N, N_DRAWS = 150, 2000
LABELS = "abc" * (N // 3)
WRONG = {"a": "b", "b": "c", "c": "a"}


def answers(right: np.ndarray) -> str:
    return "".join(c if is_right else WRONG[c] for c, is_right in zip(LABELS, right, strict=True))


def contest(generator: np.random.Generator, only_one: float, only_other: float):
    """Two calibrated models on N photos: the shares of photos that only one of them gets right."""
    shares = (0.75, only_one, only_other, 0.25 - only_one - only_other)
    cell = generator.choice(4, size=N, p=shares)
    drawn = duel(answers(cell <= 1), answers((cell == 0) | (cell == 2)), LABELS)
    sure = {"challenger_confidence": 0.75 + only_one, "champion_confidence": 0.75 + only_other}
    return drawn, drawn.photos.assign(**sure)


def share_promoted(only_one: float, only_other: float, config, seed: int, n=N_DRAWS) -> float:
    """Through accuracy first: a verdict promotes only what passes it, and the rest takes longer."""
    generator, promoted = np.random.default_rng(seed), 0
    for _ in range(n):
        drawn, photos = contest(generator, only_one, only_other)
        if next(accuracy(photos, config.promote)).outcome == "passed":
            promoted += judge(type(drawn)(drawn.contenders, photos), config).decision == "promote"
    return promoted / n


@pytest.mark.parametrize("discordant", [0.1, 0.2])
def test_equally_good_models_are_promoted_no_oftener_than_the_level(discordant):
    config = rule("promote.max_negative_flips=1")
    found = share_promoted(discordant / 2, discordant / 2, config, seed=1)
    assert 0.005 < found <= 0.05


def test_model_that_gains_what_the_margin_asks_is_promoted_no_oftener_than_the_level():
    config = rule("promote.max_negative_flips=1", "promote.min_gain=0.03")
    found = share_promoted(0.08, 0.05, config, seed=2, n=800)  # each test takes 10 ms
    assert 0.005 < found <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 800)


def test_smallest_gain_that_is_stated_is_shown_as_often_as_it_says():
    config, generator = rule(), np.random.default_rng(3)
    gain = smallest_gain(N, 0.15, 0.0, config.promote.level, config.promote.power)
    only_one, only_other = (0.15 + gain) / 2, (0.15 - gain) / 2
    drawn = (contest(generator, only_one, only_other)[1] for _ in range(N_DRAWS))
    outcomes = [next(accuracy(photos, config.promote)).outcome for photos in drawn]
    found = outcomes.count("passed") / N_DRAWS
    assert abs(found - config.promote.power) < 3 * np.sqrt(0.8 * 0.2 / N_DRAWS)


def test_harmless_challenger_is_stopped_by_all_guards_against_harm_no_oftener_than_the_level():
    config, generator, stopped = rule(), np.random.default_rng(4), 0
    for _ in range(200):
        _, photos = contest(generator, 0.08, 0.08)
        light = pd.Series(generator.choice(["day", "night", "dusk"], N), dtype=object)
        found = harms(photos.assign(**{"slice:light": light}), config)
        stopped += any(line.outcome == "failed" for line in found)
    assert stopped / 200 <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 200)
