"""The plots: positions of their lines, bars and ticks."""

import io
import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from regraft.core.pages.svg import render_svg
from regraft.evaluation.evaluate import coverage_at, coverage_table, reliability_table
from regraft.evaluation.report.plots import coverage_curve, learning_curves, reliability_bars
from regraft.registry.tracking.plots import confusion_plot


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


@pytest.mark.parametrize("name", ["$x^{$ glass", "$", r"\$a$ \frac{", "a_b^2"])
def test_a_users_text_is_drawn_as_it_is_and_never_as_a_formula(name):
    labels = SimpleNamespace(
        classes=(name, "b"), confusion=pd.DataFrame({"label": [name], "predicted": ["b"], "n": [1]})
    )
    figure = confusion_plot(labels)
    figure.savefig(io.BytesIO(), format="png")
    text = figure.axes[0].get_xticklabels()[0]
    shown, is_formula = text._preprocess_math(text.get_text())
    assert (shown, is_formula) == (name, False)
    render_svg(lambda figure: figure.text(0, 0, name) and {}, 50, 50, name, "k")


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


@pytest.mark.parametrize("spread", [0.0, 0.003, 0.3])
def test_no_two_ticks_of_a_curve_have_the_same_label(spread):
    values = [1.0, 1.0 - spread, 1.0 - spread / 3]
    history = epochs("tune", 3).assign(
        validation_accuracy=values, train_accuracy=1.0, validation_loss=values, train_loss=1.0
    )
    for plot in learning_curves(history):
        labels = [tick.label for tick in plot.y_ticks]
        assert len(set(labels)) == len(labels) > 1


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


def curve_of(correct, risks=(0.1,)):
    table = coverage_table(np.linspace(1.0, 0.5, len(correct)), np.array(correct))
    return coverage_curve(table, coverage_at(table, risks, 0.95))


def test_the_coverage_curve_begins_where_enough_photos_are_answered_and_ends_with_all():
    curve = curve_of([True] * 90 + [False] * 10)
    assert len(curve.points) == 91  # from 10 photos on
    assert curve.points[0][0] < curve.points[-1][0] == curve.x_ticks[-1].at
    assert curve.points[0][1] == curve.y_ticks[0].at  # no answer is wrong: on the ground
    assert curve.points[-1][1] == pytest.approx(curve.y_ticks[-1].at)  # 10 %, the top tick
    assert curve.y_ticks[-1].label == "10\N{NO-BREAK SPACE}%"


def test_a_marked_row_is_a_dot_on_the_curve():
    curve = curve_of([True] * 90 + [False] * 10, risks=(0.05, 0.1))
    assert set(curve.dots) <= set(curve.points)
    assert curve.dots[-1] == curve.points[-1]


def test_a_flawless_model_has_a_flat_coverage_curve():
    curve = curve_of([True] * 20)
    assert {y for _, y in curve.points} == {curve.y_ticks[0].at}
    assert len({tick.label for tick in curve.y_ticks}) == len(curve.y_ticks)


def test_no_tick_of_the_risk_is_above_a_hundred_percent():
    assert curve_of([False] * 20).y_ticks[-1].label == "100\N{NO-BREAK SPACE}%"


def test_the_coverage_curve_of_many_photos_is_no_finer_than_a_screen():
    curve = curve_of([True, True, False] * 10_000)
    assert 190 <= len(curve.points) <= 200
    assert curve.points[-1][0] == curve.x_ticks[-1].at


def test_a_handful_of_photos_has_a_coverage_curve():
    assert len(curve_of([True, False]).points) == 1
