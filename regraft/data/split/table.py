"""The splits: every photo in a single split, and no photo in two."""

import hashlib
import json
from dataclasses import dataclass, field

import pandas as pd

from regraft.core.config import SplitConfig
from regraft.core.errors import ConfigError, EmptySplit
from regraft.core.text import format_count
from regraft.data.ingest import ImageTable
from regraft.data.ingest.labels import relabelled_table
from regraft.data.split.assignment import SPLIT_NAMES, Shares, assign, group_duplicates
from regraft.data.split.copies import NearPairs, find_near_pairs
from regraft.data.split.extension import SplitExtension, find_extensions, format_extensions
from regraft.data.split.given import given_splits
from regraft.data.split.leaks import find_leaks, refuse_leaks
from regraft.data.split.memory import load_assignments, memory_lock, save_assignments
from regraft.data.split.notes import split_notes


@dataclass(frozen=True)
class Splits:
    """The photos of each split, and the leaks between splits.

    Attributes:
        frame: the frame of the image table, without dropped leaks, with the additional column
            split: train, validation or test; sorted by path.
        leaks: one row per photo with a copy in a higher-ranked split: path, label, split,
            other_path, other_label, other_split, kind (copy, near copy, group), distance (hash
            bits; 0 copy, -1 group), action (dropped, kept).
        quarantine, classes, n_ignored, source: as in the image table.
        digest: sha256 of the assignment: content, label and split.
        n_duplicates: photos of the table that have an exact or a near copy in it.
        n_waiting, relabelled: as in the image table.
        test_extensions: new photos in a frozen test split; empty if test is not frozen.
        notes: decisions that the user did not make, a sentence each, for the report: those of the
            image table, then those about the splits.
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
    test_extensions: tuple[SplitExtension, ...] = ()
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        counts = ", ".join(f"{len(self.photos_in(name))} {name}" for name in SPLIT_NAMES)
        n_dropped = int((self.leaks["action"] == "dropped").sum())
        text = (
            f"split: {counts}; {format_count(len(self.leaks), 'leak')} between splits, "
            f"{n_dropped} dropped"
        )
        if self.test_extensions:
            text += f"; added to the frozen test split: {format_extensions(self.test_extensions)}"
        return text

    def photos_in(self, name: str) -> pd.DataFrame:
        """Return the photos of a split: train, validation or test."""
        return self.frame[self.frame["split"] == name].reset_index(drop=True)

    @property
    def train(self) -> pd.DataFrame:
        """The photos for training."""
        return self.photos_in("train")

    @property
    def validation(self) -> pd.DataFrame:
        """The photos for model selection."""
        return self.photos_in("validation")

    @property
    def test(self) -> pd.DataFrame:
        """The photos for the final evaluation."""
        return self.photos_in("test")

    @property
    def counts(self) -> pd.DataFrame:
        """(n_classes, 3) number of photos of each class in each split."""
        counts = pd.crosstab(self.frame["label"], self.frame["split"])
        return counts.reindex(index=list(self.classes), columns=list(SPLIT_NAMES), fill_value=0)


def split(table: ImageTable, config: SplitConfig, *, should_remember: bool = True) -> Splits:
    """Assign each photo of the table to a split.

    Given splits are used; photos without a given split count as train, and a split that no photo
    was given is taken from train; see also config.validation_as_test. If no split is given at all,
    all photos are assigned. Both use the automatic assignment (see assign()). With a memory, the
    assignment is sticky: a photo keeps its split when photos are added. Without a memory, the same
    table still gives the same split. A given split overrides a recorded split.

    With config.freeze_test, and once the memory contains a test photo, new photos go to train and
    validation. Exceptions are described in assign(), and counted in Splits.test_extensions.

    Args:
        table: result of ingest(); the order of its rows does not matter.
        config: shares, treatment of leaks, and location of the memory.
        should_remember: whether to record the splits of new photos in the memory; False = the
            memory is only read.

    Raises:
        ConfigError: config.freeze_test is on, and there is no memory.
        SplitLeak: a photo has a copy in another split, and config.on_leak is "error".
        EmptySplit: a split has no photos, or a class has no training photo.
    """
    _refuse_frozen_without_memory(config)
    with memory_lock(config.memory_url):
        remembered = load_assignments(config.memory_url)
        photos, pairs = _nodes(table.frame, remembered, config)
        placed = _place(photos, _is_frozen(remembered, config), config)
        fresh_splits = placed["split"] if remembered.empty else _fresh_splits(photos, config)
        current = placed[placed["is_here"]].assign(fresh_split=fresh_splits)
        leaks = find_leaks(current, config.near_duplicate_bits, drop=config.on_leak == "drop")
        if config.on_leak == "error":
            refuse_leaks(leaks)
        dropped = leaks[leaks["action"] == "dropped"].index
        retained = current.drop(index=dropped).sort_values("path")
        _refuse_empty(retained, table.classes)
        new = retained[retained["is_free"] & ~retained["sha256"].isin(remembered["sha256"])]
        save_assignments(config.memory_url if should_remember else "", new)
    is_frozen = _is_frozen(remembered, config)
    extensions = find_extensions(placed, new) if is_frozen else ()
    return Splits(
        frame=retained[[*table.frame.columns, "split"]].reset_index(drop=True),
        leaks=leaks.reset_index(drop=True),
        quarantine=table.quarantine,
        classes=table.classes,
        digest=_digest(retained),
        n_ignored=table.n_ignored,
        source=table.source,
        n_duplicates=_n_duplicates(current, pairs),
        n_waiting=table.n_waiting,
        relabelled=table.relabelled,
        test_extensions=extensions,
        notes=(*table.notes, *split_notes(retained, table.classes, extensions, config)),
    )


def _nodes(
    frame: pd.DataFrame, remembered: pd.DataFrame, config: SplitConfig
) -> tuple[pd.DataFrame, NearPairs]:
    """Return the photos of the table and of the memory with their units, and the near copies."""
    gone = remembered[~remembered["sha256"].isin(frame["sha256"])]
    current = frame.assign(is_here=True).merge(
        remembered[["sha256", "split"]].rename(columns={"split": "remembered"}),
        on="sha256",
        how="left",
    )
    past = gone.rename(columns={"split": "remembered"}).assign(is_here=False, path="")
    photos = pd.concat([current, past]) if len(past) else current
    # Present photos first: pairs with them are preferred, see _n_duplicates().
    photos = photos.sort_values(["is_here", "sha256", "path"], ascending=[False, True, True])
    photos = photos.reset_index(drop=True)
    photos["remembered"] = photos["remembered"].fillna("")
    photos["content"] = pd.factorize(photos["sha256"])[0]
    pairs = find_near_pairs(photos.drop_duplicates("sha256"), config.near_duplicate_bits)
    return photos.assign(unit=group_duplicates(photos, pairs)), pairs


def _is_frozen(remembered: pd.DataFrame, config: SplitConfig) -> bool:
    return config.freeze_test and bool((remembered["split"] == "test").any())


def _place(photos: pd.DataFrame, is_frozen: bool, config: SplitConfig) -> pd.DataFrame:
    """Add the column split, and is_free: whether the automatic assignment chose the split."""
    given = given_splits(photos, config)
    fractions = {"test": config.test_fraction, "validation": config.validation_fraction}
    if given.any():
        # A split with recorded photos stays: a late row with a given split moves no other photo.
        automatic = set(photos["remembered"]) | (set(fractions) - set(given))
        fractions = {name: part for name, part in fractions.items() if name in automatic}
        given = given.where(given != "", "train")
    is_free = given.isin(["", "train"]) if fractions else given.isna()
    open_splits = ["train", *fractions]
    remembered = photos["remembered"]
    remembered = remembered.where((remembered == "") | remembered.isin(open_splits), "train")
    initial = remembered.where(is_free, given)
    is_here = photos["is_here"]
    photos = photos.assign(split=initial, is_free=is_free & is_here, is_given=~is_free & is_here)
    shares = Shares(fractions, config.salt, config.widen_test_below if is_frozen else None)
    return photos.assign(split=assign(photos, shares).astype("str"))


def _fresh_splits(photos: pd.DataFrame, config: SplitConfig) -> "pd.Series[str]":
    """Return the splits of today's photos without the memory."""
    present = photos[photos["is_here"]]
    return _place(present.assign(remembered=""), False, config)["split"]


def _refuse_frozen_without_memory(config: SplitConfig) -> None:
    if config.freeze_test and not config.memory_url:
        raise ConfigError(
            "split.freeze_test needs the recorded test photos: expected a folder or URL in "
            "split.memory_url, got none. Set split.memory_url, or turn off split.freeze_test."
        )


def _refuse_empty(photos: pd.DataFrame, classes: tuple[str, ...]) -> None:
    for name in SPLIT_NAMES:
        if not (photos["split"] == name).any():
            raise EmptySplit(
                f"Expected photos in each split, got none for {name} "
                f"({format_count(len(photos), 'photo')}, "
                f"{len(classes)} classes). Add photos (a class of three or more has a photo in "
                f"each split), or give the splits yourself."
            )
    lacking = sorted(set(classes) - set(photos.loc[photos["split"] == "train", "label"]))
    if lacking:
        raise EmptySplit(
            f"Expected photos to train on for each class, got none of {', '.join(lacking)}. Add "
            f"photos of the class to train, check the leaks (split.on_leak=keep shows all of "
            f"them), or remove the class."
        )


def _digest(photos: pd.DataFrame) -> str:
    cells = photos[["sha256", "label", "split"]].to_numpy().tolist()
    rows = sorted(json.dumps(row) for row in cells)
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()


def _n_duplicates(photos: pd.DataFrame, pairs: NearPairs) -> int:
    contents = set(photos["content"])
    near = {
        content
        for pair in zip(pairs.first.tolist(), pairs.second.tolist(), strict=True)
        if contents.issuperset(pair)
        for content in pair
    }
    is_copy = photos["content"].duplicated(keep=False) | photos["content"].isin(near)
    return int(is_copy.sum())
