"""The solved head: softmax regression to convergence, on raw embeddings, without a seed."""

import logging
import warnings

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax
from sklearn.linear_model import LogisticRegression

from regraft.core.config import TuneConfig
from regraft.model.embed import Rows
from regraft.training.tune import solve_head
from regraft.training.tune.head import LabelledEmbeddings, head_from_state, head_to_state


def embedded(x, y):
    return LabelledEmbeddings(Rows.of(torch.from_numpy(x)), y)


def numbers(part):
    return part.rows.take(np.arange(len(part.rows))).numpy()


def clouds(n_classes, n_each=30, seed=0, spread=1.0):
    """Return one Gaussian cloud per class, in four dimensions of very different scales."""
    centres = np.random.default_rng(99).normal(size=(n_classes, 4)) * 2
    generator = np.random.default_rng(seed)
    y = np.repeat(np.arange(n_classes), n_each)
    x = centres[y] + spread * generator.normal(size=(len(y), 4))
    return embedded(x * [1, 100, 0.01, 5] + [3, -50, 0, 1000], y)


def settings(*head_l2, **changes):
    return TuneConfig(head_l2=head_l2 or (0.01,), **changes)


def scores(head, part):
    return numbers(part) @ head.weight.T + head.bias


@pytest.mark.parametrize("n_classes", [2, 3, 5])
def test_the_head_is_the_solution_of_scikit_learn(n_classes):
    train, validation = clouds(n_classes), clouds(n_classes, seed=1)
    head = solve_head(train, validation, n_classes, settings(0.01))
    mean, spread = numbers(train).mean(0), numbers(train).std(0)
    # For two classes, scikit-learn penalises the difference of the rows: twice the square.
    share = 0.5 if n_classes == 2 else 1
    reference = LogisticRegression(C=1 / (share * 0.01 * len(train.y)), tol=1e-8, max_iter=5000)
    reference.fit((numbers(train) - mean) / spread, train.y)
    expected = reference.predict_proba((numbers(validation) - mean) / spread)
    np.testing.assert_allclose(softmax(scores(head, validation), axis=1), expected, atol=5e-3)
    assert head.weight.shape == (n_classes, 4)


def test_the_gradient_of_the_penalised_loss_is_zero():
    """Computed by hand: mean negative log-likelihood + l2 / 2 * |w|^2, on scaled embeddings."""
    train, l2 = clouds(3), 0.1
    head = solve_head(train, train, 3, settings(l2))
    spread = numbers(train).std(0)
    scaled = (numbers(train) - numbers(train).mean(0)) / spread
    errors = softmax(scores(head, train), axis=1) - np.eye(3)[train.y]
    slope = errors.T @ scaled / len(scaled) + l2 * head.weight * spread
    assert abs(slope).max() < 1e-3
    assert abs(errors.mean(0)).max() < 1e-3


def test_the_recorded_numbers_are_those_of_the_head():
    train, validation = clouds(3, spread=2), clouds(3, seed=1, spread=2)
    best = solve_head(train, validation, 3, settings(0.01)).best
    head = solve_head(train, validation, 3, settings(0.01))
    for part, loss, accuracy in (
        (train, best.train_loss, best.train_accuracy),
        (validation, best.validation_loss, best.validation_accuracy),
    ):
        by_hand = scores(head, part)
        hit = log_softmax(by_hand, axis=1)[np.arange(len(part.y)), part.y]
        assert loss == pytest.approx(-hit.mean(), abs=1e-9)
        assert accuracy == (by_hand.argmax(1) == part.y).mean()


def test_the_penalty_is_chosen_on_validation():
    train, validation = clouds(3, n_each=4, spread=3), clouds(3, n_each=80, seed=1, spread=3)
    head = solve_head(train, validation, 3, settings(1e-6, 0.3, 100.0))
    assert [candidate.l2 for candidate in head.candidates] == [100.0, 0.3, 1e-6]
    assert [candidate.epoch for candidate in head.candidates] == [1, 2, 3]
    losses = {c.l2: c.validation_loss for c in head.candidates}
    assert head.best.l2 == min(losses, key=losses.get) == 0.3
    alone = solve_head(train, validation, 3, settings(0.3))
    np.testing.assert_allclose(head.weight, alone.weight, atol=1e-3)


def test_of_equal_penalties_the_larger_is_kept():
    train = clouds(2)
    nothing_to_tell = embedded(np.tile(numbers(train).mean(0), (2, 1)), np.array([0, 1]))
    head = solve_head(train, nothing_to_tell, 2, settings(10.0, 1e9))
    assert head.best.l2 == 1e9


def test_the_same_input_gives_the_same_bits():
    train, validation = clouds(4), clouds(4, seed=1)
    one, two = (solve_head(train, validation, 4, settings(0.1, 1.0)) for _ in range(2))
    assert np.array_equal(one.weight, two.weight)
    assert np.array_equal(one.bias, two.bias)
    assert one.candidates == two.candidates


def test_a_constant_dimension_is_allowed():
    train, validation = clouds(2), clouds(2, seed=1)
    sides = (train, validation)
    constant = [embedded(np.c_[numbers(p), np.full(len(p.y), 7.0)], p.y) for p in sides]
    head = solve_head(*constant, 2, settings())
    assert np.isfinite(head.weight).all()
    assert abs(head.weight[:, 4]).max() < 1e-6


def test_a_class_that_validation_lacks_shifts_no_label():
    train, validation = clouds(3), clouds(3, seed=1)
    kept = validation.y != 1
    head = solve_head(train, embedded(numbers(validation)[kept], validation.y[kept]), 3, settings())
    assert head.best.validation_accuracy > 0.9
    assert (scores(head, validation).argmax(1) == validation.y).mean() > 0.9


def test_balanced_classes_weigh_the_rare_one_more():
    train, validation = clouds(2, spread=3), clouds(2, seed=1, n_each=200, spread=3)
    rare = embedded(numbers(train)[:33], train.y[:33])
    recalls = [
        (scores(solve_head(rare, validation, 2, config), validation).argmax(1) == 1)[200:].mean()
        for config in (settings(), settings(class_weights="balanced"))
    ]
    assert recalls[1] > recalls[0]


def test_a_weak_penalty_does_not_warn_the_user(monkeypatch, caplog):
    """Of classes that can be told apart the weights grow for ever: the steps end, and all is well.

    Validation judges what there is by then, so nobody has to be told.
    """
    results = []

    def spied(*given, **named):
        results.append(minimize(*given, **named))
        return results[-1]

    monkeypatch.setattr("regraft.training.tune.head.minimize", spied)
    monkeypatch.setattr("regraft.training.tune.head.MAX_ITERATIONS", 4)
    with warnings.catch_warnings(), caplog.at_level(logging.DEBUG):
        warnings.simplefilter("error")
        head = solve_head(clouds(3, spread=0.01), clouds(3, seed=1), 3, settings(1e-12))
    assert [(result.success, result.nit) for result in results] == [
        (False, 4)
    ]  # otherwise the test proves nothing
    assert not caplog.records
    assert head.best.validation_accuracy > 0.9
    assert head.candidates == (head.best,)


def test_a_head_survives_its_checkpoint():
    head = solve_head(clouds(3), clouds(3, seed=1), 3, settings(0.1, 1.0))
    again = head_from_state(head_to_state(head))
    assert np.array_equal(again.weight, head.weight)
    assert np.array_equal(again.bias, head.bias)
    assert (again.best, again.candidates) == (head.best, head.candidates)


def test_more_photos_than_fit_at_once_have_the_same_head(monkeypatch):
    """In chunks of seven, computed in float32."""
    train, validation = clouds(3, n_each=15), clouds(3, seed=1)
    whole = solve_head(train, validation, 3, settings(0.1))
    monkeypatch.setattr("regraft.training.tune.head.CHUNK", 7)
    pieces = solve_head(train, validation, 3, settings(0.1))
    close = {"rtol": 2e-3, "atol": 2e-3}
    np.testing.assert_allclose(scores(pieces, validation), scores(whole, validation), **close)
    assert pieces.best.validation_loss == pytest.approx(whole.best.validation_loss, abs=1e-4)
