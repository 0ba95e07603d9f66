"""The page of a drift report."""

from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd

from regraft.core.outcomes import DriftOutcome
from regraft.evaluation.report.environment import environment

TITLES: dict[DriftOutcome, str] = {
    "drifted": "Distribution shift",
    "stable": "No distribution shift",
    "inconclusive": "Too few photos to test",
}
MAX_CLASSES = 30  # rows of the table; the others are counted
MAX_UNUSABLE = 50


@dataclass(frozen=True)
class DriftTestView:
    """A test: its outcome, its p-values (NaN if nothing was tested) and the effect in words."""

    name: str
    outcome: DriftOutcome
    effect: str
    p_value: float
    corrected: float


@dataclass(frozen=True)
class DistantPhotoView:
    """A photo that is far from the training photos; jpeg: small, empty if it cannot be read.

    distance: above 1 it is far.
    """

    path: str
    predicted: str
    confidence: float
    distance: float
    jpeg: bytes


@dataclass(frozen=True)
class DriftView:
    """The content of the page.

    photos: the place that the user named. facts: (name, value), for instance the model and the
        time.
    shares: label, training, estimated, low, high, n_predicted; the largest change first.
    n_photos: distinct readable photos; n_far: those with a distance above 1.
    """

    outcome: DriftOutcome
    reason: str
    photos: str
    level: float
    facts: tuple[tuple[str, str], ...]
    tests: tuple[DriftTestView, ...]
    shares: pd.DataFrame
    most_distant: tuple[DistantPhotoView, ...]
    n_photos: int
    n_far: int
    unusable: pd.DataFrame

    @property
    def title(self) -> str:
        """The outcome in words."""
        return TITLES[self.outcome]

    @property
    def marks(self) -> Iterator[dict[str, float | str]]:
        """The shares of the classes that are shown, scaled so that the largest is 1."""
        shown = self.shares.head(MAX_CLASSES)
        top = max(float(shown[["training", "high"]].to_numpy().max(initial=0.0)), 1e-9)
        for row in shown.to_dict("records"):
            scaled = {f"{name}_at": row[name] / top for name in ("training", "low", "high")}
            yield row | scaled | {"estimated_at": row["estimated"] / top}


def render_drift(view: DriftView, title: str) -> str:
    """Return the page as HTML text without scripts and requests; names from outside are escaped.

    Args:
        title: of the page, for instance the model's name and version.
    """
    template = environment(view.photos).get_template("drift.html")
    limits = {"max_classes": MAX_CLASSES, "max_unusable": MAX_UNUSABLE}
    return template.render(view=view, title=title, **limits)
