"""The splits: every photo on one side, and no photo on two."""

import hashlib
import json
from dataclasses import dataclass, field

import pandas as pd

from regraft.core.config import SplitConfig
from regraft.core.errors import ConfigError, EmptySplit
from regraft.data.ingest import ImageTable
from regraft.data.ingest.labels import relabelled_table
from regraft.data.split.copies import NearPairs, find_near_pairs
from regraft.data.split.leaks import find_leaks, refuse_leaks
from regraft.data.split.memory import locked, recall, remember
from regraft.data.split.sides import SIDES, Shares, assign, unite
from regraft.data.split.widening import Widening, told, widenings

# Names of facts, for a report: see Splits.late_facts.
WAITING = "photos that wait for a label"
RELABELLED = "photos with another label than before"
WIDENED = "new photos on the frozen test side"


@dataclass(frozen=True)
class Splits:
    """The photos of each side, and the leaks found between sides.

    Attributes:
        frame: the image table's frame, without dropped leaks, and the column side: train,
            validation or test; sorted by path.
        leaks: one row a photo with a copy on a side that judges more: path, label, side,
            other_path, other_label, other_side, kind (copy, near copy, group), distance (hash
            bits; 0 copy, -1 group), action (dropped, kept).
        quarantine, classes, n_ignored, source: as in the image table.
        digest: sha256 over the assignment: content, label and side.
        n_duplicates: photos of the table that have an exact or a near copy in it.
        n_waiting, relabelled: as in the image table.
        widened: what a frozen test side took in this time; empty if it is not frozen.
    """

    frame: pd.DataFrame
    leaks: pd.DataFrame
    quarantine: pd.DataFrame
    classes: tuple[str, ...]
    digest: str
    n_ignored: int
    source: str
    n_duplicates: int
    n_waiting: int = 0
    relabelled: pd.DataFrame = field(default_factory=relabelled_table)
    widened: tuple[Widening, ...] = ()

    def __str__(self) -> str:
        counts = ", ".join(f"{len(self.side(name))} {name}" for name in SIDES)
        dropped = int((self.leaks["action"] == "dropped").sum())
        wider = f"; the frozen test side took in {told(self.widened)}" * bool(self.widened)
        return f"split: {counts}; {len(self.leaks)} leaks between sides, {dropped} dropped{wider}"

    def side(self, name: str) -> pd.DataFrame:
        """The photos of one side: train, validation or test."""
        return self.frame[self.frame["side"] == name].reset_index(drop=True)

    @property
    def train(self) -> pd.DataFrame:
        """The photos that are trained on."""
        return self.side("train")

    @property
    def validation(self) -> pd.DataFrame:
        """The photos that choose."""
        return self.side("validation")

    @property
    def test(self) -> pd.DataFrame:
        """The photos that judge."""
        return self.side("test")

    @property
    def late_facts(self) -> dict[str, str]:
        """What came late, by WAITING, RELABELLED and WIDENED; "" where there is nothing to say."""
        return {
            WAITING: str(self.n_waiting or ""),
            RELABELLED: str(len(self.relabelled) or ""),
            WIDENED: told(self.widened),
        }

    @property
    def counts(self) -> pd.DataFrame:
        """(n_classes, 3) photos of each class on each side; a class that a side lacks has 0."""
        counts = pd.crosstab(self.frame["label"], self.frame["side"])
        return counts.reindex(index=list(self.classes), columns=list(SIDES), fill_value=0)


def split(table: ImageTable, config: SplitConfig, *, remembers: bool = True) -> Splits:
    """The table's photos, each on one side.

    Where the user gave splits they are kept, photos without one count as train, and a side that
    nobody was given is carved out of train; where no split is given at all, everything is shared
    out. Both by the automatic rule (see assign in sides.py), which the memory makes sticky: a photo
    that was given a side once keeps it, whatever is added. Without a memory the same table still
    gives the same split. A given side wins over a remembered one.

    With config.freeze_test, and once the memory knows a test photo, new photos are for train and
    validation; what the test side takes in all the same, assign() says, and Splits.widened counts.

    Args:
        table: what ingest made; the order of its rows does not matter.
        config: shares, what becomes of leaks, and where the memory is.
        remembers: whether the sides of new photos go into the memory; False: it is only read.

    Raises:
        ConfigError: the test side is to be frozen, and there is no memory.
        SplitLeak: a photo has a copy on another side, and config.on_leak is "error".
        EmptySplit: a side has no photos, or a class none to train on.
    """
    _refuse_forgetful(config)
    with locked(config.memory_url):
        remembered = recall(config.memory_url)
        photos, pairs = _nodes(table.frame, remembered, config)
        placed = _place(photos, _is_frozen(remembered, config), config)
        here = placed[placed["is_here"]]
        leaks = find_leaks(here, pairs, drop=config.on_leak == "drop")
        if config.on_leak == "error":
            refuse_leaks(leaks)
        dropped = leaks[leaks["action"] == "dropped"].index
        kept = here.drop(index=dropped).sort_values("path")
        _refuse_empty(kept, table.classes)
        new = kept[kept["is_free"] & ~kept["sha256"].isin(remembered["sha256"])]
        remember(config.memory_url if remembers else "", new)
    return Splits(
        frame=kept[[*table.frame.columns, "side"]].reset_index(drop=True),
        leaks=leaks.reset_index(drop=True),
        quarantine=table.quarantine,
        classes=table.classes,
        digest=_digest(kept),
        n_ignored=table.n_ignored,
        source=table.source,
        n_duplicates=_n_duplicates(here, pairs),
        n_waiting=table.n_waiting,
        relabelled=table.relabelled,
        widened=widenings(placed, new) if _is_frozen(remembered, config) else (),
    )


def _nodes(
    frame: pd.DataFrame, remembered: pd.DataFrame, config: SplitConfig
) -> tuple[pd.DataFrame, NearPairs]:
    """The table's photos and those only remembered, with their units; and the near copies."""
    gone = remembered[~remembered["sha256"].isin(frame["sha256"])]
    here = frame.assign(is_here=True).merge(
        remembered[["sha256", "side"]].rename(columns={"side": "remembered"}),
        on="sha256",
        how="left",
    )
    ghosts = gone.rename(columns={"side": "remembered"}).assign(is_here=False, path="")
    photos = pd.concat([here, ghosts]) if len(ghosts) else here
    photos = photos.sort_values(["sha256", "path"]).reset_index(drop=True)
    photos["remembered"] = photos["remembered"].fillna("")
    photos["content"] = pd.factorize(photos["sha256"])[0]
    pairs = find_near_pairs(photos.drop_duplicates("sha256"), config.near_duplicate_bits)
    return photos.assign(unit=unite(photos, pairs)), pairs


def _is_frozen(remembered: pd.DataFrame, config: SplitConfig) -> bool:
    return config.freeze_test and bool((remembered["side"] == "test").any())


def _place(photos: pd.DataFrame, is_frozen: bool, config: SplitConfig) -> pd.DataFrame:
    """The photos with their side, and whether the automatic rule chose it (is_free)."""
    given = photos["split"].where(photos["is_here"], "").fillna("")
    fractions = {"test": config.test_fraction, "validation": config.validation_fraction}
    if given.any():
        # A side that photos are remembered on stays: one late row with a split moves nobody.
        kept = set(photos["remembered"]) | (set(fractions) - set(given))
        fractions = {side: part for side, part in fractions.items() if side in kept}
        given = given.where(given != "", "train")
    is_free = given.isin(["", "train"]) if fractions else given.isna()
    open_sides = ["train", *fractions]
    remembered = photos["remembered"]
    remembered = remembered.where((remembered == "") | remembered.isin(open_sides), "train")
    side = remembered.where(is_free, given)
    here = photos["is_here"]
    photos = photos.assign(side=side, is_free=is_free & here, is_given=~is_free & here)
    shares = Shares(fractions, config.salt, config.widen_test_below if is_frozen else None)
    return photos.assign(side=assign(photos, shares).astype("str"))


def _refuse_forgetful(config: SplitConfig) -> None:
    if config.freeze_test and not config.memory_url:
        raise ConfigError(
            "split.freeze_test needs to know which photos are on the test side: expected a folder "
            "or URL in split.memory_url, got none. Set it, or leave split.freeze_test away."
        )


def _refuse_empty(kept: pd.DataFrame, classes: tuple[str, ...]) -> None:
    for side in SIDES:
        if not (kept["side"] == side).any():
            raise EmptySplit(
                f"Expected photos on each side of the split, got none for {side} "
                f"({len(kept)} photos, {len(classes)} classes). Add photos (a class of three or "
                f"more has one on each side), or give the splits yourself."
            )
    lacking = sorted(set(classes) - set(kept.loc[kept["side"] == "train", "label"]))
    if lacking:
        raise EmptySplit(
            f"No photo to train on is left of {', '.join(lacking)}. Add photos of it to train, "
            f"look at the leaks (split.on_leak=keep shows them all), or remove the class."
        )


def _digest(kept: pd.DataFrame) -> str:
    rows = sorted(json.dumps(row) for row in kept[["sha256", "label", "side"]].to_numpy().tolist())
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()


def _n_duplicates(here: pd.DataFrame, pairs: NearPairs) -> int:
    contents = set(here["content"])
    near = {
        content
        for pair in zip(pairs.first.tolist(), pairs.second.tolist(), strict=True)
        if contents.issuperset(pair)
        for content in pair
    }
    return int((here["content"].duplicated(keep=False) | here["content"].isin(near)).sum())
