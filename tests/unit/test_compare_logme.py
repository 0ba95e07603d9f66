"""LogME against the evidence itself: a Gaussian of the labels, maximised the slow way."""

import math

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import multivariate_normal

from regraft.evaluation.compare.logme import logme


def evidence_of(labels, x, log_alpha: float, log_beta: float) -> float:
    """log p(y | x): without w, y is Gaussian with the covariance I / beta + x x' / alpha."""
    n = len(labels)
    covariance = np.eye(n) * math.exp(-log_beta) + x @ x.T * math.exp(-log_alpha)
    return float(multivariate_normal.logpdf(labels, np.zeros(n), covariance))


def slow_logme(x, y) -> float:
    starts = ((0.0, 0.0), (-2.0, 2.0))
    options = {"xatol": 1e-4, "fatol": 1e-8, "maxiter": 2000}
    best = [
        max(
            -minimize(
                lambda p, labels: -evidence_of(labels, x, *np.clip(p, -20, 20)),
                start,
                ((y == label).astype(float),),
                "Nelder-Mead",
                options=options,
            ).fun
            for start in starts
        )
        for label in np.unique(y)
    ]
    return float(np.mean(best)) / len(y)


@pytest.mark.parametrize(
    ("n", "width", "n_classes", "apart"), [(8, 3, 2, 2.0), (12, 2, 3, 1.0), (5, 7, 2, 2.0)]
)
def test_it_is_the_maximal_evidence(n, width, n_classes, apart):
    y = np.arange(n) % n_classes
    x = np.random.default_rng(0).normal(size=(n, width))
    x += apart * np.eye(max(width, n_classes))[y][:, :width]
    assert logme(x, y) == pytest.approx(slow_logme(x, y), abs=1e-5)


def test_by_hand_for_one_embedding_that_is_always_1():
    """Along (1, 1, 1, 1) / 2 each class has the variance 1, across it 1 / 3 in 3 dimensions."""
    x, y = np.ones((4, 1)), np.array([0, 0, 1, 1])
    by_hand = -4 / 2 * math.log(2 * math.pi) - (math.log(1) + 3 * math.log(1 / 3)) / 2 - 4 / 2
    assert logme(x, y) == pytest.approx(by_hand / 4, abs=1e-6)


def test_embeddings_that_tell_the_classes_apart_are_more_probable():
    y = np.arange(60) % 3
    noise = np.random.default_rng(0).normal(size=(60, 10))
    scores = [logme(noise + apart * np.eye(10)[y], y) for apart in (0.0, 1.0, 3.0, 9.0)]
    assert scores == sorted(scores)


def test_a_turned_space_is_as_probable():
    y = np.arange(30) % 2
    generator = np.random.default_rng(0)
    x = generator.normal(size=(30, 6)) + y[:, None]
    turn, _ = np.linalg.qr(generator.normal(size=(6, 6)))
    assert logme(x @ turn, y) == pytest.approx(logme(x, y), abs=1e-9)


def test_more_numbers_than_photos_and_dead_ones_are_no_trouble():
    y = np.arange(10) % 2
    x = np.random.default_rng(0).normal(size=(10, 40))
    x[:, 20:] = 0
    assert np.isfinite(logme(x, y))
    assert np.isfinite(logme(np.zeros((10, 3)), y))
    assert np.isfinite(logme(np.eye(10), y))
