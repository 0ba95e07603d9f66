"""The verdict: the decision about a challenger, the reason, and the result of every guard."""

from dataclasses import dataclass

from regraft.core.outcomes import CheckOutcome, Decision, VerdictStatus
from regraft.promotion.guard import Guard

Evidence = dict[str, int | float | str]
_STATUS_TEXTS: dict[VerdictStatus, str] = {
    "promote": "promoted",
    "keep": "not promoted",
    "hold": "not decided",
    "pending": "waits for approval",
    "serving": "serves already",
}
_MARKS: dict[CheckOutcome, str] = {
    "passed": "ok  ",
    "failed": "FAIL",
    "inconclusive": "?   ",
    "info": "    ",
}


@dataclass(frozen=True)
class Flip:
    """A photo that the champion predicted correctly and the challenger does not."""

    path: str
    label: str
    champion: str
    challenger: str
    confidence: float


@dataclass(frozen=True)
class Verdict:
    """The decision about a challenger, the reason, and the numbers.

    id: a hash of the photos, the predictions, the configuration and the outcome; the same inputs
        give the same id.
    decision: promote = the challenger becomes the champion; keep = it does not; hold = too little
        evidence to decide, so it does not.
    reason: one sentence.
    champion: the version that the challenger was compared with, None if there was none.
    guards: in the order of display.
    evidence: counts and shares by name; the names depend on how many guards could run.
    flips: negative flips, the highest confidence first.
    is_pending: all guards passed, but a person must approve the promotion.
    """

    id: str
    decision: Decision
    reason: str
    name: str
    challenger: int
    champion: int | None
    guards: tuple[Guard, ...]
    evidence: Evidence
    flips: tuple[Flip, ...]
    is_pending: bool = False

    def __str__(self) -> str:
        return f"promote: {self.status_text}, {self.reason}"

    def format_text(self, model: str) -> str:
        """Return the verdict as text: status, reason, a line for each guard, and the id.

        Args:
            model: the challenger as NAME/VERSION.
        """
        rival = f"champion version {self.champion}" if self.champion else "no champion yet"
        width = max(len(guard.name) for guard in self.guards)
        lines = [
            f"  {_MARKS[guard.outcome]}  {guard.name:{width}}  {guard.message}"
            for guard in self.guards
        ]
        head = f"{model} against {rival}: {self.status_text}"
        return "\n".join([head, f"  {self.reason}", "", *lines, "", f"  verdict {self.id}"])

    @property
    def status(self) -> VerdictStatus:
        """The status of the challenger under this verdict."""
        if self.champion == self.challenger:
            return "serving"
        return "pending" if self.is_pending else self.decision

    @property
    def status_text(self) -> str:
        """The status in words."""
        return _STATUS_TEXTS[self.status]

    @property
    def moves_champion(self) -> bool:
        """Whether this verdict moves the alias champion without approval."""
        return self.decision == "promote" and not self.is_pending

    @property
    def is_serving(self) -> bool:
        """Whether the challenger is the champion after this verdict."""
        return self.moves_champion or self.status == "serving"
