"""A look at new photos as a reader wants it: a page of its own."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from regraft.evaluation.report.environment import environment

Answer = Literal["drifted", "quiet", "open"]
TITLES: dict[Answer, str] = {
    "drifted": "Of another kind",
    "quiet": "As the model knows them",
    "open": "Too few photos to say",
}
MAX_CLASSES = 30  # rows of the table; the others are counted
MAX_UNUSABLE = 50


@dataclass(frozen=True)
class FindingView:
    """A test: its outcome (drifted, quiet, untested), p-values (NaN if untested), the effect."""

    name: str
    outcome: str
    said: str
    p_value: float
    corrected: float


@dataclass(frozen=True)
class StrangeView:
    """A photo unlike those that were learned from; jpeg: small, empty if it cannot be read.

    distance: 1 = as far as the farthest of what is usual.
    """

    path: str
    said: str
    confidence: float
    distance: float
    jpeg: bytes


@dataclass(frozen=True)
class DriftView:
    """What was looked at, what was found, and what of it can be seen.

    photos: what the user named. facts: (what, said), for instance the model and the time.
    shares: label, training, estimated, low, high, n_said; largest move first. photos are counted.
    """

    answer: Answer
    reason: str
    photos: str
    level: float
    facts: tuple[tuple[str, str], ...]
    findings: tuple[FindingView, ...]
    shares: pd.DataFrame
    strange: tuple[StrangeView, ...]
    n_photos: int
    n_far: int
    unusable: pd.DataFrame

    @property
    def title(self) -> str:
        """The answer in words."""
        return TITLES[self.answer]

    @property
    def marks(self) -> Iterator[dict[str, float | str]]:
        """The shares of the classes that are shown, on a scale that ends at the largest of them."""
        shown = self.shares.head(MAX_CLASSES)
        top = max(float(shown[["training", "high"]].to_numpy().max(initial=0.0)), 1e-9)
        for row in shown.to_dict("records"):
            scaled = {f"{name}_at": row[name] / top for name in ("training", "low", "high")}
            yield row | scaled | {"estimated_at": row["estimated"] / top}


def render_drift(view: DriftView, title: str) -> str:
    """The page as HTML text: no script, no request; names from outside are escaped.

    Args:
        title: of the page, for instance the model's name and version.
    """
    template = environment(view.photos).get_template("drift.html")
    limits = {"max_classes": MAX_CLASSES, "max_unusable": MAX_UNUSABLE}
    return template.render(look=view, title=title, **limits)
