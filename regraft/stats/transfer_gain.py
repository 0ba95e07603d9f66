"""The gain in accuracy that pretrained weights give over random weights."""

from dataclasses import dataclass


@dataclass(frozen=True)
class TransferGain:
    """Accuracy with pretrained weights against accuracy with random weights, on the same photos.

    Both backbones are frozen, and both heads are solved by the same rule on the same photos. So
    random weights mean random features here, not a network trained from scratch, which might reach
    the same accuracy with many photos and hours. The challenger's accuracy is another number: it
    may come from all photos and from a thawed backbone. If training starts from a champion, its
    weights are the pretrained weights, and what it learned from the target task counts as theirs.

    The random weights are a single draw. On 54 photos of waste, three draws were right on 30, 35
    and 37 % of the photos, the pretrained weights on 70 %. Computing the random network in fp32
    instead of bf16 changed the prediction of one photo (measured).

    Attributes:
        n_train, n_test: photos that the heads were trained on, and tested on.
        pretrained_accuracy, random_accuracy: shares of the test photos, in [0, 1].
        majority_accuracy: of always predicting the largest class of train, in [0, 1].
        gain: pretrained_accuracy - random_accuracy, in [-1, 1]; 0.01 is a point.
        gain_low, gain_high: its 95 % interval over the sampling of photos, see paired_interval().
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
            f"{self.random_accuracy:.1%} with random weights, "
            f"{self.majority_accuracy:.1%} majority: "
            f"transfer gives {100 * self.gain:+.0f} points "
            f"[{100 * self.gain_low:.0f}, {100 * self.gain_high:.0f}] on {self.n_test} test photos"
        )

    @property
    def is_negative(self) -> bool:
        """Whether the pretrained weights are shown to be worse than random weights."""
        return self.gain_high < 0

    @property
    def is_unproven(self) -> bool:
        """Whether the interval contains zero."""
        return self.gain_low <= 0 <= self.gain_high
