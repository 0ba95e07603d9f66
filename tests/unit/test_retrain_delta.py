"""The delta of the data: each photo counts once, by content, under today's class names."""

import re

import numpy as np
import pandas as pd
import pytest

from regraft.core.errors import ConfigError
from regraft.data.split import Splits
from regraft.operations.advice import MAX_LISTED, ClassDelta
from regraft.operations.retrain.delta import compute_delta

PETS = ("cat", "dog")


def splits_of(photos):
    """Splits of {content: (label, side)}; a content is its own path."""
    frame = pd.DataFrame(
        [(f"/p/{sha}", label, sha, side) for sha, (label, side) in photos.items()],
        columns=["path", "label", "sha256", "split"],
    )
    nothing = pd.DataFrame(columns=["path"])
    classes = tuple(sorted(set(frame["label"])))
    return Splits(frame, nothing, nothing, classes, "digest", 0, "/p", 0)


def manifest_of(photos):
    """The manifest of a model that was trained on these photos."""
    frame = splits_of(photos).frame
    return frame.loc[frame["split"] != "test", ["sha256", "label", "split"]]


def compared(then, now, renamed=None, since=3):
    classes = tuple(sorted({label for label, _ in then.values()}))
    return compute_delta(splits_of(now), manifest_of(then), since, classes, renamed or {})


def lines(delta):
    return {line.label: (line.before, line.added, line.removed) for line in delta.classes}


THEN = {
    "a": ("cat", "train"),
    "b": ("cat", "validation"),
    "c": ("dog", "train"),
    "d": ("dog", "train"),
    "t": ("dog", "test"),
}


def test_nothing_changed_is_said_of_every_class():
    delta = compared(THEN, THEN)
    assert delta.classes == (ClassDelta("cat", 2, 0, 0, 0, 0), ClassDelta("dog", 2, 0, 0, 0, 0))
    assert (delta.since, delta.n_before, delta.n_changed, delta.changed_fraction) == (3, 4, 0, 0.0)
    assert (delta.appeared, delta.vanished, delta.relabelled) == ((), (), ())


def test_photos_that_came_and_went_are_counted_by_class():
    now = {key: value for key, value in THEN.items() if key != "c"}
    now |= {"e": ("cat", "train"), "f": ("cat", "validation")}
    delta = compared(THEN, now)
    assert lines(delta) == {"cat": (2, 2, 0), "dog": (2, 0, 1)}
    assert delta.changed_fraction == 0.75
    assert re.findall(r"\d+ \w+", str(delta)) == ["2 new", "1 removed", "0 relabelled"]
    assert str(delta).endswith(" version 3")


def test_a_photo_with_another_label_leaves_one_class_for_the_other():
    delta = compared(THEN, THEN | {"a": ("dog", "train")})
    assert delta.classes == (ClassDelta("cat", 2, 0, 0, 0, 1), ClassDelta("dog", 2, 0, 0, 1, 0))
    assert delta.relabelled == (("/p/a", "cat", "dog"),)
    assert (delta.n_relabelled, delta.n_changed) == (1, 1)


def test_the_side_a_photo_is_learned_on_does_not_matter():
    assert compared(THEN, THEN | {"a": ("cat", "validation")}).n_changed == 0


def test_what_changes_on_the_test_side_is_no_reason_to_learn():
    now = THEN | {"t": ("cat", "test"), "u": ("dog", "test")}
    assert compared(THEN, now).n_changed == 0


def test_a_photo_that_moves_to_test_is_learned_from_no_more():
    delta = compared(THEN, THEN | {"a": ("cat", "test")})
    assert lines(delta)["cat"] == (2, 0, 1)


def test_copies_count_once_and_moved_files_not_at_all():
    splits = splits_of(THEN)
    frame = splits.frame.assign(path=splits.frame["path"] + ".moved.png")
    doubled = Splits(**(vars(splits) | {"frame": pd.concat([frame, frame])}))
    manifest = pd.concat([manifest_of(THEN)] * 2)
    assert compute_delta(doubled, manifest, 3, PETS, {}).classes == compared(THEN, THEN).classes


def test_classes_that_appear_and_vanish_are_named():
    now = {"a": ("cat", "train"), "b": ("emu", "train"), "e": ("fox", "train")}
    delta = compared(THEN, now)
    assert [line.label for line in delta.classes] == ["cat", "dog", "emu", "fox"]
    assert (delta.appeared, delta.vanished) == (("emu", "fox"), ("dog",))
    assert delta.relabelled == (("/p/b", "cat", "emu"),)


def test_a_renamed_class_is_the_same_class():
    now = {sha: ({"cat": "kitty"}.get(label, label), side) for sha, (label, side) in THEN.items()}
    delta = compared(THEN, now, {"cat": "kitty"})
    assert (delta.n_changed, delta.appeared, delta.vanished) == (0, (), ())
    assert [line.label for line in delta.classes] == ["dog", "kitty"]
    assert compared(now, now, {"cat": "kitty"}).n_changed == 0  # the rename was applied before
    moved = compared(THEN, now | {"a": ("dog", "train")}, {"cat": "kitty"})
    assert moved.relabelled == (("/p/a", "kitty", "dog"),)


def test_two_classes_that_swap_their_names_are_no_change():
    swap = {"cat": "dog", "dog": "cat"}
    now = {sha: (swap[label], side) for sha, (label, side) in THEN.items()}
    assert compared(THEN, now, swap).n_changed == 0
    assert compared(THEN, now).n_relabelled == 4


def test_a_new_name_cannot_hide_that_two_classes_become_one():
    with pytest.raises(ConfigError, match=r"classes\.renamed.*'cat'.*'dog'"):
        compared(THEN, THEN, {"cat": "dog"})


def test_before_the_first_training_all_is_new():
    delta = compute_delta(splits_of(THEN), None, None, (), {})
    assert lines(delta) == {"cat": (0, 2, 0), "dog": (0, 2, 0)}
    assert (delta.since, delta.changed_fraction, delta.appeared) == (None, 1.0, PETS)
    assert re.findall(r"\d+ \w+", str(delta)) == ["4 new", "0 removed", "0 relabelled"]
    assert "version" not in str(delta)


def test_of_many_relabelled_photos_the_first_are_named_and_all_are_counted():
    then = {f"{i:03}": ("cat", "train") for i in range(50)} | {"z": ("dog", "train")}
    now = {sha: ("dog" if sha < "030" else label, side) for sha, (label, side) in then.items()}
    delta = compared(then, now)
    assert delta.n_relabelled == 30
    assert [path for path, _, _ in delta.relabelled] == [f"/p/{i:03}" for i in range(MAX_LISTED)]


@pytest.mark.parametrize(
    "seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 10))]
)
def test_over_any_sequence_the_books_balance(seed):
    """Before + added - removed = now, and no photo is counted twice."""
    rng = np.random.default_rng(seed)
    labels, places = ("ant", "bee", "cat"), ("train", "train", "validation", "test")
    photos = {f"0_{i}": (str(rng.choice(labels)), str(rng.choice(places))) for i in range(40)}
    for step in range(1, 9):
        then = dict(photos)
        for sha in rng.choice(sorted(photos), 3, replace=False):
            del photos[sha]
        for sha in rng.choice(sorted(photos), 4, replace=False):
            photos[sha] = (str(rng.choice(labels)), photos[sha][1])
        for number in range(int(rng.integers(0, 9))):
            photos[f"{step}_{number}"] = (str(rng.choice(labels)), str(rng.choice(places)))
        delta = compared(then, photos)
        old = {sha: label for sha, (label, side) in then.items() if side != "test"}
        new = {sha: label for sha, (label, side) in photos.items() if side != "test"}
        for line in delta.classes:
            assert line.before == sum(label == line.label for label in old.values())
            coming = line.added + line.relabelled_in
            going = line.removed + line.relabelled_out
            now = sum(label == line.label for label in new.values())
            assert line.before + coming - going == now
        assert delta.n_added == len(new.keys() - old.keys())
        assert delta.n_removed == len(old.keys() - new.keys())
        changed = {sha for sha in old.keys() & new.keys() if old[sha] != new[sha]}
        assert delta.n_relabelled == len(changed)
        assert {path for path, _, _ in delta.relabelled} == {f"/p/{sha}" for sha in changed}
        assert sum(line.relabelled_out for line in delta.classes) == len(changed)
