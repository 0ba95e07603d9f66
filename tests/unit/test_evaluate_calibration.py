"""Temperature, calibration error and likely label errors."""

import math

import numpy as np
import pandas as pd
import pytest
import torch

from regraft.evaluation.evaluate import (
    calibration_error,
    fit_temperature,
    likely_label_errors,
    mean_nll,
    reliability_table,
)
from regraft.evaluation.evaluate.calibration import LabelledLogits, calibrate
from regraft.evaluation.evaluate.label_errors import ASSUMED_RATE, MAX_LISTED, MIN_PRECISION


def binary(n_right, n_wrong, logit):
    """Photos of alternating classes with the same margin, right or wrong."""
    codes = torch.arange(n_right + n_wrong) % 2
    said = torch.where(torch.arange(len(codes)) < n_right, codes, 1 - codes)
    return torch.nn.functional.one_hot(said, 2).float() * logit, codes


def test_the_temperature_makes_the_confidence_equal_to_the_accuracy():
    scores, codes = binary(30, 10, logit=6.0)  # sigmoid(6 / T) = 3 / 4 where 6 / T = ln 3
    assert fit_temperature(scores, codes) == pytest.approx(6 / math.log(3), rel=1e-3)


def test_the_temperature_lowers_the_loss():
    scores, codes = binary(30, 10, logit=6.0)
    fitted = fit_temperature(scores, codes)
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert mean_nll(scores, codes, fitted) == pytest.approx(entropy, rel=1e-4)
    assert mean_nll(scores, codes, 1.0) > entropy


def test_the_temperature_is_fitted_on_validation_and_measured_on_test():
    validation, test = (
        LabelledLogits(*binary(30, 10, logit=6.0)),
        LabelledLogits(*binary(36, 4, logit=6.0)),
    )
    found = calibrate(validation, test, n_bins=15)
    assert found.temperature == pytest.approx(6 / math.log(3), rel=1e-3)  # 0.75 is right there
    sure = 1 / (1 + math.exp(-6))
    assert found.ece_before == pytest.approx(sure - 0.9, abs=1e-6)
    assert found.ece_after == pytest.approx(0.9 - 0.75, abs=1e-3)
    assert found.nll_before == pytest.approx(-(0.9 * math.log(sure) + 0.1 * math.log(1 - sure)))
    entropy = -(0.9 * math.log(0.75) + 0.1 * math.log(0.25))
    assert found.nll_after == pytest.approx(entropy, abs=1e-3)
    assert found.reliability.n.sum() == 40


@pytest.mark.parametrize(
    ("n_right", "n_wrong"),
    [(0, 0), (19, 0), (40, 0), (0, 40)],
    ids=["none", "too few", "all right", "all wrong"],
)
def test_the_temperature_is_one_where_none_can_be_fitted(n_right, n_wrong):
    scores, codes = binary(n_right, n_wrong, logit=6.0)
    assert fit_temperature(scores, codes) == 1.0


def test_the_temperature_is_one_for_a_single_class():
    scores = torch.tensor([[2.0, 0.0]] * 15 + [[0.0, 2.0]] * 15)
    assert fit_temperature(scores, torch.zeros(30, dtype=torch.int64)) == 1.0


def test_the_calibration_error_is_the_mean_gap_weighted_by_photos():
    confidence = np.array([0.3, 0.3, 0.9, 0.9, 0.9, 0.9])
    correct = np.array([True, False, True, True, True, True])
    table = reliability_table(confidence, correct, n_bins=2)
    assert table.n.tolist() == [2, 4]
    assert table.accuracy.tolist() == [0.5, 1.0]
    assert calibration_error(table) == pytest.approx((0.2 * 2 + 0.1 * 4) / 6)


def test_a_bin_holds_its_upper_edge_and_an_empty_bin_has_no_accuracy():
    table = reliability_table(np.array([0.5, 1.0]), np.array([True, True]), n_bins=4)
    assert table.n.tolist() == [0, 1, 0, 1]
    assert table.accuracy.isna().tolist() == [True, False, True, False]


def to_check(labels, probabilities, classes=("ant", "bee")):
    photos = pd.DataFrame(
        {"path": [f"{at}.png" for at in range(len(labels))], "label": labels, "split": "test"}
    )
    codes = np.array([classes.index(label) for label in labels])
    return likely_label_errors(photos, codes, np.array(probabilities), classes)


def test_the_photo_with_the_least_probable_label_comes_first():
    sure = [[0.99, 0.01]] * 40
    table = to_check(["ant"] * 40 + ["bee", "bee"], [*sure, [0.9, 0.1], [0.97, 0.03]])
    assert table.path.tolist() == ["41.png", "40.png"]
    assert table.suggested.tolist() == ["ant", "ant"]
    assert table.self_confidence.tolist() == pytest.approx([0.03, 0.1])
    assert table.suggested_confidence.tolist() == pytest.approx([0.97, 0.9])
    # Of the 42 photos, 40 would be less probable as the other class: 40 * 3.3 % wrong labels.
    assert table.expected_precision.tolist() == pytest.approx([1.0, 40 * 0.033 / 2])


def test_a_photo_whose_label_is_the_prediction_is_not_to_be_checked():
    assert to_check(["ant"] * 40, [[0.99, 0.01]] * 39 + [[0.51, 0.49]]).empty


def held_out(n_classes, confusion, rate, seed=0, n=2000):
    """Photos, labels and probabilities of a model that takes a class for the next one.

    Args:
        confusion: share of photos that the model confidently takes for the next class.
        rate: share of labels that are replaced by any other class.

    Returns:
        The arguments of likely_label_errors(), and which labels were replaced.
    """
    rng = np.random.default_rng(seed)
    truth = rng.integers(n_classes, size=n)
    seen = np.where(rng.random(n) < confusion, (truth + 1) % n_classes, truth)
    scores = rng.normal(0, 1, (n, n_classes))
    scores[np.arange(n), seen] += rng.uniform(4, 9, n)
    shares = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    is_wrong = rng.random(n) < rate
    codes = np.where(is_wrong, (truth + rng.integers(1, n_classes, n)) % n_classes, truth)
    photos = pd.DataFrame({"path": [str(at) for at in range(n)], "label": codes, "split": "test"})
    return (photos, codes, shares, tuple(f"class {at}" for at in range(n_classes))), is_wrong


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_expected_precision_is_the_share_of_replaced_labels_in_the_list(seed):
    arguments, is_wrong = held_out(40, confusion=0.02, rate=ASSUMED_RATE, seed=seed)
    table = likely_label_errors(*arguments)
    assert 20 <= len(table) <= MAX_LISTED
    measured = is_wrong[table.path.astype(int)].mean()
    assert measured == pytest.approx(table.expected_precision.iloc[-1], abs=0.2)
    assert table.expected_precision.iloc[-1] >= MIN_PRECISION


def test_hundreds_of_honest_mistakes_between_look_alikes_raise_no_alarm():
    arguments, _ = held_out(40, confusion=0.2, rate=0.0)
    _, codes, shares, _ = arguments
    assert (shares.argmax(axis=1) != codes).sum() > 300
    assert likely_label_errors(*arguments).empty
