"""Decisions about the splits that the user did not make, a sentence each."""

from collections.abc import Iterator, Sequence

import pandas as pd

from regraft.core.config import SplitConfig
from regraft.core.text import format_count
from regraft.data.split.extension import SplitExtension, format_extensions
from regraft.data.split.given import given_splits

MAX_CLASSES = 10  # listed by name; the others are counted


def split_notes(
    photos: pd.DataFrame,
    classes: Sequence[str],
    extensions: Sequence[SplitExtension],
    config: SplitConfig,
) -> tuple[str, ...]:
    """Return the notes about the splits.

    Args:
        photos: of all splits, with the columns label, split, given_split, is_here (True),
            remembered (the recorded split, "" if none), is_free (whether the automatic
            assignment chose the split) and fresh_split (the split without the memory).
        classes: of the image table.
        extensions: new photos in a frozen test split.
    """
    return (
        *_given_notes(photos, config),
        *_memory_notes(photos, extensions, config),
        *_class_notes(photos, classes),
    )


def _given_notes(photos: pd.DataFrame, config: SplitConfig) -> Iterator[str]:
    """Yield what happens to photos of a data set in which the user gave splits."""
    given = photos["given_split"].fillna("")
    if not given.any():
        return
    counts = given.value_counts()
    n_given = {name: int(counts.get(name, 0)) for name in ("validation", "test")}
    used = given_splits(photos, config)
    if (used != given).any():
        yield (
            f"The {n_given['validation']} given validation photos are the test split, because "
            "split.validation_as_test is set and no test photos were given."
        )
    elif config.validation_as_test:
        yield "split.validation_as_test has no effect: test photos were given, or no validation."
    for name in ("test", "validation"):
        cut = photos[(photos["split"] == name) & (used != name)]
        if len(cut) and not (used == name).any():
            yield _cut_note(name, len(cut), n_given["validation"], config)
    n_unset = int((given == "").sum())
    if n_unset:
        yield f"{n_unset} photos without a given split count as train; the others have one."


def _cut_note(name: str, n_cut: int, n_validation: int, config: SplitConfig) -> str:
    fraction = config.test_fraction if name == "test" else config.validation_fraction
    text = f"No {name} photos were given: {n_cut} were taken from train"
    text += f" (split.{name}_fraction={fraction:g})."
    if name == "test" and n_validation:
        text += (
            f" The {n_validation} given validation photos select the model; to test on them "
            "instead, set split.validation_as_test=true."
        )
    return text


def _memory_notes(
    photos: pd.DataFrame, extensions: Sequence[SplitExtension], config: SplitConfig
) -> Iterator[str]:
    recorded = photos["remembered"]
    is_sticky = photos["is_free"] & (recorded != "") & (photos["split"] != photos["fresh_split"])
    if is_sticky.any() and not config.freeze_test:
        photos_text = format_count(int(is_sticky.sum()), "photo")
        yield (
            f"{photos_text} would be in another split without the memory of earlier runs "
            "(split.memory_url); the fractions and the salt apply to new photos."
        )
    n_moved = int((~photos["is_free"] & (recorded != "") & (recorded != photos["split"])).sum())
    if n_moved:
        yield f"{n_moved} photos left the split of an earlier run, because another one was given."
    if config.freeze_test and not (recorded == "test").any():
        yield "split.freeze_test takes effect from the next run: no test photo was recorded before."
    if extensions:
        yield (
            f"The frozen test split was extended by new photos, {format_extensions(extensions)}: "
            "earlier accuracies were measured on fewer photos."
        )


def _class_notes(photos: pd.DataFrame, classes: Sequence[str]) -> Iterator[str]:
    for name, effect in (
        ("test", "the accuracy says nothing about them"),
        ("validation", "they do not influence which model is selected"),
    ):
        present = set(photos.loc[photos["split"] == name, "label"])
        absent = [label for label in classes if label not in present]
        if absent:
            listed = ", ".join(absent[:MAX_CLASSES])
            more = len(absent) - MAX_CLASSES
            listed += f" and {more} more" if more > 0 else ""
            yield f"Classes without a {name} photo: {listed}; {effect}."
