"""Abstention: the coverage-risk curve by hand, and the level of the threshold's test."""

import math
import re

import numpy as np
import pandas as pd
import pytest
from tiny import classifier_of

from regraft.core.config import PredictConfig
from regraft.core.errors import ConfigError
from regraft.evaluation.evaluate import abstain_below, coverage_at, coverage_table
from regraft.evaluation.evaluate.abstention import LEAST_COVERAGE, LEVEL
from regraft.evaluation.predict import with_abstention
from regraft.model.card import UNSURE

RISK = 0.1
STEEP = 0.5  # of the synthetic model: the chance that the least sure answer is wrong


def predictions(confidence, correct, split="validation"):
    # Numbers for labels and for the split: text would take most of the time of a thousand tables.
    said = np.asarray(correct, dtype=int)
    sides = pd.Categorical.from_codes(np.zeros(len(said), dtype=int), [split])
    return pd.DataFrame({"split": sides, "label": 1, "predicted": said, "confidence": confidence})


def calibrated(n, seed):
    """Photos of a calibrated model: the one at rank u in [0, 1] is wrong with STEEP * u ** 2."""
    generator = np.random.default_rng(seed)
    wrong = STEEP * generator.random(n) ** 2
    return predictions(1 - wrong, generator.random(n) >= wrong)


def true_coverage(threshold):
    """The share of all photos that this model answers: 1 - threshold = STEEP * u ** 2."""
    return min(1.0, math.sqrt(max(0.0, 1 - threshold) / STEEP))


def true_risk(threshold):
    """The mean of STEEP * u ** 2 over the answered ranks, exactly."""
    return STEEP * true_coverage(threshold) ** 2 / 3


def test_a_row_of_the_coverage_table_is_a_distinct_confidence():
    confidence = np.array([0.6, 0.9, 0.8, 0.9, 0.6])
    correct = np.array([False, True, False, True, True])
    table = coverage_table(confidence, correct)
    assert table.threshold.tolist() == [0.9, 0.8, 0.6]
    assert table.n.tolist() == [2, 3, 5]
    assert table.coverage.tolist() == [0.4, 0.6, 1.0]
    assert table.risk.tolist() == [0.0, 1 / 3, 2 / 5]


def test_no_photos_have_an_empty_coverage_table():
    table = coverage_table(np.zeros(0), np.zeros(0, dtype=bool))
    assert list(table.columns) == ["threshold", "coverage", "risk", "n"]
    assert table.empty


def test_the_coverage_at_a_risk_is_the_largest_that_keeps_it():
    correct = np.array([True, False, True, True, False])
    table = coverage_table(np.array([0.9, 0.8, 0.7, 0.6, 0.5]), correct)
    kept = coverage_at(table, (0.1, 0.3, 0.5), 0.95)
    assert kept.n.tolist() == [1, 4, 5]  # a quarter of four is wrong, though a half of two
    assert kept.threshold.tolist() == [0.9, 0.6, 0.5]
    assert kept.risk.tolist() == [0.0, 0.25, 0.4]
    assert (kept.low <= kept.risk).all()
    assert (kept.high > kept.risk).all()


def test_a_risk_that_is_never_kept_answers_nothing():
    kept = coverage_at(coverage_table(np.array([0.9]), np.array([False])), (0.1,), 0.95).iloc[0]
    assert (kept.coverage, kept.n) == (0.0, 0)
    assert math.isnan(kept.threshold)


def test_every_photo_is_answered_unless_asked_otherwise():
    assert abstain_below(calibrated(50, 0), PredictConfig()) == 0.0


def test_a_threshold_that_is_given_is_taken():
    assert abstain_below(calibrated(50, 0), PredictConfig(abstain_below=0.8)) == 0.8


@pytest.mark.parametrize("n_draws", [200, pytest.param(500, marks=pytest.mark.slow)])
def test_the_true_risk_is_above_the_target_in_no_more_draws_than_promised(n_draws):
    config = PredictConfig(target_risk=RISK)
    thresholds = [abstain_below(calibrated(400, seed), config) for seed in range(n_draws)]
    n_broken = sum(true_risk(threshold) >= RISK for threshold in thresholds)
    noise = 3 * math.sqrt(LEVEL * (1 - LEVEL) / n_draws)
    assert n_broken / n_draws <= LEVEL + noise
    assert n_broken > 0  # not by abstaining always: it goes as far as the promise lets it
    assert np.mean([true_coverage(t) for t in thresholds]) > 0.5  # of 0.77, were all known


def test_more_photos_answer_more():
    config = PredictConfig(target_risk=RISK)
    few, many = (
        np.mean([true_coverage(abstain_below(calibrated(n, s), config)) for s in range(20)])
        for n in (200, 2000)
    )
    assert few < many


def test_the_first_threshold_that_fails_ends_the_search_though_a_later_one_would_pass():
    # The surest are right, then many wrong, then right again: all together would pass.
    correct = np.repeat([True, False, True], [600, 100, 500])
    confidence = np.linspace(1.0, 0.2, len(correct))
    below = abstain_below(predictions(confidence, correct), PredictConfig(target_risk=0.1))
    assert confidence[700] < below < confidence[599]
    assert correct.mean() > 0.91  # 100 of 1200 wrong is shown to be below 10 % on its own


def test_all_photos_shown_to_be_good_enough_means_that_every_photo_is_answered():
    table = predictions(np.linspace(0.99, 0.3, 200), np.ones(200, dtype=bool))
    assert abstain_below(table, PredictConfig(target_risk=0.05)) == 0.0


def test_test_photos_do_not_choose_the_threshold():
    config, validation = PredictConfig(target_risk=RISK), calibrated(400, 7)
    test = predictions(np.full(400, 0.5), np.zeros(400, dtype=bool), "test")
    with_test = pd.concat([test, validation], ignore_index=True)
    assert abstain_below(with_test, config) == abstain_below(validation, config)


def test_too_few_photos_show_nothing_and_the_warning_says_how_many_it_takes(caplog):
    for n in (0, 58):
        photos = predictions(np.linspace(1.0, 0.5, n), np.ones(n, dtype=bool))
        assert abstain_below(photos, PredictConfig(target_risk=0.05)) == 1.0
        found = re.findall(r"\b\d+(?:\.\d+%)?", caplog.messages[-1])
        assert found[:3] == [str(n), "5.0%", "59"]  # photos there, of answers wrong, photos needed
        assert "predict.target_risk" in caplog.messages[-1]
    enough = predictions(np.linspace(1.0, 0.5, 59), np.ones(59, dtype=bool))  # 0.95 ** 59 < 0.05
    assert abstain_below(enough, PredictConfig(target_risk=0.05)) == 0.0


def test_a_poor_model_shows_nothing_and_the_warning_says_how_poor(caplog):
    n = 200
    photos = predictions(np.linspace(1.0, 0.5, n), np.arange(n) % 4 > 0)
    assert abstain_below(photos, PredictConfig(target_risk=0.1)) == 1.0
    [warning] = caplog.messages
    assert re.search(rf"\b{int(n * LEAST_COVERAGE)}\b.*\b25\.0%", warning)


def test_the_log_says_what_the_threshold_does_to_the_test_photos(caplog):
    caplog.set_level("INFO", "regraft.evaluate")
    photos = predictions(np.array([0.9, 0.8, 0.7, 0.2]), np.array([1, 0, 1, 0]) == 1, "test")
    abstain_below(photos, PredictConfig(abstain_below=0.7))
    [message] = caplog.messages
    assert UNSURE in message
    assert re.findall(r"\b\d+\.\d+", message) == ["0.7", "75.0", "33.3"]


def test_a_class_called_unsure_is_refused_where_an_answer_may_be_withheld(weights_path):
    classifier = classifier_of(weights_path, ("sure", UNSURE))
    with pytest.raises(ConfigError, match=r"'unsure'.*\b0\.8\b.*\bpredict\.abstain_below\b"):
        with_abstention(classifier, 0.8)
    assert with_abstention(classifier, 0.0) == classifier
