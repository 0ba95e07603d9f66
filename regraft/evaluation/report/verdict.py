"""The verdict as a reader wants it: on top of the report page, or as a page of its own."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from regraft.evaluation.evaluate import Interval
from regraft.evaluation.report.environment import environment

Standing = Literal["promote", "keep", "hold", "wait", "serves"]
TITLES: dict[Standing, str] = {
    "promote": "Promoted to champion",
    "keep": "Not promoted",
    "hold": "Not decided",
    "wait": "Waits for approval",
    "serves": "Serves already",
}


@dataclass(frozen=True)
class ScoreView:
    """A contender's name, and its accuracy on the photos that were compared."""

    name: str
    accuracy: Interval


@dataclass(frozen=True)
class GuardView:
    """A line: what was looked at, how it came out (passed, failed, open, noted), and the number."""

    name: str
    outcome: str
    said: str


@dataclass(frozen=True)
class FlipView:
    """A photo that was right before and is wrong now; jpeg: small, empty if it cannot be read."""

    path: str
    label: str
    said: str
    confidence: float
    jpeg: bytes


@dataclass(frozen=True)
class VerdictView:
    """Who serves, why, and what it rests on.

    standing: what becomes of the challenger. scores, counts: empty without a champion; counts are
    (what, photos) and sum to the photos that were compared.
    n_flips: all of them; flips: those that are shown.
    footnote: what a reader needs to find the verdict again.
    """

    standing: Standing
    reason: str
    scores: tuple[ScoreView, ...] = ()
    counts: tuple[tuple[str, int], ...] = ()
    guards: tuple[GuardView, ...] = ()
    flips: tuple[FlipView, ...] = ()
    n_flips: int = 0
    footnote: str = ""

    @property
    def title(self) -> str:
        """The standing in words."""
        return TITLES[self.standing]

    @property
    def shares(self) -> Iterator[tuple[str, int, float]]:
        """(what, photos, share in [0, 1]) of the counts."""
        n = sum(count for _, count in self.counts)
        return ((what, count, count / n) for what, count in self.counts)


def render_verdict(verdict: VerdictView, title: str) -> str:
    """The page of a verdict alone, as HTML text; names from outside are escaped.

    Args:
        title: of the page, for instance the model's name and version.
    """
    template = environment("").get_template("verdict_page.html")
    return template.render(verdict=verdict, title=title)
