"""Promises of split: no photo is in two splits, and no photo ever changes its split."""

import hashlib
import itertools
import re
from functools import cache

import fsspec
import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageEnhance

from regraft.core.config import IngestConfig, SplitConfig
from regraft.core.errors import DataError, EmptySplit, SplitLeak
from regraft.data.ingest import ImageTable, ingest
from regraft.data.split import copies, split, unit_numbers
from regraft.data.split.copies import MAX_ALL_PAIRS, find_near_pairs

QUARANTINE = pd.DataFrame(columns=["path", "label", "reason", "detail"], dtype=str)


def photo_row(name, label, given="", group="", seed=None):
    """A row for an imaginary photo; the pixels are random, so no two photos are near copies."""
    return dict(_photo_row(name, label, given, group, seed))


@cache
def _photo_row(name, label, given, group, seed):
    content = f"{name}" if seed is None else f"seed{seed}"
    sha256 = hashlib.sha256(content.encode()).hexdigest()
    rng = np.random.default_rng(int(sha256[:12], 16))
    return {
        "path": f"/photos/{label}/{name}",
        "label": label,
        "given_split": given,
        "group": group,
        "sha256": sha256,
        "phash": f"{rng.integers(0, 2**64, dtype=np.uint64):016x}",
        "thumbnail": rng.integers(0, 256, 256, dtype=np.uint8).tobytes(),
    }


def table_of(rows):
    frame = pd.DataFrame(rows).sort_values("path").reset_index(drop=True)
    classes = tuple(sorted(set(frame["label"])))
    return ImageTable(frame, QUARANTINE, classes, "digest", 0, "/photos")


def rows_of(n, labels=("cat", "dog"), prefix="p", **columns):
    return [photo_row(f"{prefix}{i}.png", labels[i % len(labels)], **columns) for i in range(n)]


def given_rows():
    return [
        photo_row(f"{side}{i}.png", label, given=side)
        for side in ("train", "validation", "test")
        for label in ("cat", "dog")
        for i in range(4)
    ]


def near(row, n_bits=1, **changes):
    """A near copy of a row: other bytes, hash n_bits away, the same thumbnail."""
    name = changes.pop("name", "near_" + row["path"].rsplit("/", 1)[1])
    copy = row | changes
    return copy | {
        "path": f"/photos/{copy['label']}/{name}",
        "sha256": hashlib.sha256(name.encode()).hexdigest(),
        "phash": f"{int(row['phash'], 16) ^ (2**n_bits - 1):016x}",
    }


def sides(splits):
    return dict(zip(splits.frame["path"], splits.frame["split"], strict=True))


# the automatic rule


def test_the_order_of_the_rows_changes_nothing():
    table = table_of([*rows_of(60), near(rows_of(60)[7]), near(rows_of(60)[11], 2)])
    splits = split(table, SplitConfig())
    for seed in range(3):
        shuffled = table.frame.sample(frac=1, random_state=seed)
        again = split(ImageTable(shuffled, *list(vars(table).values())[1:]), SplitConfig())
        assert again.digest == splits.digest
        pd.testing.assert_frame_equal(again.frame, splits.frame)


def test_every_class_is_distributed_in_its_exact_shares():
    labels = ("ant", "bee", "bee", "cat", "cat", "cat", "cat")
    splits = split(table_of(rows_of(700, labels)), SplitConfig())
    assert splits.counts.to_numpy().tolist() == [[70, 15, 15], [140, 30, 30], [280, 60, 60]]
    assert list(splits.counts.columns) == ["train", "validation", "test"]
    assert len(splits.train) + len(splits.validation) + len(splits.test) == 700


@pytest.mark.parametrize("n", [3, 4, 5, 10])
@pytest.mark.parametrize("part", [0.01, 0.45])
def test_three_photos_of_a_class_are_enough_for_one_in_each_split(n, part):
    config = SplitConfig(test_fraction=part, validation_fraction=part)
    counts = split(table_of(rows_of(2 * n)), config).counts
    assert (counts >= 1).all(axis=None)


def test_a_rare_class_stays_where_it_can_be_learned():
    rows = [*rows_of(40), photo_row("rare1", "emu"), photo_row("rare2", "emu")]
    assert split(table_of(rows), SplitConfig()).counts.loc["emu"].tolist() == [2, 0, 0]


@pytest.mark.parametrize("seed", range(3))
def test_groups_stay_together_and_miss_no_share_by_more_than_one_group(seed):
    rng = np.random.default_rng(seed)
    rows = [
        photo_row(f"{seed}_{i}.png", ("cat", "dog")[i % 2], group=f"g{i % 2}_{rng.integers(12)}")
        for i in range(200)
    ]
    splits = split(table_of(rows), SplitConfig())
    assert (splits.frame.groupby("group")["split"].nunique() == 1).all()
    for label, counts in splits.counts.iterrows():
        of_class = splits.frame[splits.frame["label"] == label]
        largest = of_class.groupby("group").size().max()
        for side in ("validation", "test"):
            assert 0 <= 15 - counts[side] < largest or counts[side] == 1
    assert splits.leaks.empty


def test_copies_and_near_copies_are_in_the_same_split():
    rows = rows_of(60)
    twins = [row | {"path": row["path"] + "2"} for row in rows[:20]]
    nears = [near(row, 3) for row in rows[20:40]]
    splits = split(table_of([*rows, *twins, *nears]), SplitConfig())
    where = sides(splits)
    for one, other in zip(rows[:40], [*twins, *nears], strict=True):
        assert where[one["path"]] == where[other["path"]]
    assert splits.n_duplicates == 80
    assert splits.leaks.empty


def test_no_content_is_in_two_splits():
    rows = rows_of(50)
    rows += [row | {"path": row["path"] + "2"} for row in rows]
    frame = split(table_of(rows), SplitConfig()).frame
    assert (frame.groupby("sha256")["split"].nunique() == 1).all()


# the memory


@pytest.mark.parametrize("seed", range(3))
def test_adding_photos_never_moves_an_old_one(tmp_path, seed):
    config = SplitConfig(memory_url=f"{tmp_path}/memory [of *]")  # no pattern
    rng = np.random.default_rng(seed)
    rows = rows_of(60, prefix=f"{seed}_")
    before = sides(split(table_of(rows), config))
    for step in range(3):
        more = rows_of(int(rng.integers(1, 30)), prefix=f"{seed}_{step}_", labels=("dog", "emu"))
        copies = [
            near(rows[i], name=f"{seed}{step}{i}") for i in rng.choice(len(rows), 4, replace=False)
        ]
        rows = [*rows, *more, *copies]
        splits = split(table_of(rows), config)
        after = sides(splits)
        assert {path: after[path] for path in before} == before
        assert splits.leaks.empty
        before = after


def test_new_photos_fill_up_the_shares():
    config = SplitConfig(memory_url="memory://fill")
    split(table_of(rows_of(200)), config)
    splits = split(table_of([*rows_of(200), *rows_of(200, prefix="new")]), config)
    assert splits.counts.to_numpy().tolist() == [[140, 30, 30], [140, 30, 30]]


def test_an_unchanged_table_adds_nothing_to_the_memory(tmp_path):
    config = SplitConfig(memory_url=str(tmp_path))
    first = split(table_of(rows_of(40)), config)
    assert split(table_of(rows_of(40)), config).digest == first.digest
    assert len(list(tmp_path.glob("*.parquet"))) == 1


def test_the_memory_works_the_same_behind_a_url(tmp_path):
    local, remote = str(tmp_path), "memory://sides"
    for rows in (rows_of(40), [*rows_of(40), *rows_of(9, prefix="new")]):
        digests = {split(table_of(rows), SplitConfig(memory_url=u)).digest for u in (local, remote)}
        assert len(digests) == 1
    assert len(fsspec.filesystem("memory").ls("/sides")) == 2


def test_a_copy_of_a_deleted_photo_gets_the_same_split(tmp_path):
    config = SplitConfig(memory_url=str(tmp_path))
    rows = rows_of(40)
    first = split(table_of(rows), config)
    gone = next(row for row in rows if row["path"] == first.test["path"].iloc[0])
    left = [row for row in rows if row is not gone]
    splits = split(table_of([*left, near(gone)]), config)
    assert sides(splits)[near(gone)["path"]] == "test"


def test_a_new_photo_of_a_remembered_group_joins_it(tmp_path):
    config = SplitConfig(memory_url=str(tmp_path))
    rows = [row | {"group": f"g{i}"} for i, row in enumerate(rows_of(40))]
    before = sides(split(table_of(rows), config))
    more = [
        photo_row(f"new{i}.png", row["label"], group=row["group"]) for i, row in enumerate(rows)
    ]
    after = sides(split(table_of([*rows, *more]), config))
    assert [after[row["path"]] for row in more] == [before[row["path"]] for row in rows]


def apart(tmp_path):
    """Rows and a memory in which two photos, 8 hash bits apart, are in train and in test."""
    for attempt in range(60):
        one = photo_row(f"one{attempt}.png", "cat")
        other = near(one, 8, name=f"other{attempt}.png")
        rows = [*rows_of(40), one, other]
        config = SplitConfig(memory_url=f"{tmp_path}/{attempt}")
        where = sides(split(table_of(rows), config))
        if {where[one["path"]], where[other["path"]]} == {"train", "test"}:
            return rows, one, config
    raise AssertionError("no such pair in 60 attempts")


def test_a_new_photo_that_joins_two_splits_is_dropped_and_the_old_photos_stay(tmp_path):
    rows, one, config = apart(tmp_path)
    before = sides(split(table_of(rows), config))
    bridge = near(one, 4, name="bridge.png")  # 4 bits from each of the two
    splits = split(table_of([*rows, bridge]), config)
    assert sides(splits) == before
    columns = ["path", "split", "other_split", "action"]
    assert splits.leaks[columns].to_numpy().tolist() == [
        [bridge["path"], "train", "test", "dropped"]
    ]
    keeping = config.model_copy(update={"on_leak": "keep"})
    assert sides(split(table_of([*rows, bridge]), keeping)) == before | {bridge["path"]: "train"}


def test_a_photo_that_two_runs_assigned_differently_is_in_test(tmp_path):
    one, other = f"{tmp_path}/one", f"{tmp_path}/other"
    first = split(table_of(rows_of(40)), SplitConfig(memory_url=one))
    split(table_of([*rows_of(40), *rows_of(60, prefix="x")]), SplitConfig(memory_url=other))
    for shard in (tmp_path / "other").glob("*.parquet"):
        shard.rename(tmp_path / "one" / shard.name)
    merged = split(table_of(rows_of(40)), SplitConfig(memory_url=one))
    assert set(first.test["path"]) <= set(merged.test["path"])


def test_a_broken_shard_stops_the_run(tmp_path):
    (tmp_path / "bad.parquet").write_bytes(b"no")
    with pytest.raises(DataError, match=r"/bad\.parquet\b"):
        split(table_of(rows_of(40)), SplitConfig(memory_url=str(tmp_path)))


# given splits


def test_given_splits_are_respected():
    table = table_of(given_rows())
    frame = split(table, SplitConfig()).frame
    assert (frame["given_split"] == frame["split"]).all()


@pytest.mark.parametrize("missing", ["validation", "test"])
def test_a_split_that_is_not_given_is_taken_from_train(missing):
    rows = [
        photo_row(f"{given}{i}.png", ("cat", "dog")[i % 2], given=given)
        for given, n in (("train", 200), ("validation", 20), ("test", 20))
        if given != missing
        for i in range(n)
    ]
    splits = split(table_of(rows), SplitConfig(test_fraction=0.2, validation_fraction=0.2))
    assert len(splits.photos_in(missing)) == 40
    assert set(splits.photos_in(missing)["given_split"]) == {"train"}
    assert splits.counts[missing].tolist() == [20, 20]


def test_photos_without_a_split_beside_given_ones_are_trained_on():
    rows = [*given_rows(), photo_row("new.png", "cat")]
    assert sides(split(table_of(rows), SplitConfig()))["/photos/cat/new.png"] == "train"


def test_a_class_missing_from_validation_keeps_the_order_of_the_classes():
    rows = [r for r in given_rows() if (r["label"], r["given_split"]) != ("cat", "validation")]
    splits = split(table_of(rows), SplitConfig())
    assert splits.classes == ("cat", "dog")
    assert splits.counts["validation"].tolist() == [0, 4]


def test_a_copy_of_a_given_test_photo_is_never_assigned_to_another_split():
    rows = [row for row in rows_of(60, given="train")]
    judged = [photo_row(f"t{i}", ("cat", "dog")[i % 2], given="test") for i in range(8)]
    copies = [near(row, name=f"c{i}", given_split="train") for i, row in enumerate(judged)]
    splits = split(table_of([*rows, *judged, *copies]), SplitConfig())
    assert set(splits.leaks["path"]) == {row["path"] for row in copies}
    assert set(splits.leaks["split"]) == {"train"}


# leaks


def leaky():
    rows = given_rows()
    by_split = {row["given_split"]: row for row in rows}
    copy = by_split["test"] | {"path": "/photos/dog/copy.png", "given_split": "train"}
    nearly = near(by_split["test"], 2, name="nearly.png", given_split="validation")
    chained = nearly | {"path": "/photos/dog/chained.png", "given_split": "train"}
    return [*rows, copy, nearly, chained]


def test_leaks_are_dropped_from_the_lower_ranked_split():
    splits = split(table_of(leaky()), SplitConfig())
    columns = ["path", "split", "other_split", "kind", "distance", "action"]
    assert splits.leaks[columns].to_numpy().tolist() == [
        ["/photos/dog/chained.png", "train", "test", "near copy", 2, "dropped"],
        ["/photos/dog/copy.png", "train", "test", "copy", 0, "dropped"],
        ["/photos/dog/nearly.png", "validation", "test", "near copy", 2, "dropped"],
    ]
    assert set(splits.frame["path"]) == {row["path"] for row in given_rows()}


def test_a_copy_of_a_dropped_validation_photo_alone_is_no_leak():
    rows = given_rows()
    judge = rows[-1]
    chosen = near(judge, 4, name="v.png", given_split="validation")
    trained = near(judge, 8, name="t.png", given_split="train")  # 4 bits from v.png
    splits = split(table_of([*rows, chosen, trained]), SplitConfig())
    assert splits.leaks["path"].tolist() == [chosen["path"]]
    assert sides(splits)[trained["path"]] == "train"


def test_leaks_are_recorded_and_kept_on_request():
    splits = split(table_of(leaky()), SplitConfig(on_leak="keep"))
    assert set(splits.leaks["action"]) == {"kept"}
    assert len(splits.frame) == len(leaky())


def test_leaks_are_an_error_on_request():
    with pytest.raises(SplitLeak) as caught:
        split(table_of(leaky()), SplitConfig(on_leak="error"))
    message = str(caught.value)
    first = r"\b3 photos .*/dog/chained\.png in train = .*/dog/nearly\.png in validation"
    assert re.search(first, message)
    assert "same bytes" in message
    assert "split.on_leak=drop" in message
    rows = given_rows()
    rows.append(near(rows[-1], 2, given_split="train"))
    with pytest.raises(SplitLeak, match=r"\b2 of 64 "):
        split(table_of(rows), SplitConfig(on_leak="error"))


def test_a_group_in_two_given_splits_is_a_leak():
    rows = given_rows()
    rows[0] |= {"group": "farm"}
    rows[-4] |= {"group": "farm"}
    splits = split(table_of(rows), SplitConfig())
    assert splits.leaks[["path", "kind", "distance"]].to_numpy().tolist() == [
        [rows[0]["path"], "group", -1]
    ]
    with pytest.raises(SplitLeak, match="the same group"):
        split(table_of(rows), SplitConfig(on_leak="error"))


# giving up


def test_an_empty_split_stops_the_run():
    with pytest.raises(EmptySplit, match=r"\bvalidation \(4 photos, 2 classes\)"):
        split(table_of(rows_of(4)), SplitConfig())
    rows = [row for row in given_rows() if row["given_split"] != "train"]
    with pytest.raises(EmptySplit, match=r"\btrain \(16 photos, 2 classes\)"):
        split(table_of(rows), SplitConfig())


def test_a_class_with_nothing_to_train_on_stops_the_run(tmp_path):
    rows = [*given_rows(), photo_row("e.png", "emu", given="test")]
    config = SplitConfig(memory_url=str(tmp_path))
    with pytest.raises(EmptySplit, match=r"\btrain .* of emu\b"):
        split(table_of(rows), config)
    assert not list(tmp_path.glob("*.parquet"))


# near copies


def smooth(seed, size=64):
    """A photo with shapes: random low frequencies in colour."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 230, (6, 6, 3), dtype=np.uint8))
    return small.resize((size, size), Image.Resampling.BICUBIC)


ALTERED = {
    "jpeg": lambda image, path: image.save(path.with_suffix(".jpg"), quality=50),
    "half": lambda image, path: image.resize((32, 32)).save(path),
    "bright": lambda image, path: ImageEnhance.Brightness(image).enhance(1.06).save(path),
}


@pytest.mark.parametrize("alteration", ALTERED)
def test_a_photo_saved_anew_is_a_near_copy_and_another_photo_is_none(tmp_path, alteration):
    for number in range(12):
        folder = tmp_path / ("cat", "dog")[number % 2]
        folder.mkdir(exist_ok=True)
        smooth(number).save(folder / f"{number}.png")
        ALTERED[alteration](smooth(number), folder / f"{number}_again.png")
    table = ingest(IngestConfig(photos=str(tmp_path)))
    pairs = find_near_pairs(table.frame, 4)
    names = table.frame["path"].str.extract(r"/(\d+)[._]")[0].to_numpy()
    assert len(pairs.first) == 12
    assert (names[pairs.first] == names[pairs.second]).all()


@pytest.mark.parametrize("n_bits", [1, 4, 9, 16])
def test_the_search_finds_exactly_what_comparing_all_with_all_finds(n_bits):
    rng = np.random.default_rng(n_bits)
    centres = rng.integers(0, 2**64, 20, dtype=np.uint64)
    flips = [
        sum(1 << int(b) for b in rng.choice(64, n_bits // 2 + 1, replace=False)) for _ in range(300)
    ]
    hashes = [int(centres[i % 20]) ^ flip for i, flip in enumerate(flips)]
    thumbnail = bytes(range(256))
    photos = pd.DataFrame({"phash": [f"{h:016x}" for h in hashes], "thumbnail": thumbnail})
    pairs = find_near_pairs(photos, n_bits)
    found = set(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True))
    expected = {
        (i, j)
        for i in range(300)
        for j in range(i + 1, 300)
        if (hashes[i] ^ hashes[j]).bit_count() <= n_bits
    }
    assert found == expected
    for i, j, distance in zip(pairs.first, pairs.second, pairs.distance, strict=True):
        assert distance == (hashes[i] ^ hashes[j]).bit_count()


def drifting_frames(seed, n=120):
    """Frames of three scenes: neighbours are near copies, the first and the last are none."""
    rng = np.random.default_rng(seed)
    scenes, hashes = rng.uniform(40, 200, (3, 256)), rng.integers(0, 2**64, 3, dtype=np.uint64)
    frames = []
    for _ in range(n):
        scene, owner = rng.integers(3), rng.integers(3) if rng.random() < 0.1 else None
        scenes[scene] += rng.normal(0, 1.5, 256)
        hashes[scene] ^= np.uint64(rng.random() < 0.5) << np.uint64(rng.integers(64))
        grey = np.full(256, 90.0 + scene) if rng.random() < 0.1 else scenes[scene]
        thumbnail = np.clip(np.rint(grey), 0, 255).astype(np.uint8).tobytes()
        phash = f"{int(hashes[scene if owner is None else owner]):016x}"
        frames.append({"phash": phash, "thumbnail": thumbnail})
    return pd.DataFrame(frames).sample(frac=1, random_state=seed, ignore_index=True)


def near_pairs_one_by_one(photos, n_bits):
    """The definition: {(first, second): different hash bits}, each pair compared for itself."""
    hashes = [int(phash, 16) for phash in photos["phash"]]
    greys = [np.frombuffer(each, np.uint8).astype(float) for each in photos["thumbnail"]]
    near = {}
    for i, j in itertools.combinations(range(len(photos)), 2):
        distance, one, other = (hashes[i] ^ hashes[j]).bit_count(), greys[i], greys[j]
        if distance > n_bits:
            continue
        low, high = sorted((one.std(), other.std()))
        if low < copies.FLAT:
            agree = np.abs(one - other).mean() <= copies.FLAT
        else:
            r = np.corrcoef(one, other)[0, 1]
            agree = r > 0 and 1 - r**2 <= copies.MAX_RESIDUAL**2
            agree &= high <= low * copies.MAX_CONTRAST_RATIO
            agree &= abs(one.mean() - other.mean()) <= copies.MAX_MEAN_SHIFT
        if agree:
            near[i, j] = distance
    return near


@pytest.mark.parametrize("seed", range(4))
def test_chains_and_closest_copies_are_those_of_comparing_each_pair(seed, monkeypatch):
    for name, value in {"ROWS": 8, "COLUMNS": 16, "MAX_ALL_PAIRS": 5}.items():
        monkeypatch.setattr(copies, name, value)  # so that few frames need many blocks
    photos, n_bits = drifting_frames(seed), 3 + seed % 2
    near = near_pairs_one_by_one(photos, n_bits)
    pairs = copies.find_near_pairs(photos, n_bits)
    found = list(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True))
    chain = copies.connected(len(photos), *np.array(list(near)).T)
    assert len(set(chain)) > 3
    assert len(found) == len(set(found))
    assert pairs.distance.tolist() == [near[pair] for pair in found]
    assert (copies.connected(len(photos), pairs.first, pairs.second) == chain).all()
    short = {pair for pair in near if (chain == chain[pair[0]]).sum() <= 5}
    assert short <= set(found)

    mine, others = photos[:50], photos[50:]
    closest = copies.find_closest_copies(mine, others, n_bits)
    expected = {}
    for (i, j), distance in near.items():
        if i < 50 <= j:
            expected[i] = min(expected.get(i, (99, 0)), (distance, j - 50))
    assert closest.first.tolist() == sorted(expected)
    best = zip(closest.distance.tolist(), closest.second.tolist(), strict=True)
    assert list(best) == [expected[row] for row in sorted(expected)]


def test_a_film_in_two_given_splits_leaks_each_of_its_frames():
    n = MAX_ALL_PAIRS + 88
    frames = [
        photo_row(f"f{i}", "cat", given="train" if i else "test")
        | {"phash": f"{i % 3:016x}", "thumbnail": bytes(range(256))}
        for i in range(n)
    ]
    dogs = [photo_row(side, "dog", given=side) for side in ("train", "validation", "test")]
    splits = split(table_of([*frames, *dogs]), SplitConfig(on_leak="keep"))
    assert len(splits.leaks) == n - 1
    assert set(splits.leaks["other_path"]) == {"/photos/cat/f0"}
    assert splits.n_duplicates == n


def pairs_of(*greys, n_bits=4):
    thumbnails = [np.clip(np.rint(grey), 0, 255).astype(np.uint8).tobytes() for grey in greys]
    photos = pd.DataFrame({"phash": ["0" * 16] * len(greys), "thumbnail": thumbnails})
    return len(find_near_pairs(photos, n_bits).first)


def test_thumbnails_decide_between_copies_and_lookalikes():
    shape = np.random.default_rng(0).uniform(60, 180, 256)
    assert pairs_of(shape, shape * 1.1) == 1
    assert pairs_of(shape, shape + 20) == 1
    assert pairs_of(shape, shape + 60) == 0
    assert pairs_of(shape, 120 + (shape - 120) * 1.5) == 0
    assert pairs_of(shape, 240 - shape) == 0
    assert pairs_of(shape, shape + np.random.default_rng(1).normal(0, 8, 256)) == 0
    assert pairs_of(shape, shape, n_bits=0) == 0


def test_flat_photos_are_copies_only_in_the_same_grey():
    grey = np.full(256, 100.0)
    assert pairs_of(grey, grey + 1) == 1
    assert pairs_of(grey, grey + 10) == 0


def test_a_film_of_one_scene_becomes_one_unit_without_all_its_pairs():
    n = MAX_ALL_PAIRS + 88
    photos = pd.DataFrame({"phash": ["0" * 16] * n, "thumbnail": bytes(range(256))})
    pairs = find_near_pairs(photos, 4)
    assert len(pairs.first) <= n * 5
    rows = [
        photo_row(f"f{i}", "cat") | {"phash": "0" * 16, "thumbnail": bytes(range(256))}
        for i in range(n)
    ]
    splits = split(table_of([*rows, *rows_of(40)]), SplitConfig())
    film = splits.frame[splits.frame["phash"] == "0" * 16]
    assert film["split"].nunique() == 1


def test_another_salt_is_another_split_and_the_same_salt_the_same():
    table = table_of(rows_of(60))
    sides = [split(table, SplitConfig(salt=salt)).frame.split.tolist() for salt in ("", "1", "1")]
    assert sides[0] != sides[1]
    assert sides[1] == sides[2]


@pytest.mark.parametrize(
    ("salt", "test", "validation"),
    [
        ("", "g10 g11 p17 p6 p7 p8", "g2 g3 p10 p12 p13 p9"),
        ("spring", "g2 g3 p13 p14 p3 p8", "g8 g9 p0 p1 p12 p9"),
    ],
)
def test_each_photo_has_the_same_split_as_in_every_earlier_release(salt, test, validation):
    """Another assignment would use old test photos in the next training."""
    rows = rows_of(20)
    groups = [photo_row(f"g{i}.png", "emu", group=f"nest {i // 2}") for i in range(12)]
    splits = split(table_of([*rows, *groups]), SplitConfig(salt=salt) if salt else SplitConfig())
    named = splits.frame.path.str.rpartition("/")[2].str.removesuffix(".png")
    assert sorted(named[splits.frame.split == "test"]) == test.split()
    assert sorted(named[splits.frame.split == "validation"]) == validation.split()


def test_the_lowest_salted_hashes_of_a_class_are_in_test():
    rows = rows_of(40)
    splits = split(table_of(rows), SplitConfig(salt="spring"))
    for label in ("cat", "dog"):
        of_class = splits.frame[splits.frame.label == label]
        keys = [hashlib.sha256(f"spring{name}".encode()).hexdigest() for name in of_class.sha256]
        ordered = of_class.assign(key=keys).sort_values("key").split.tolist()
        assert ordered == ["test"] * 3 + ["validation"] * 3 + ["train"] * 14


def test_photos_without_a_group_are_units_of_their_own():
    """A table of photos from two places may lack the group of some: they have none in common."""
    photos = pd.DataFrame({"sha256": list("abcda"), "group": ["g", "g", None, np.nan, "g"]})
    assert unit_numbers(photos, 0, by_group=True).tolist() == [0, 0, 1, 2, 0]
    assert unit_numbers(photos, 0, by_group=False).tolist() == [0, 1, 2, 3, 0]
