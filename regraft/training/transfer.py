"""The transfer gain: the same network and head with pretrained and with random weights."""

import logging
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from regraft.core.config import EmbedConfig, TuneConfig
from regraft.data.split import Splits, stratified_head
from regraft.model.backbone import build_body
from regraft.model.classifier import ImageClassifier
from regraft.model.embed import Compute, Rows, choose_compute, embed, judging_compute
from regraft.model.pixels import photos_of
from regraft.stats import TransferGain, paired_interval
from regraft.training.tune.head import LabelledEmbeddings, solve_head

# Enough for an interval of about +-10 points (measured), in 5 CPU seconds (lite0).
N_TRAIN, N_VALIDATION, N_TEST = 150, 60, 120
SEED = 0  # of the random weights; constant, so that a retrain reads their embeddings from the store

logger = logging.getLogger("regraft.transfer")


@dataclass(frozen=True)
class _Arm:
    """A backbone, and the compute of its embeddings for solving the head and for judging it."""

    classifier: ImageClassifier
    learning: Compute
    judging: Compute


def measure_transfer(
    pretrained: ImageClassifier, splits: Splits, config: TuneConfig, store: EmbedConfig
) -> TransferGain:
    """Return the gain from the pretrained weights, on a sample of each split.

    The embeddings with pretrained weights are computed as in fine_tune() and evaluate(), so they
    are in the store; those with random weights are computed as fast as the device allows.

    Args:
        pretrained: the start of the training; its head is not used.
        splits: with photos in each split, as split() returns them.
        config: of the head and the compute.
        store: of the embeddings.

    Raises:
        UnusablePhoto: a photo can no longer be read.
    """
    sample, fast = draw_sample(splits), choose_compute(config)
    pretrained_right = _predicts_correctly(
        _Arm(pretrained, fast, judging_compute()), sample, config, store
    )
    logger.info("transfer: the same photos with random weights")
    drawn = with_random_weights(pretrained)
    random_right = _predicts_correctly(_Arm(drawn, fast, fast), sample, config, store)
    only_first, only_second, n = (
        int((pretrained_right & ~random_right).sum()),
        int((random_right & ~pretrained_right).sum()),
        len(pretrained_right),
    )
    low, high = paired_interval(n, only_first, only_second)
    test = sample[sample.split == "test"]
    return TransferGain(
        n_train=int((sample.split == "train").sum()),
        n_test=n,
        pretrained_accuracy=float(pretrained_right.mean()),
        random_accuracy=float(random_right.mean()),
        majority_accuracy=float((test.label == splits.counts.train.idxmax()).mean()),
        gain=(only_first - only_second) / n,
        gain_low=low,
        gain_high=high,
    )


def with_random_weights(classifier: ImageClassifier) -> ImageClassifier:
    """Return the same classifier with the library's random initial weights in its backbone."""
    with torch.random.fork_rng(devices=[]):  # torch.manual_seed would seed the GPUs too
        torch.default_generator.manual_seed(SEED)
        module = build_body(classifier.card.backbone.architecture).module
    drawn = {f"backbone.{name}": tensor for name, tensor in module.state_dict().items()}
    return replace(classifier, weights=classifier.weights | drawn)


def draw_sample(splits: Splits) -> pd.DataFrame:
    """Return some photos of each split, with about the same share of the photos of each class.

    Without randomness: the photos of a class with the lowest sha256 are taken, so the sample does
    not depend on names and order, and new photos replace few. There are N_TRAIN, N_VALIDATION and
    N_TEST photos, and at least one of each class in train.

    Returns:
        The rows of splits.frame, one split after the other.
    """
    n_train = max(N_TRAIN, len(splits.classes))
    wanted = {"train": n_train, "validation": N_VALIDATION, "test": N_TEST}
    chosen = [stratified_head(splits.photos_in(split), n) for split, n in wanted.items()]
    return pd.concat(chosen, ignore_index=True)


def _predicts_correctly(
    arm: _Arm, sample: pd.DataFrame, config: TuneConfig, store: EmbedConfig
) -> NDArray[np.bool_]:
    """Return (n_test,) whether the solved head on this backbone is right for each test photo."""
    classifier, is_train = arm.classifier, sample.split == "train"
    train, held_out = sample[is_train], sample[~is_train]
    learned = embed(classifier, photos_of(train), arm.learning, store)
    judged = embed(classifier, photos_of(held_out), arm.judging, store)
    x, x_held_out = _scaled(learned.all(), judged.all())
    classes = pd.Index(classifier.card.classes)
    y, y_held_out = (classes.get_indexer(pd.Index(split.label)) for split in (train, held_out))
    is_test = (held_out.split == "test").to_numpy(copy=True)
    head = solve_head(
        LabelledEmbeddings(Rows.of(x), y),
        LabelledEmbeddings(Rows.of(x_held_out[~is_test]), y_held_out[~is_test]),
        len(classes),
        config,
    )
    scores = x_held_out[is_test].numpy() @ head.weight.T + head.bias  # (n_test, K)
    right: NDArray[np.bool_] = scores.argmax(axis=1) == y_held_out[is_test]
    return right


def _scaled(learned: Tensor, judged: Tensor) -> tuple[Tensor, Tensor]:
    """Return both (N, D) divided by the largest value of `learned`, with 0 for values not finite.

    A head solved on standardised embeddings does not depend on their scale, unless they are so
    small that they count as constant: those of a random mobilenet_v3_large are about 1e-10
    (measured).
    """
    finite = [
        torch.nan_to_num(x.double(), nan=0.0, posinf=0.0, neginf=0.0) for x in (learned, judged)
    ]
    largest = finite[0].abs().max().clamp_min(torch.finfo(torch.float64).tiny)
    return finite[0] / largest, finite[1] / largest
