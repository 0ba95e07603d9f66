"""The verdict as HTML: a section at the top of the report page, or a page of its own."""

from collections.abc import Iterator
from dataclasses import dataclass

from regraft.core.intervals import Interval
from regraft.core.outcomes import CheckOutcome, VerdictStatus
from regraft.evaluation.report.environment import environment

TITLES: dict[VerdictStatus, str] = {
    "promote": "Promoted to champion",
    "keep": "Not promoted",
    "hold": "Not decided",
    "pending": "Waits for approval",
    "serving": "Serves already",
}


@dataclass(frozen=True)
class ScoreView:
    """A model's name, and its accuracy on the compared photos."""

    name: str
    accuracy: Interval


@dataclass(frozen=True)
class GuardView:
    """A row of the table of guards; message: a sentence with the number."""

    name: str
    outcome: CheckOutcome
    message: str


@dataclass(frozen=True)
class FlipView:
    """A negative flip: a photo that was correct before and is wrong now.

    predicted: the wrong class. confidence: in [0, 1]. jpeg: a thumbnail, empty if the photo cannot
    be read.
    """

    path: str
    label: str
    predicted: str
    confidence: float
    jpeg: bytes


@dataclass(frozen=True)
class VerdictView:
    """What the template shows of a verdict.

    status: of the challenger.
    scores, counts: empty without a champion; counts are (caption, photos), and their sum is the
        number of compared photos.
    n_flips: all negative flips; flips: those with a thumbnail on the page.
    footnote: the id of the verdict and its error rate.
    """

    status: VerdictStatus
    reason: str
    scores: tuple[ScoreView, ...] = ()
    counts: tuple[tuple[str, int], ...] = ()
    guards: tuple[GuardView, ...] = ()
    flips: tuple[FlipView, ...] = ()
    n_flips: int = 0
    footnote: str = ""

    @property
    def title(self) -> str:
        """The status in words."""
        return TITLES[self.status]

    @property
    def shares(self) -> Iterator[tuple[str, int, float]]:
        """(caption, photos, share in [0, 1]) of the counts."""
        n = sum(count for _, count in self.counts)
        return ((caption, count, count / n) for caption, count in self.counts)


def render_verdict(verdict: VerdictView, title: str) -> str:
    """Return the page of a verdict without a report, as HTML; values are escaped.

    Args:
        verdict: what the page shows.
        title: of the page, for example the model's name and version.
    """
    template = environment("").get_template("verdict_page.html")
    return template.render(verdict=verdict, title=title)
