"""The difference of two accuracies on the same photos: its interval and its p-value."""

import math

from scipy.stats import binomtest, norm

CONFIDENCE = 0.95


def paired_interval(n: int, only_first: int, only_second: int) -> tuple[float, float]:
    """Return the 95 % interval of the first model's gain in accuracy over the second, in [-1, 1].

    Args:
        n: photos that both models answered, >= 1.
        only_first, only_second: photos that only the first, or only the second, answered correctly.

    Source: Agresti & Min 2005 (Wald with half a photo added to each of the four cells).
    """
    size, b, c = n + 2, only_first + 0.5, only_second + 0.5
    middle = (b - c) / size
    z = float(norm.ppf((1 + CONFIDENCE) / 2))
    half_width = z * math.sqrt(b + c - (b - c) ** 2 / size) / size
    return max(-1.0, middle - half_width), min(1.0, middle + half_width)


def mcnemar(only_first: int, only_second: int) -> float:
    """Return the exact two-sided p-value that two models are equally accurate.

    Args:
        only_first, only_second: photos that only the first, or only the second, answered correctly.

    Source: McNemar 1947, with the binomial distribution.

    >>> mcnemar(5, 0)
    0.0625
    """
    n = only_first + only_second
    return float(binomtest(only_first, n, 0.5).pvalue) if n else 1.0
