"""The plots: where their lines, bars and ticks stand."""

import math

import numpy as np
import pandas as pd
import pytest

from regraft.evaluate import reliability_table
from regraft.report.plots import learning_curves, reliability_bars


def epochs(phase, n):
    return pd.DataFrame(
        {
            "phase": phase,
            "epoch": range(1, n + 1),
            "train_loss": [1.0 / at for at in range(1, n + 1)],
            "train_accuracy": [1 - 0.5 / at for at in range(1, n + 1)],
            "validation_loss": [0.5 + 0.1 * abs(at - 2) for at in range(1, n + 1)],
            "validation_accuracy": 0.8,
            "lr": 0.001,
            "l2": [10.0**-at for at in range(1, n + 1)],
            "seconds": 1.0,
        }
    )


def test_a_single_record_of_training_is_no_curve():
    assert learning_curves(epochs("head", 1)) == ()


def test_the_heads_candidates_are_a_curve_over_the_penalty():
    loss, accuracy = learning_curves(epochs("head", 4))
    assert loss.x_title == "L2 penalty of the head"
    assert [tick.label for tick in loss.x_ticks] == ["0.1", "0.01", "0.001", "0.0001"]
    assert loss.best == loss.x_ticks[1].at
    assert accuracy.y_ticks[-1].label.endswith("%")


def test_the_thawed_parts_epochs_are_the_curve_when_there_are_any():
    history = pd.concat([epochs("head", 4), epochs("tune", 20)])
    loss = learning_curves(history)[0]
    assert loss.x_title == "epoch"
    assert len(loss.series[0].points) == 20
    assert len(loss.x_ticks) <= 8


def test_no_tick_of_the_accuracy_is_above_a_hundred_percent():
    flawless = epochs("tune", 3).assign(train_accuracy=1.0, validation_accuracy=1.0)
    for history in (flawless, flawless.assign(validation_accuracy=[0.66, 0.7, 0.71])):
        assert learning_curves(history)[1].y_ticks[-1].label == "100\N{NO-BREAK SPACE}%"


def test_a_lower_loss_stands_lower():
    points = learning_curves(epochs("tune", 3))[0].series[0].points
    assert points[0][1] < points[1][1] < points[2][1]


def test_a_value_that_is_no_number_leaves_a_gap():
    history = epochs("tune", 3)
    history.loc[1, "train_loss"] = math.nan
    assert len(learning_curves(history)[0].series[0].points) == 2


def test_the_reliability_bars_stand_where_their_bins_are():
    table = reliability_table(np.array([0.9, 0.9, 0.4]), np.array([True, False, True]), 2)
    low, high = reliability_bars(table)
    assert (low.x, low.width, low.top) == (0.0, 50.0, 0.0)
    assert (high.x, high.top) == (50.0, 50.0)
    assert high.dot == pytest.approx((90.0, 50.0))
    assert high.n_height == 2 * low.n_height
