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


def doubtful(labels, probabilities, classes=("ant", "bee")):
    shares = np.array(probabilities)
    photos = pd.DataFrame(
        {"path": [f"{at}.png" for at in range(len(labels))], "label": labels, "split": "test"}
    )
    codes = np.array([classes.index(label) for label in labels])
    return likely_label_errors(photos, codes, shares, classes)


def test_a_photo_confidently_of_another_class_is_a_likely_label_error():
    # thresholds: ant (0.9 + 0.8 + 0.1) / 3 = 0.6, bee (0.9 + 0.7) / 2 = 0.8
    table = doubtful(
        ["ant", "ant", "ant", "bee", "bee"],
        [[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.1, 0.9], [0.3, 0.7]],
    )
    assert table.path.tolist() == ["2.png"]
    assert table.suggested.tolist() == ["bee"]
    assert table.self_confidence.tolist() == pytest.approx([0.1])
    assert table.suggested_confidence.tolist() == pytest.approx([0.9])


def test_a_mistake_below_the_other_classs_threshold_is_no_label_error():
    # thresholds: ant (0.9 + 0.4) / 2 = 0.65, bee 0.9: the wrong 0.6 for bee is no evidence
    assert doubtful(["ant", "ant", "bee"], [[0.9, 0.1], [0.4, 0.6], [0.1, 0.9]]).empty


def test_a_photo_whose_label_is_the_prediction_is_no_label_error():
    # thresholds: ant 0.75, bee 0.4: the second photo passes bee's, but ant is the prediction
    table = doubtful(["ant", "ant", "bee"], [[0.95, 0.05], [0.55, 0.45], [0.6, 0.4]])
    assert "1.png" not in table.path.tolist()


def test_a_class_without_photos_is_never_suggested():
    table = doubtful(
        ["ant", "ant"], [[0.9, 0.05, 0.05], [0.1, 0.1, 0.8]], classes=("ant", "bee", "cat")
    )
    assert table.empty


def test_the_clearest_label_error_comes_first():
    table = doubtful(
        ["ant", "ant", "ant", "bee", "bee"],
        [[0.99, 0.01], [0.2, 0.8], [0.1, 0.9], [0.3, 0.7], [0.3, 0.7]],
    )
    assert table.path.tolist() == ["2.png", "1.png"]
