"""The verdict: who serves from now on, why, and every guard with its number."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Literal

import pandas as pd

from regraft.core.config import Config
from regraft.evaluation.report import Standing
from regraft.model.classifier import ClassContract
from regraft.promotion.duel import Duel
from regraft.promotion.guard import Guard, right
from regraft.promotion.guards import guards
from regraft.stats import paired_interval

Evidence = dict[str, int | float | str]
Decision = Literal["promote", "keep", "hold"]
_WORDS: dict[Standing, str] = {
    "promote": "promoted",
    "keep": "not promoted",
    "hold": "not decided",
    "wait": "waits for approval",
    "serves": "serves already",
}
_MARKS = {"passed": "ok  ", "failed": "FAIL", "open": "?   ", "noted": "    "}
# The settings that decide, and are in the id; not where pages go.
_JUDGED_BY = (
    *("promote.m", "promote.rule", "promote.level", "promote.power", "promote.approval"),
    *("behaviour.", "classes.", "evaluate.n_bins", "evaluate.max_slice", "registry.parity"),
)


@dataclass(frozen=True)
class Flip:
    """A photo that the champion named rightly and the challenger does not."""

    path: str
    label: str
    champion: str
    challenger: str
    confidence: float


@dataclass(frozen=True)
class Verdict:
    """Who serves from now on, why, and with which numbers.

    id: of the photos, the answers, the rule and the outcome; the same again has the same id.
    decision: promote = the challenger becomes the champion; keep = it does not; hold = these photos
        cannot decide, so it does not.
    reason: one sentence.
    champion: the version it was compared with, None if there was none.
    guards: in the order of reading.
    evidence: counts and shares by name; which ones there are depends on how far the duel came.
    flips: right before and wrong now, the surest first.
    waits: it passed, and somebody has to approve it before anything moves.
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
    waits: bool = False

    def __str__(self) -> str:
        return f"promote: {self.told_standing}, {self.reason}"

    def told(self, model: str) -> str:
        """The whole verdict for a terminal: what became of the model, why, and a line a guard."""
        rival = f"champion version {self.champion}" if self.champion else "no champion yet"
        width = max(len(line.name) for line in self.guards)
        lines = [f"  {_MARKS[g.outcome]}  {g.name:{width}}  {g.said}" for g in self.guards]
        head = f"{model} against {rival}: {self.told_standing}"
        return "\n".join([head, f"  {self.reason}", "", *lines, "", f"  verdict {self.id}"])

    @property
    def standing(self) -> Standing:
        """What becomes of the challenger."""
        if self.champion == self.challenger:
            return "serves"
        return "wait" if self.waits else self.decision

    @property
    def told_standing(self) -> str:
        """The same in words."""
        return _WORDS[self.standing]

    @property
    def moves(self) -> bool:
        """Whether the alias moves now."""
        return self.decision == "promote" and not self.waits

    @property
    def serves(self) -> bool:
        """Whether the challenger serves after this verdict."""
        return self.moves or self.standing == "serves"


def judge(duel: Duel, config: Config) -> Verdict:
    """Whether the challenger wins, the reason, and every guard.

    The first model wins if no guard fails. A later one must pass the rule of config.promote too. A
    guard that fails stops it; where none fails and one is open, the photos cannot decide. Nothing
    is measured here, so an old duel can be judged by another rule.

    Passing needs all guards at once, so no guard can make a false promotion likelier than
    config.promote.level (an intersection-union test, Berger 1982); the guards that look for harm
    are many, and corrected against stopping a harmless challenger.
    """
    lines = tuple(guards(duel, config))
    decision, reason = _decided(duel, lines)
    verdict = Verdict(
        id="",
        decision=decision,
        reason=reason,
        name=duel.contenders.name,
        challenger=duel.contenders.challenger,
        champion=duel.contenders.champion,
        guards=lines,
        evidence=dict(_evidence(duel)),
        flips=tuple(_flips(duel.compared)),
        waits=decision == "promote" and config.promote.approval == "human",
    )
    return replace(verdict, id=_id_of(duel, config, verdict))


def _decided(duel: Duel, lines: tuple[Guard, ...]) -> tuple[Decision, str]:
    contenders = duel.contenders
    if contenders.are_one:
        return "keep", f"version {contenders.champion} is already the champion"
    failed = [line for line in lines if line.outcome == "failed"]
    if failed:
        others = [line.name for line in failed[1:]]
        more = f"; it also fails: {', '.join(others)}" if others else ""
        return "keep", f"{failed[0].said}{more}"
    if unsure := [line for line in lines if line.outcome == "open"]:
        return "hold", f"cannot be decided: {unsure[0].said}"
    if contenders.champion is None:
        return "promote", "the first model, and it clears the floor"
    return "promote", next(line.said for line in lines if line.name == "accuracy")


def _evidence(duel: Duel) -> Iterator[tuple[str, int | float | str]]:
    photos, compared = duel.photos, duel.compared
    yield "n_test", len(photos)
    yield "test_accuracy", float(right(photos, "challenger").mean())
    if len(duel.fresh):
        yield "majority_share", duel.majority_share
    if duel.contenders.champion is None:
        return
    yield "n_seen", int(photos.seen.sum())
    is_other = ~duel.fresh.label.isin(duel.contenders.contract.kept)
    yield "n_other_classes", int(is_other.sum())
    yield "n", len(compared)
    if len(compared):
        yield from _paired(compared)


def _paired(compared: pd.DataFrame) -> Iterator[tuple[str, int | float | str]]:
    new, old, n = right(compared, "challenger"), right(compared, "champion"), len(compared)
    only_new, only_old = int((new & ~old).sum()), int((old & ~new).sum())
    yield "both_right", int((new & old).sum())
    yield "only_champion", only_old
    yield "only_challenger", only_new
    yield "both_wrong", int((~new & ~old).sum())
    yield "challenger_accuracy", float(new.mean())
    yield "champion_accuracy", float(old.mean())
    yield "gain", (only_new - only_old) / n
    low, high = paired_interval(n, only_new, only_old)
    yield "gain_low", low
    yield "gain_high", high


def _flips(compared: pd.DataFrame) -> Iterator[Flip]:
    lost = compared[right(compared, "champion") & ~right(compared, "challenger")]
    ordered = lost.sort_values("challenger_confidence", ascending=False, kind="stable")
    for photo in ordered.to_dict("records"):
        yield Flip(
            path=str(photo["path"]),
            label=str(photo["label"]),
            champion=str(photo["champion"]),
            challenger=str(photo["challenger"]),
            confidence=float(photo["challenger_confidence"]),
        )


def _id_of(duel: Duel, config: Config, verdict: Verdict) -> str:
    """12 hex digits over what was judged, by which rule, and how."""
    rule = {name: text for name, text in config.flat().items() if name.startswith(_JUDGED_BY)}
    said = [[line.name, line.outcome] for line in verdict.guards]
    known = replace(duel.contenders, ms=0.0, parity=())  # what no two machines measure alike
    digest = hashlib.sha256(duel.photos.to_csv(index=False).encode())
    told = [rule, said, verdict.decision, asdict(known)]
    digest.update(json.dumps(told, default=ClassContract.model_dump).encode())
    return digest.hexdigest()[:12]
