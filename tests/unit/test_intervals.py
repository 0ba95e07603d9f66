"""The interval of a share."""

import math

import pytest
from scipy.stats import binomtest

from regraft.core.intervals import wilson_interval


@pytest.mark.parametrize(("n_hits", "n"), [(9, 10), (0, 5), (40, 40), (217, 262)])
@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_the_interval_is_the_one_of_scipy(n_hits, n, confidence):
    expected = binomtest(n_hits, n).proportion_ci(confidence, method="wilson")
    interval = wilson_interval(n_hits, n, confidence)
    assert interval.value == n_hits / n
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_a_share_of_nothing_is_not_a_number():
    interval = wilson_interval(0, 0, 0.95)
    assert all(math.isnan(bound) for bound in (interval.value, interval.low, interval.high))
