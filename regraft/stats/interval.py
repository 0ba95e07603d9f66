"""Two answers to the same photos: how far apart two accuracies are, and how surely."""

import math

from scipy.stats import binomtest, norm

CONFIDENCE = 0.95


def paired_interval(n: int, only_one: int, only_other: int) -> tuple[float, float]:
    """The 95 % interval of one's gain in accuracy over the other, in [-1, 1], on the same photos.

    Args:
        n: photos, >= 1.
        only_one, only_other: photos that only one of them got right.

    Source: Agresti & Min 2005 (Wald with half a photo added to each of the four cells).
    """
    size, b, c = n + 2, only_one + 0.5, only_other + 0.5
    middle = (b - c) / size
    spread = float(norm.ppf((1 + CONFIDENCE) / 2)) * math.sqrt(b + c - (b - c) ** 2 / size) / size
    return max(-1.0, middle - spread), min(1.0, middle + spread)


def mcnemar(only_one: int, only_other: int) -> float:
    """The exact two-sided p-value that two models equally good would differ at least so much.

    Source: McNemar 1947, with the binomial distribution.

    >>> mcnemar(5, 0)
    0.0625
    """
    n = only_one + only_other
    return float(binomtest(only_one, n, 0.5).pvalue) if n else 1.0
