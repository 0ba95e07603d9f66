"""What the pretrained weights are worth here: the same network and head, with and without them."""

import logging
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from regraft.core.config import EmbedConfig, TuneConfig
from regraft.data.split import Splits
from regraft.model.backbone import build_body
from regraft.model.classifier import ImageClassifier
from regraft.model.embed import Compute, Rows, choose_compute, embed, judging_compute
from regraft.model.pixels import photos_of
from regraft.stats import paired_interval
from regraft.training.tune.head import Embedded, solve_head

# Enough for an interval of about 10 points to either side (measured), for 5 CPU seconds (lite0).
N_TRAIN, N_VALIDATION, N_TEST = 150, 60, 120
SEED = 0  # of the random weights; a constant, so that a retrain finds what they see in the store

logger = logging.getLogger("regraft.transfer")


@dataclass(frozen=True)
class TransferGain:
    """Accuracy with pretrained weights against that with random ones, on the same test photos.

    Both are frozen backbones under a head solved by the same rule on the same photos. So random
    weights mean random features here, not a network trained from scratch: with many photos and
    hours, training might catch up, and this number does not say when. Nor is it the challenger's
    accuracy, which may come from all photos and from a thawed backbone. Where training starts from
    a champion, its weights are the pretrained ones, and what it learned from the target task counts
    as theirs.

    One drawing of random weights stands for all. On 54 photos of waste three drawings were right
    30, 35 and 37 % of the time, the pretrained weights 70 %; computing the random ones in fp32
    instead of bf16 changed one answer (measured).

    Attributes:
        n_train, n_test: photos that the heads learned from, and that judged.
        pretrained_accuracy, random_accuracy: shares of the test photos, in [0, 1].
        majority_accuracy: of always saying the largest class of train, in [0, 1].
        gain: pretrained_accuracy - random_accuracy, in [-1, 1]; 0.01 is a point.
        gain_low, gain_high: its 95 % interval, see paired_interval(), over the drawing of photos.
    """

    n_train: int
    n_test: int
    pretrained_accuracy: float
    random_accuracy: float
    majority_accuracy: float
    gain: float
    gain_low: float
    gain_high: float

    def __str__(self) -> str:
        return (
            f"transfer: {self.pretrained_accuracy:.1%} with pretrained weights, "
            f"{self.random_accuracy:.1%} with random ones, {self.majority_accuracy:.1%} majority: "
            f"transfer gives {100 * self.gain:+.0f} points "
            f"[{100 * self.gain_low:.0f}, {100 * self.gain_high:.0f}] on {self.n_test} test photos"
        )

    @property
    def is_negative(self) -> bool:
        """Whether the pretrained weights are surely worse than random ones."""
        return self.gain_high < 0

    @property
    def is_unproven(self) -> bool:
        """Whether these photos cannot tell which weights are better."""
        return self.gain_low <= 0 <= self.gain_high


@dataclass(frozen=True)
class _Contender:
    """A backbone, and how it computes what is learned from and what chooses and judges."""

    classifier: ImageClassifier
    learning: Compute
    judging: Compute


def measure_transfer(
    pretrained: ImageClassifier, splits: Splits, config: TuneConfig, store: EmbedConfig
) -> TransferGain:
    """The gain from the pretrained weights, on a sample of each side of the split.

    The pretrained side is computed as fine_tune() and evaluate() compute it, so they find it in the
    store; the random side as fast as the device can.

    Args:
        pretrained: as training starts from it; its head does not matter.
        splits: with photos on each side, as split() makes them.
        config: says how a head is solved, and the compute.
        store: where what the networks see is kept.

    Raises:
        UnusablePhoto: a photo cannot be read any more.
    """
    sample, fast = sample_of(splits), choose_compute(config)
    one = _right(_Contender(pretrained, fast, judging_compute()), sample, config, store)
    logger.info("transfer: the same photos under random weights")
    drawn = with_random_weights(pretrained)
    other = _right(_Contender(drawn, fast, fast), sample, config, store)
    only_one, only_other, n = int((one & ~other).sum()), int((other & ~one).sum()), len(one)
    low, high = paired_interval(n, only_one, only_other)
    test = sample[sample.side == "test"]
    return TransferGain(
        n_train=int((sample.side == "train").sum()),
        n_test=n,
        pretrained_accuracy=float(one.mean()),
        random_accuracy=float(other.mean()),
        majority_accuracy=float((test.label == splits.counts.train.idxmax()).mean()),
        gain=(only_one - only_other) / n,
        gain_low=low,
        gain_high=high,
    )


def with_random_weights(classifier: ImageClassifier) -> ImageClassifier:
    """The same architecture and preprocessing, its backbone as the library initialises it."""
    with torch.random.fork_rng(devices=[]):  # torch.manual_seed would seed the GPUs too
        torch.default_generator.manual_seed(SEED)
        module = build_body(classifier.card.backbone.architecture).module
    drawn = {f"backbone.{name}": tensor for name, tensor in module.state_dict().items()}
    return replace(classifier, weights=classifier.weights | drawn)


def sample_of(splits: Splits) -> pd.DataFrame:
    """Some photos of each side, of each class about the same share of its photos.

    No dice: of a class those with the lowest sha256 are taken, so the sample does not depend on
    names and order, and adding photos replaces few. There are N_TRAIN, N_VALIDATION and N_TEST, and
    in train one of each class at least.

    Returns:
        The rows of splits.frame, side by side.
    """
    n_train = max(N_TRAIN, len(splits.classes))
    wanted = {"train": n_train, "validation": N_VALIDATION, "test": N_TEST}
    chosen = [lowest(splits.side(side), n) for side, n in wanted.items()]
    return pd.concat(chosen, ignore_index=True)


def lowest(photos: pd.DataFrame, n: int) -> pd.DataFrame:
    """The n photos that keep the classes' shares by Adams's rule: one of each class first.

    Args:
        photos: with the columns path, sha256 and label; of a class those with the lowest sha256
            are taken. All of them, if there are fewer than n.
    """
    ordered = photos.sort_values(["sha256", "path"])
    of_class = ordered.groupby("label").sha256
    place = of_class.cumcount() / of_class.transform("size")  # (N,) in [0, 1)
    return ordered.loc[place.sort_values(kind="stable").index[:n]]


def _right(
    contender: _Contender, sample: pd.DataFrame, config: TuneConfig, store: EmbedConfig
) -> NDArray[np.bool_]:
    """(n_test,) whether the solved head on this backbone is right about each test photo."""
    classifier, is_train = contender.classifier, sample.side == "train"
    train, held_out = sample[is_train], sample[~is_train]
    learned = embed(classifier, photos_of(train), contender.learning, store)
    judged = embed(classifier, photos_of(held_out), contender.judging, store)
    x, x_held_out = _scaled(learned.all(), judged.all())
    classes = pd.Index(classifier.card.classes)
    y, y_held_out = (classes.get_indexer(pd.Index(side.label)) for side in (train, held_out))
    is_test = (held_out.side == "test").to_numpy(copy=True)
    head = solve_head(
        Embedded(Rows.of(x), y),
        Embedded(Rows.of(x_held_out[~is_test]), y_held_out[~is_test]),
        len(classes),
        config,
    )
    scores = x_held_out[is_test].numpy() @ head.weight.T + head.bias  # (n_test, K)
    right: NDArray[np.bool_] = scores.argmax(axis=1) == y_held_out[is_test]
    return right


def _scaled(learned: Tensor, judged: Tensor) -> tuple[Tensor, Tensor]:
    """Both (N, D) divided by the largest value learned from; what is no finite number becomes 0.

    A head solved on standardised embeddings does not see their scale, unless they are so small that
    it takes them for constant: a random mobilenet_v3_large's are of 1e-10 (measured).
    """
    finite = [
        torch.nan_to_num(x.double(), nan=0.0, posinf=0.0, neginf=0.0) for x in (learned, judged)
    ]
    largest = finite[0].abs().max().clamp_min(torch.finfo(torch.float64).tiny)
    return finite[0] / largest, finite[1] / largest
