"""Class shares of photos without labels, from what a classifier says and how it errs."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from regraft.drift.two_sample import Floats

Counts = NDArray[np.integer[Any]]
# Photos' worth of belief that a class is confused as all are: a class of three validation photos,
# all right, is not taken for one that nothing is ever mistaken for. Guess.
PRIOR_PHOTOS = 1.0
INTERVAL = 0.95
SHARES = ("label", "training", "estimated", "low", "high", "n_said")
N_STEPS = 100  # of the EM algorithm. Guess
N_DRAWS = 200  # of the bootstrap. Guess
MAX_PHOTOS = 2000  # that shares are estimated from; more make no interval narrower that matters
MAX_GAMMAS = 2**25  # random numbers for the confusion's uncertainty: a second


@dataclass(frozen=True)
class Errors:
    """How a classifier errs, as far as so many validation photos can tell.

    confusion: (K, K) validation photos, a row a label, a column an answer.
    training: (K,) photos of each class that it was trained on, near copies and groups once.
    learned: (K,) class shares that its probabilities rest on: those of training, unless every class
        weighed the same there.
    """

    confusion: Counts
    training: Counts
    learned: Floats

    @property
    def training_shares(self) -> Floats:
        """(K,) of each class."""
        shares: Floats = self.training / self.training.sum()
        return shares

    @property
    def concentration(self) -> Floats:
        """(K, K) of the Dirichlet distribution that each row of answers has, given its label."""
        n_classes = len(self.confusion)
        accuracy = (np.trace(self.confusion) + 1) / (self.confusion.sum() + 2)
        others = (1 - accuracy) / max(1, n_classes - 1)
        usual = np.where(np.eye(n_classes, dtype=bool), accuracy, others)
        return np.asarray(self.confusion + PRIOR_PHOTOS * usual, dtype=np.float64)

    @property
    def answers(self) -> Floats:
        """(K, K) the most plausible share of each answer, given the label; rows sum to 1."""
        shares: Floats = self.concentration / self.concentration.sum(axis=1, keepdims=True)
        return shares

    def drawn(self, n: int, generator: np.random.Generator) -> Floats:
        """(n, K) shares of each answer that photos drawn like training's may have.

        As plausible as each other: training's photos too are a sample.
        """
        shares = generator.dirichlet(self.training + 1 / len(self.training), size=n)  # (n, K)
        gammas = generator.standard_gamma(self.concentration, size=(n, *self.concentration.shape))
        sums = gammas.sum(axis=2, keepdims=True)
        answers = gammas / np.maximum(sums, np.finfo(float).tiny)  # (n, K, K)
        mixed: Floats = (shares[:, None] @ answers)[:, 0]
        return mixed


def estimated_shares(probs: Floats, learned: Floats, times: Floats) -> Floats:
    """(B, K) the most likely class shares of photos, by expectation and maximisation.

    Args:
        probs: (N, K) calibrated probabilities, rows sum to 1.
        learned: (K,) class shares that the classifier believes in, all positive.
        times: (B, N) how often each photo counts, rows sum to N.

    Source: Saerens et al. 2002, eq. 9. Measured on photos of clothes and of rubbish, 180 resamples
    each with shares at random: 0.13 and 0.21 of the photos in the wrong class, summed over classes,
    where the confusion of Lipton et al. 2018 (BBSE) has 0.24 and 0.46.
    """
    shares = np.repeat(learned[None], len(times), axis=0)  # (B, K)
    for _ in range(N_STEPS):
        ratio = shares / learned  # (B, K)
        weights = times / (ratio @ probs.T)  # (B, N)
        shares = ratio * (weights @ probs) / len(probs)
    return shares


def shares_table(
    probs: Floats, errors: Errors, classes: tuple[str, ...], seed: int
) -> pd.DataFrame:
    """The estimated class shares beside those of training, with bootstrap intervals.

    Args:
        probs: (N, K) calibrated probabilities of the new photos. Of more than MAX_PHOTOS the first
            are taken, N >= 1.

    Returns:
        label, training, estimated, low, high (shares in [0, 1], at INTERVAL confidence), n_said
        (photos that got it as the most probable answer).
    """
    n_said = np.bincount(probs.argmax(axis=1), minlength=len(classes))
    probs, learned = probs[:MAX_PHOTOS], _positive(errors.learned)
    n, generator = len(probs), np.random.default_rng(seed)
    drawn_times = generator.multinomial(n, np.full(n, 1 / n), size=N_DRAWS)  # (B, N)
    estimated = estimated_shares(probs, learned, np.ones((1, n)))[0]
    drawn = estimated_shares(probs, learned, drawn_times.astype(np.float64))
    tail = (1 - INTERVAL) / 2
    low, high = np.quantile(drawn, (tail, 1 - tail), axis=0)
    return pd.DataFrame(
        {
            "label": classes,
            "training": errors.training_shares,
            "estimated": estimated,
            "low": np.minimum(low, estimated),
            "high": np.maximum(high, estimated),
            "n_said": n_said,
        }
    )


def shares_p_value(said: Counts, errors: Errors, n_draws: int, seed: int) -> float:
    """Whether the answers are those that training's class shares and the known errors would give.

    Pearson's statistic against the most plausible answers; extreme is told by photos drawn at
    training's shares through errors drawn as the validation photos allow them (posterior
    predictive check, Gelman et al. 1996), so that few validation photos alarm nobody.

    Args:
        said: (K,) new photos that got each answer.
        n_draws: the smallest p-value is 1 / (1 + n_draws).
    """
    generator = np.random.default_rng(seed)
    n_new = int(said.sum())
    expected = np.asarray(n_new * errors.training_shares @ errors.answers)  # (K,)

    def statistic(counts: Counts) -> Floats:
        return np.asarray(((counts - expected) ** 2 / expected).sum(axis=-1))

    drawn = errors.drawn(_n_drawn(n_draws, len(said)), generator)
    drawn = drawn[np.arange(n_draws) % len(drawn)]
    n_extreme = int((statistic(generator.multinomial(n_new, drawn)) >= statistic(said)).sum())
    return float(1 + n_extreme) / (1 + n_draws)


def _n_drawn(wanted: int, n_classes: int) -> int:
    return max(1, min(wanted, MAX_GAMMAS // n_classes**2))


def _positive(shares: Floats) -> Floats:
    """A class that training lacks could never come back from a share of zero."""
    raised: Floats = np.maximum(shares, 1e-6)
    return np.asarray(raised / raised.sum())
