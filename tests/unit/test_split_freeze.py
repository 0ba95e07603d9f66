"""Promises of a frozen test split: it does not change, except as the rule allows."""

import hashlib
import math
import re
import shutil
from fractions import Fraction
from functools import cache

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError
from test_split import given_rows, near, photo_row, rows_of, sides, table_of

from regraft.core.config import SplitConfig
from regraft.core.errors import ConfigError
from regraft.data.split import SplitExtension, split
from regraft.data.split.assignment import Shares, assign
from regraft.data.split.extension import format_extensions


def frozen(folder, **options):
    """The configuration; by default without near copies, which is faster."""
    options = {"freeze_test": True, "near_duplicate_bits": 0, **options}
    return SplitConfig(memory_url=str(folder), **options)


@pytest.fixture(scope="module")
def first_splits(tmp_path_factory):
    """A function that returns the first split of n photos and the folder of its memory."""

    @cache
    def first_split(n):
        folder = tmp_path_factory.mktemp(f"memory of {n}")
        return folder, split(table_of(rows_of(n)), frozen(folder))

    return first_split


@pytest.fixture
def begin(first_splits, tmp_path):
    """A function that returns the first split of n photos, and copies its memory to tmp_path."""

    def begin(n):
        folder, splits = first_splits(n)
        shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
        return splits

    return begin


def test_ids(splits):
    return set(splits.test["sha256"])


test_ids.__test__ = False


def n_of(splits, label):
    """(test photos, all photos) of a class."""
    counts = splits.counts.loc[label]
    return int(counts["test"]), int(counts.sum())


def test_a_frozen_test_split_starts_like_any_other(tmp_path):
    table = table_of(rows_of(200))
    first = split(table, frozen(tmp_path))
    assert first.digest == split(table, SplitConfig(near_duplicate_bits=0)).digest
    assert first.test_extensions == ()


def test_new_photos_go_to_train_and_validation_alone(tmp_path, begin):
    first = begin(200)
    more = rows_of(200, prefix="new")
    second = split(table_of([*rows_of(200), *more]), frozen(tmp_path))
    assert test_ids(second) == test_ids(first)
    assert second.counts.to_numpy().tolist() == [[155, 30, 15], [155, 30, 15]]
    assert second.test_extensions == ()
    assert "frozen" not in str(second)


def test_without_freezing_the_same_photos_extend_the_test_split(tmp_path):
    config = frozen(tmp_path, freeze_test=False)
    first = split(table_of(rows_of(200)), config)
    second = split(table_of([*rows_of(200), *rows_of(200, prefix="new")]), config)
    assert test_ids(second) > test_ids(first)
    assert second.test_extensions == ()


def a_year(tmp_path, n_weeks, step):
    """Yield (previous splits, current splits) for each step."""
    rng, config = np.random.default_rng(0), frozen(tmp_path)
    rows = rows_of(40)
    before = split(table_of(rows), config)
    for week in range(0, n_weeks, step):
        labels = ("cat", "dog", "dog") if week % 5 else ("dog",)
        rows += rows_of(int(rng.integers(0, 5 * step)), labels, prefix=f"{week}_")
        now = split(table_of(rows), config)
        yield before, now
        before = now


def check_week(before, now):
    """Check that test lost no photo, and has exactly the number of photos of the rule."""
    assert test_ids(now) >= test_ids(before)
    was, after = sides(before), sides(now)
    assert {path: after[path] for path in was} == was
    for label in ("cat", "dog"):
        (n_before, _), (n_test, n) = n_of(before, label), n_of(now, label)
        assert n_test == max(n_before, math.ceil(Fraction("0.05") * n))
    assert sum(one.n_photos for one in now.test_extensions) == len(now.test) - len(before.test)
    assert {one.reason for one in now.test_extensions} <= {"small share"}


@pytest.mark.parametrize("n_weeks", [28, pytest.param(52, marks=pytest.mark.slow)])
def test_a_year_of_photos_changes_the_test_split_only_by_the_rule(tmp_path, n_weeks):
    weeks = list(a_year(tmp_path, n_weeks, 7))
    for before, now in weeks:
        check_week(before, now)
    sets = [test_ids(now) for _, now in weeks]
    assert sets[0] == test_ids(weeks[0][0])
    assert sets[-1] > sets[0]


def week_of(rng, n, week):
    """n photos without a split, as input of assign()."""
    names = [f"{week}_{i}" for i in range(n)]
    return pd.DataFrame(
        {
            "sha256": [hashlib.sha256(name.encode()).hexdigest() for name in names],
            "label": rng.choice(("cat", "dog", "emu"), n, p=(0.7, 0.25, 0.05)),
        }
    ).assign(group="", split="", is_given=False, is_free=True)


@pytest.mark.parametrize("n_weeks", [16, pytest.param(52, marks=pytest.mark.slow)])
def test_week_after_week_each_class_has_on_test_what_the_rule_says_to_a_photo(n_weeks):
    least = "0.07"
    rng, parts = np.random.default_rng(0), {"test": 0.15, "validation": 0.15}
    photos = week_of(rng, 60, "first")
    for week in range(0, n_weeks, 2):
        photos["unit"] = np.arange(len(photos))
        shares = Shares(parts, "", float(least) if week else None)
        side = assign(photos, shares)
        kept = photos["split"] != ""
        assert (side[kept] == photos.loc[kept, "split"]).all()
        for label, rows in photos.groupby("label"):
            n_before = int((rows["split"] == "test").sum())
            n_test = int((side[rows.index] == "test").sum())
            if week and n_before:
                assert n_test == max(n_before, math.ceil(Fraction(least) * len(rows))), label
        n = int(rng.integers(0, 25))
        photos = pd.concat([photos.assign(split=side), week_of(rng, n, week)], ignore_index=True)


def test_the_test_split_is_the_same_set_while_its_share_is_large_enough(tmp_path, begin):
    config = frozen(tmp_path)
    rows = rows_of(200)
    first = test_ids(begin(200))
    for month in range(2):  # 15 of 100 become 15 of 300 a class: exactly 5 %
        rows += rows_of(200, prefix=f"m{month}_")
        assert test_ids(split(table_of(rows), config)) == first
    splits = split(table_of([*rows, photo_row("one more", "cat")]), config)
    assert splits.test_extensions == (SplitExtension("cat", 1, "small share"),)
    assert n_of(splits, "cat") == (16, 301)
    assert re.search(r" 1 \(1 .*split\.widen_test_below\)$", str(splits))


def test_test_is_not_extended_if_the_minimum_share_is_zero(tmp_path):
    config = frozen(tmp_path, widen_test_below=0.0)
    first = split(table_of(rows_of(60)), config)
    many = split(table_of([*rows_of(60), *rows_of(900, prefix="new")]), config)
    assert test_ids(many) == test_ids(first)


def test_a_share_without_exact_binary_form_extends_test_by_no_extra_photo(tmp_path):
    config = frozen(tmp_path, widen_test_below=0.07)
    rows = rows_of(92, labels=("cat", "dog"))  # 7 of 46
    first = split(table_of(rows), config)
    assert n_of(first, "cat") == (7, 46)
    second = split(table_of([*rows, *rows_of(54, labels=("cat",), prefix="new")]), config)
    assert n_of(second, "cat") == (7, 100)


def test_a_class_that_appears_gets_its_usual_share(tmp_path, begin):
    first = begin(200)
    more = rows_of(40, labels=("emu",), prefix="new")
    second = split(table_of([*rows_of(200), *more]), frozen(tmp_path))
    assert second.counts.loc["emu"].tolist() == [28, 6, 6]
    assert second.test_extensions == (SplitExtension("emu", 6, "new class"),)
    assert test_ids(first) < test_ids(second)
    third = split(table_of([*rows_of(200), *more, photo_row("e", "emu")]), frozen(tmp_path))
    assert test_ids(third) == test_ids(second)


def test_a_class_that_appears_one_photo_at_a_time_is_judged_from_the_fourth_on(tmp_path, begin):
    config, rows, found = frozen(tmp_path), rows_of(40), {}
    begin(40)
    for n in (1, 2, 3, 4, 20, 21):
        emus = [photo_row(f"e{i}", "emu") for i in range(n)]
        found[n] = split(table_of([*rows, *emus]), config).counts.loc["emu"].tolist()
    assert list(found.values())[:4] == [[1, 0, 0], [2, 0, 0], [2, 1, 0], [2, 1, 1]]
    assert [counts[2] for counts in list(found.values())[4:]] == [1, 2]


def test_a_class_whose_test_photos_were_deleted_gets_its_share_of_the_new_ones(tmp_path, begin):
    config = frozen(tmp_path)
    first = begin(200)
    gone = set(first.test.loc[first.test["label"] == "cat", "path"])
    left = [row for row in rows_of(200) if row["path"] not in gone]
    more = rows_of(40, labels=("cat",), prefix="new")
    second = split(table_of([*left, *more]), config)
    assert n_of(second, "cat") == (6, 125)
    assert n_of(second, "dog") == (15, 100)
    assert second.test_extensions == (SplitExtension("cat", 6, "new class"),)


def test_a_test_photo_with_a_new_label_stays_in_the_test_split(tmp_path, begin):
    config = frozen(tmp_path)
    rows = rows_of(200)
    first = begin(200)
    moved = set(first.test["path"].head(5))
    rows = [row | {"label": "dog"} if row["path"] in moved else row for row in rows]
    second = split(table_of([*rows, *rows_of(10, prefix="new")]), config)
    assert test_ids(second) == test_ids(first)
    assert n_of(second, "cat")[0] == 10


def test_a_copy_of_a_test_photo_joins_it_and_is_format_extensions(tmp_path):
    config = frozen(tmp_path, near_duplicate_bits=4)
    first = split(table_of(rows_of(60)), config)
    row = next(row for row in rows_of(60) if row["path"] == first.test["path"][0])
    splits = split(table_of([*rows_of(60), near(row, 2), *rows_of(10, prefix="new")]), config)
    assert set(splits.test["path"]) == set(first.test["path"]) | {near(row, 2)["path"]}
    assert splits.test_extensions == (SplitExtension(row["label"], 1, "copy"),)
    assert splits.leaks.empty
    assert any(re.search(r" test split .* 1 \(1 copies ", note) for note in splits.notes)


def test_a_group_in_the_test_split_grows_there(tmp_path):
    config = frozen(tmp_path)
    rows = [row | {"group": f"g{i}"} for i, row in enumerate(rows_of(60))]
    first = split(table_of(rows), config)
    group, label = first.test["group"][0], first.test["label"][0]
    more = [photo_row(f"new{i}", label, group=group) for i in range(3)]
    splits = split(table_of([*rows, *more]), config)
    assert splits.test_extensions == (SplitExtension(label, 3, "copy"),)
    assert set(splits.frame.loc[splits.frame["group"] == group, "split"]) == {"test"}


def test_a_large_group_extends_test_if_it_fits(tmp_path):
    config = frozen(tmp_path, widen_test_below=0.15)
    rows = rows_of(40)
    split(table_of(rows), config)  # 3 of 20
    for week in range(4):
        rows += [photo_row(f"{week}_{i}", "cat", group=f"g{week}") for i in range(4)]
        splits = split(table_of(rows), config)
        n_test, n = n_of(splits, "cat")
        wanted = math.ceil(Fraction("0.15") * n)
        assert wanted - 4 < n_test <= wanted
        assert (splits.frame.groupby("group")["split"].nunique().drop("") == 1).all()


def test_the_order_of_the_rows_does_not_change_the_extensions(tmp_path):
    rows = [*rows_of(40), *rows_of(400, prefix="new"), *rows_of(30, ("emu",), prefix="e")]
    found = []
    for seed in range(2):
        config = frozen(tmp_path / str(seed))
        split(table_of(rows_of(40)), config)
        shuffled = [rows[i] for i in np.random.default_rng(seed).permutation(len(rows))]
        found.append(split(table_of(shuffled), config))
    assert {splits.digest for splits in found} == {found[0].digest}
    assert {splits.test_extensions for splits in found} == {found[0].test_extensions}
    assert {one.reason for one in found[0].test_extensions} == {"new class", "small share"}


def test_a_split_without_remembering_does_not_change_the_memory(tmp_path, begin):
    config = frozen(tmp_path)
    begin(40)
    table = table_of([*rows_of(40), *rows_of(400, prefix="new")])
    looked = split(table, config, should_remember=False)
    assert looked.test_extensions
    assert len(list(tmp_path.glob("*.parquet"))) == 1
    done = split(table, config)
    assert (done.digest, done.test_extensions) == (looked.digest, looked.test_extensions)
    again = split(table, config)
    assert (again.digest, again.test_extensions) == (done.digest, ())


def test_a_given_test_split_is_used_as_given(tmp_path):
    config = frozen(tmp_path)
    first = split(table_of(given_rows()), config)
    more = [photo_row(f"t{i}", "cat", given="test") for i in range(9)]
    splits = split(table_of([*given_rows(), *more]), config)
    assert test_ids(splits) == test_ids(first) | {row["sha256"] for row in more}
    assert splits.test_extensions == ()


def test_photos_given_to_train_do_not_extend_a_frozen_test_split(tmp_path):
    config = frozen(tmp_path)
    rows = [*rows_of(20, given="train"), *rows_of(8, prefix="v", given="validation")]
    first = split(table_of(rows), config)
    assert len(test_ids(first)) == 4
    splits = split(table_of([*rows, *rows_of(20, prefix="new", given="train")]), config)
    assert test_ids(splits) == test_ids(first)


def test_freezing_needs_a_memory():
    with pytest.raises(ConfigError, match=r"split\.freeze_test .*split\.memory_url"):
        split(table_of(rows_of(40)), SplitConfig(freeze_test=True))


def test_widen_test_below_is_at_most_the_usual_share():
    SplitConfig(freeze_test=True, test_fraction=0.1, widen_test_below=0.1)
    SplitConfig(test_fraction=0.01)
    with pytest.raises(ValidationError, match=r"\bwiden_test_below .*\btest_fraction\b"):
        SplitConfig(freeze_test=True, test_fraction=0.1, widen_test_below=0.11)


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("seed", "n_steps"), [(0, 4), *(pytest.param(seed, 7, marks=SLOW) for seed in range(4))]
)
def test_in_any_sequence_the_test_split_loses_nothing_and_train_gets_no_copy(
    tmp_path, seed, n_steps
):
    """Photos, near copies and groups are added, photos are removed and restored, labels change."""
    rng = np.random.default_rng(seed)
    config = frozen(tmp_path, near_duplicate_bits=4, widen_test_below=0.1)
    rows = {row["sha256"]: row for row in rows_of(60, prefix=f"{seed}_")}
    away, was = {}, {}
    for step in range(n_steps):
        for sha256 in rng.choice(sorted(rows), 3, replace=False):
            away[sha256] = rows.pop(sha256)
        for sha256 in list(away)[: int(rng.integers(0, 4))]:
            rows[sha256] = away.pop(sha256)
        for sha256 in rng.choice(sorted(rows), 2, replace=False):
            rows[sha256] = rows[sha256] | {"label": str(rng.choice(("cat", "dog", "emu")))}
        names = [f"{seed}_{step}_{i}" for i in range(int(rng.integers(0, 25)))]
        groups = [f"g{rng.integers(9)}" * int(rng.random() < 0.3) for _ in names]
        new = [
            photo_row(name, str(rng.choice(("cat", "dog", "emu"))), group=group)
            for name, group in zip(names, groups, strict=True)
        ]
        old = [rows[sha256] for sha256 in rng.choice(sorted(rows), 2, replace=False)]
        new += [near(row, 2, name=f"{seed}_{step}_near{i}") for i, row in enumerate(old)]
        rows |= {row["sha256"]: row for row in new}
        splits = split(table_of(list(rows.values())), config)
        now = splits.frame.set_index("sha256")["split"].to_dict()
        kept = {sha256: side for sha256, side in was.items() if sha256 in now}
        assert {sha256: now[sha256] for sha256 in kept} == kept
        fresh = {sha256 for sha256, side in now.items() if side == "test"} - set(was)
        assert sum(one.n_photos for one in splits.test_extensions) == len(fresh) * bool(was)
        was |= now


def test_extensions_are_formatted_with_their_reasons():
    assert format_extensions(()) == ""
    one, two = SplitExtension("cat", 2, "small share"), SplitExtension("emu", 1, "new class")
    assert re.fullmatch(r"3 \(1 .*, 2 .*split\.widen_test_below\)", format_extensions((one, two)))


@pytest.mark.parametrize("side", ["test", "validation"])
@pytest.mark.parametrize("freezes", [True, False])
def test_a_late_row_with_a_given_split_moves_no_other_photo(tmp_path, side, freezes):
    config = frozen(tmp_path, freeze_test=freezes)
    first = split(table_of(rows_of(60)), config)
    late = [photo_row(f"late{i}", "cat", given=side) for i in range(2)]
    second = split(table_of([*rows_of(60), *late]), config)
    before = first.frame.set_index("sha256").split
    after = second.frame.set_index("sha256").split
    assert (after.loc[before.index] == before).all()
    assert set(after.drop(before.index)) == {side}
