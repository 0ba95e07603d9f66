"""The results of the behaviour tests of a classifier."""

from dataclasses import dataclass

from regraft.core.text import format_count


@dataclass(frozen=True)
class MustPass:
    """The result for a photo that must be predicted correctly.

    predicted, confidence: the most probable class at any confidence, in [0, 1]; "" and 0 if the
        photo cannot be read.
    error: why the photo cannot pass: it is unreadable, or the model lacks its class; "" = none.
    sha256: of the file, "" if it cannot be read.
    trained_on: whether the model was trained on the photo, so that it proves nothing;
        check_behaviour() always sets False.
    """

    path: str
    label: str
    predicted: str
    confidence: float
    error: str
    sha256: str = ""
    trained_on: bool = False

    @property
    def is_right(self) -> bool:
        """Whether the prediction is correct; False for an unreadable photo."""
        return not self.error and self.predicted == self.label


@dataclass(frozen=True)
class Behaviour:
    """The results of the behaviour tests.

    Attributes:
        n_photos: test photos that were perturbed.
        agreement: share of them whose predicted class is stable, in [0, 1], by the names in
            behaviour.PERTURBATIONS. For brightness and rotation, both directions must leave it
            unchanged.
            Empty if n_photos is 0.
        must_pass: in the order of their paths.
    """

    n_photos: int
    agreement: dict[str, float]
    must_pass: tuple[MustPass, ...]

    def __str__(self) -> str:
        parts = []
        if self.agreement:
            shares = ", ".join(f"{name} {share:.1%}" for name, share in self.agreement.items())
            parts.append(f"stable under {shares} on {format_count(self.n_photos, 'photo')}")
        if self.must_pass:
            n_right = sum(photo.is_right for photo in self.must_pass)
            parts.append(f"{n_right} of {len(self.must_pass)} must-pass photos correct")
        return f"behaviour: {'; '.join(parts) or 'no tests'}"
