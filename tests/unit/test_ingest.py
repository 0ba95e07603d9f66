"""Promises of ingest: every file is reported, and the order of the files has no effect."""

import os
import re
import sys

import fsspec
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from test_ingest_decode import claiming
from tiny import photo_file, write_files

from regraft.core.config import IngestConfig, SplitConfig
from regraft.core.errors import (
    ClassVanished,
    ConfigError,
    DataError,
    ManifestError,
    NoPhotos,
    TooManyQuarantined,
)
from regraft.core.files import filesystem, write_if_absent
from regraft.data.ingest import fingerprint, ingest
from regraft.data.split.copies import find_near_pairs
from regraft.evaluation.predict import list_photos

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"


def two_classes(root, n=3):
    files = {
        f"{label}/{i}.png": photo_file(f"{label}{i}".encode()[0] * 100 + i)
        for label in ("cat", "dog")
        for i in range(n)
    }
    return write_files(root, files)


def read(root, **options):
    return ingest(IngestConfig(photos=str(root), **options))


# folders


def test_a_folder_with_a_folder_a_class_becomes_a_table(tmp_path):
    table = read(two_classes(tmp_path))
    assert table.classes == ("cat", "dog")
    assert table.frame["path"].is_monotonic_increasing
    assert table.frame["label"].value_counts().to_dict() == {"cat": 3, "dog": 3}
    row = table.frame.iloc[0]
    assert (row["width"], row["height"], len(row["sha256"]), len(row["phash"])) == (8, 8, 64, 16)
    assert (row["given_split"], row["group"], len(row["thumbnail"])) == ("", "", 256)
    assert row["n_bytes"] == os.path.getsize(row["path"])
    assert os.path.isabs(row["path"])


def test_the_label_is_the_first_folder_however_deep_the_photo_lies(tmp_path):
    write_files(tmp_path, {"cat/old/2019/a.png": photo_file(1), "dog/x.jpg/b.png": photo_file(2)})
    assert read(tmp_path).frame["label"].tolist() == ["cat", "dog"]


def test_train_and_test_folders_are_splits_in_any_case(tmp_path):
    names = ("Train/cat/a", "Train/dog/b", "VAL/cat/c", "valid/dog/d", "test/cat/deep/e")
    write_files(tmp_path, {f"{name}.png": photo_file(i) for i, name in enumerate(names)})
    write_files(tmp_path, {".hidden/cat/z.png": photo_file(9)})
    table = read(tmp_path)
    splits = table.frame["given_split"].tolist()
    assert sorted(splits) == ["test", "train", "train", "validation", "validation"]
    assert table.classes == ("cat", "dog")


def test_a_class_called_train_beside_another_class_is_a_class(tmp_path):
    write_files(tmp_path, {"train/a.png": photo_file(1), "bus/b.png": photo_file(2)})
    assert read(tmp_path).classes == ("bus", "train")


def test_splits_beside_another_folder_of_photos_are_refused(tmp_path):
    names = ("train/cat/a", "train/dog/b", "Test/cat/c", "unlabelled/d")
    write_files(tmp_path, {f"{name}.png": photo_file(i) for i, name in enumerate(names)})
    with pytest.raises(NoPhotos, match=rf"\(test, train\).*{tmp_path}\b.*\bunlabelled\b"):
        read(tmp_path)
    (tmp_path / "unlabelled/d.png").rename(tmp_path / "unlabelled/d.xml")
    assert read(tmp_path).classes == ("cat", "dog")


def test_the_order_of_the_folder_changes_nothing(tmp_path, list_folders_backwards):
    two_classes(tmp_path)
    straight = read(tmp_path)
    list_folders_backwards()
    backwards = read(tmp_path)
    assert straight.digest == backwards.digest
    pd.testing.assert_frame_equal(straight.frame, backwards.frame)


def test_the_digest_sees_content_and_labels_and_not_paths(tmp_path):
    here = read(two_classes(tmp_path / "a")).digest
    elsewhere = two_classes(tmp_path / "b")
    (elsewhere / "cat/0.png").rename(elsewhere / "cat/renamed.png")
    assert read(elsewhere).digest == here
    (elsewhere / "cat/1.png").rename(elsewhere / "dog/moved.png")
    assert read(elsewhere).digest != here


def test_one_thread_and_many_give_the_same_table(tmp_path):
    two_classes(tmp_path, n=8)
    one, many = read(tmp_path, n_workers=1), read(tmp_path, n_workers=8)
    pd.testing.assert_frame_equal(one.frame, many.frame)


def test_remote_folders_read_as_local_ones_do(tmp_path):
    two_classes(tmp_path)
    memory = fsspec.filesystem("memory")
    for path in tmp_path.rglob("*.png"):
        memory.pipe_file(f"/pets/{path.relative_to(tmp_path)}", path.read_bytes())
    remote = read("memory://pets")
    assert remote.digest == read(tmp_path).digest
    assert remote.frame["path"].iloc[0].startswith("memory://")
    before = fingerprint(IngestConfig(photos="memory://pets"))
    memory.pipe_file("/pets/dog/new.png", photo_file(50))
    assert fingerprint(IngestConfig(photos="memory://pets")) != before
    with pytest.raises(NoPhotos, match=r"\bfolder\b.* memory://nowhere\b"):
        read("memory://nowhere")


# what is not a photo


def test_two_colons_in_a_name_are_a_part_of_the_name(tmp_path):
    root = str(tmp_path / "the::photos")
    names = ("a::b/0.png", "a::b/2024-05-01::10-22.png", "dog/1.png")
    write_files(tmp_path / "the::photos", {name: photo_file(len(name)) for name in names})
    assert filesystem("http://host/a::b.png")[1] == "http://host/a::b.png"
    table = read(root)
    assert (len(table.frame), table.classes, table.quarantine.empty) == (3, ("a::b", "dog"), True)
    assert len({photo.place for photo in list_photos([root])}) == 3


def test_folders_whose_names_differ_in_blanks_are_one_class_and_in_case_are_named(tmp_path):
    names = ("cat/a", "cat /b", "Cat/c", "dog/d")
    write_files(tmp_path, {f"{name}.png": photo_file(i) for i, name in enumerate(names)})
    table = read(tmp_path)
    assert table.classes == ("Cat", "cat", "dog")
    (note,) = table.notes
    assert "'Cat' and 'cat' are different classes" in note


def test_hidden_files_and_non_images_are_counted_and_are_no_failures(tmp_path):
    two_classes(tmp_path)
    litter = ("cat/.DS_Store", "cat/Thumbs.db", "notes.txt", ".git/a.png", "__MACOSX/cat/b.png")
    write_files(tmp_path, dict.fromkeys(litter, b"x"))
    table = read(tmp_path)
    assert (table.n_ignored, len(table.quarantine), len(table.frame)) == (5, 0, 6)


def test_a_wrong_extension_is_no_failure(tmp_path):
    two_classes(tmp_path)
    write_files(
        tmp_path,
        {"cat/really_jpeg.png": photo_file(77, "JPEG"), "dog/really_png.JPG": photo_file(78)},
    )
    assert len(read(tmp_path).frame) == 8


def test_three_hundred_broken_files_are_each_accounted_for(tmp_path):
    rng = np.random.default_rng(7)
    kinds = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
    good = [photo_file(seed, kinds[seed % 6], size=16) for seed in range(60)]
    bomb = claiming(12_000, 12_000)

    def broken(number):
        data = bytearray(good[number % 60])
        cut = int(rng.integers(1, len(data)))
        for _ in range(int(rng.integers(1, 9))):
            data[rng.integers(0, len(data))] ^= 1 << rng.integers(0, 8)
        bent = bytes(data)
        whole = good[number % 60]
        return (whole[:cut], bent, bent[:cut], whole, b"", POINTER, bomb, b"text")[number % 8]

    for number in range(300):
        name = f"{'abc'[number % 3]}/{number}.{('jpg', 'png', 'txt', 'gif')[number // 8 % 4]}"
        write_files(tmp_path, {name: broken(number)})
    write_files(
        tmp_path, {f"{label}/good.png": photo_file(900 + i) for i, label in enumerate("abc")}
    )
    table = read(tmp_path, max_quarantine_fraction=1.0)
    assert len(table.frame) + len(table.quarantine) + table.n_ignored == 303
    assert table.n_ignored == 72
    reasons = table.quarantine["reason"].value_counts()
    assert {"truncated", "unreadable", "git-lfs pointer", "empty file", "too many pixels"} <= set(
        reasons.index
    )
    again = read(tmp_path, max_quarantine_fraction=1.0)
    assert again.digest == table.digest
    pd.testing.assert_frame_equal(again.quarantine, table.quarantine)


def test_the_same_bytes_under_two_labels_are_all_in_quarantine(tmp_path):
    two_classes(tmp_path, n=10)
    write_files(
        tmp_path,
        {"cat/same.png": photo_file(5), "cat/same2.png": photo_file(5), "dog/d.png": photo_file(5)},
    )
    table = read(tmp_path, max_quarantine_fraction=0.5)
    assert table.quarantine["reason"].tolist() == ["clashing labels"] * 3
    assert "'dog' in" in table.quarantine["detail"].iloc[0]
    assert "'cat' in" in table.quarantine["detail"].iloc[2]


def test_the_same_bytes_under_one_label_are_kept(tmp_path):
    write_files(
        two_classes(tmp_path), {"cat/again.png": photo_file(5), "cat/and_again.png": photo_file(5)}
    )
    assert len(read(tmp_path).frame) == 8


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_a_name_that_is_not_utf8_is_in_quarantine_and_can_be_stored(tmp_path):
    two_classes(tmp_path)
    for place in (b"cat/caf\xe9.png", b"dog\xff/a.png"):
        path = os.path.join(os.fsencode(tmp_path), place)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(photo_file(3))
    with pytest.raises(ClassVanished, match=r"\bdog\\xff\b.*\bname is not utf-8\b"):
        read(tmp_path, max_quarantine_fraction=0.5)
    os.remove(os.path.join(os.fsencode(tmp_path), b"dog\xff/a.png"))
    table = read(tmp_path, max_quarantine_fraction=0.5)
    assert table.quarantine["reason"].tolist() == ["name is not utf-8"]
    assert table.quarantine["path"].iloc[0].endswith("caf\\xe9.png")
    table.quarantine.to_parquet(tmp_path / "quarantine.parquet")
    assert len(fingerprint(IngestConfig(photos=str(tmp_path)))) == 64


def test_links_that_go_in_circles_or_nowhere_do_not_stop_the_run(tmp_path):
    two_classes(tmp_path, n=10)
    (tmp_path / "cat/loop").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "cat/self").symlink_to(tmp_path / "cat", target_is_directory=True)
    (tmp_path / "dog/gone.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "dog/knot.png").symlink_to(tmp_path / "dog/knot.png")
    os.mkfifo(tmp_path / "dog/pipe.png")
    table = read(tmp_path, max_quarantine_fraction=0.9)
    reasons = dict(zip(table.quarantine["path"], table.quarantine["reason"], strict=True))
    assert reasons[str(tmp_path / "dog/gone.png")] == "missing"
    assert reasons[str(tmp_path / "dog/knot.png")] == "unreadable"
    assert len(table.frame) == 20


def test_a_folder_behind_a_link_is_read(tmp_path):
    two_classes(tmp_path / "real")
    (tmp_path / "linked").mkdir()
    for label in ("cat", "dog"):
        (tmp_path / "linked" / label).symlink_to(tmp_path / "real" / label)
    assert read(tmp_path / "linked").digest == read(tmp_path / "real").digest


def test_files_and_folders_that_may_not_be_read_are_in_quarantine(tmp_path, monkeypatch):
    two_classes(tmp_path, n=10)
    scandir, opened = os.scandir, open
    write_files(tmp_path, {"cat/locked/a.png": photo_file(1)})

    def guarded(path, *arguments, **options):
        if str(path).endswith(("locked", "dog/0.png")):
            raise PermissionError(13, "Permission denied", str(path))
        return (scandir if not arguments else opened)(path, *arguments, **options)

    monkeypatch.setattr(os, "scandir", guarded)
    monkeypatch.setattr(sys.modules["regraft.data.ingest.decode"], "open", guarded, raising=False)
    table = read(tmp_path)
    assert table.quarantine["reason"].tolist() == ["unreadable", "unreadable"]
    assert table.quarantine["detail"].str.contains("Permission denied").all()


def test_a_photo_outside_every_class_is_in_quarantine(tmp_path):
    write_files(two_classes(tmp_path, n=10), {"stray.png": photo_file(1)})
    assert read(tmp_path).quarantine["reason"].tolist() == ["no class folder"]


# at a reduced scale


def scene(seed, size=(1280, 1024)):
    """Large shapes with fine grain on them."""
    rng = np.random.default_rng(seed)
    shapes = Image.fromarray(rng.integers(0, 256, (10, 12, 3), dtype=np.uint8))
    grain = rng.normal(0, 20, (size[1], size[0], 1))
    pixels = np.asarray(shapes.resize(size, Image.Resampling.BICUBIC)) + grain
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def test_a_photo_and_its_smaller_copies_stay_near_copies(tmp_path):
    """The large photos are decoded at 1/8 of their size, the others at 1/2 or at full size."""
    for number, label in enumerate(("cat", "dog")):
        (tmp_path / label).mkdir()
        large = scene(number)
        large.save(tmp_path / label / "0 large.jpg", quality=90)
        for name, scale, kind in (("half", 2, "jpg"), ("quarter", 4, "png"), ("sixth", 6, "jpg")):
            small = large.resize((1280 // scale, 1024 // scale), Image.Resampling.BICUBIC)
            small.save(tmp_path / label / f"{name}.{kind}")
    table = read(tmp_path).frame
    pairs = find_near_pairs(table, SplitConfig().near_duplicate_bits)
    label = table["label"].to_numpy()
    assert (label[pairs.first] == label[pairs.second]).all()
    assert len(pairs.first) == 2 * 6  # every two of the four copies, in each class


def test_the_table_tells_the_full_upright_size_of_a_photo_decoded_at_reduced_scale(tmp_path):
    two_classes(tmp_path)
    exif = Image.Exif()
    exif[0x0112] = 6
    scene(0).save(tmp_path / "cat/turned.jpg", exif=exif)
    row = read(tmp_path).frame.set_index("path").loc[str(tmp_path / "cat/turned.jpg")]
    assert (row["width"], row["height"]) == (1024, 1280)


# giving up


def test_too_many_unusable_photos_stop_the_run_with_counts_and_names(tmp_path):
    write_files(
        two_classes(tmp_path), {"cat/x.png": POINTER, "cat/y.png": b"", "dog/z.png": POINTER}
    )
    with pytest.raises(TooManyQuarantined) as caught:
        read(tmp_path)
    message = str(caught.value)
    assert re.search(r"\b3 of 9\b", message)
    assert re.search(r"\b2 git-lfs pointer\b.*\b1 empty file\b", message)
    assert "cat/x.png (git-lfs pointer)" in message
    limit = IngestConfig().max_quarantine_fraction
    assert re.search(rf"\bingest\.max_quarantine_fraction\b.*\b{limit:g}\b", message)
    assert len(read(tmp_path, max_quarantine_fraction=0.34).frame) == 6


def test_a_class_that_would_vanish_stops_the_run(tmp_path):
    write_files(two_classes(tmp_path, n=20), {"eel/a.png": POINTER})
    with pytest.raises(ClassVanished, match=r" eel\b.*\b1\b.*/eel/a\.png, git-lfs pointer\b"):
        read(tmp_path)


def test_a_class_without_a_format_that_is_read_stops_the_run(tmp_path):
    write_files(two_classes(tmp_path), {"eel/a.ods": b"x", "eel/b": b"x", "eel/Thumbs.db": b"x"})
    words = r" eel \(2 files: \.ods, .*\).* \.bmp\b"
    with pytest.raises(ClassVanished, match=words):
        read(tmp_path)


def test_a_class_is_looked_for_in_all_splits(tmp_path):
    names = ("train/cat/a", "train/dog/b", "test/cat/c")
    write_files(tmp_path, {f"{name}.png": photo_file(i) for i, name in enumerate(names)})
    write_files(tmp_path, {"test/dog/d.ods": b"x", "boxes/a.xml": b"x"})
    assert read(tmp_path).classes == ("cat", "dog")
    write_files(tmp_path, {"test/eel/e.ods": b"x"})
    with pytest.raises(ClassVanished, match=r" eel \(1 "):
        read(tmp_path)


def test_one_class_is_not_enough(tmp_path):
    write_files(tmp_path, {"cat/a.png": photo_file(1), "cat/b.png": photo_file(2)})
    with pytest.raises(DataError, match=rf"{tmp_path}\b.*\bcat\b"):
        read(tmp_path)


def test_nothing_to_read_says_what_was_expected(tmp_path):
    two_classes(tmp_path / "pets")
    with pytest.raises(NoPhotos, match=r"/pest\b.*/pets\b"):
        read(tmp_path / "pest")
    with pytest.raises(NoPhotos, match=r"/xyz/abc\b") as caught:
        read(tmp_path / "xyz" / "abc")
    assert "/pets" not in str(caught.value)
    write_files(tmp_path, {"empty/a/b.txt": b"x", "flat/a.png": photo_file(1)})
    with pytest.raises(NoPhotos, match=r"/empty\b.*\(1 .*\).* \.bmp\b"):
        read(tmp_path / "empty")
    with pytest.raises(NoPhotos, match=r"/flat\b.*\b1 photo\b.*\bimage,label\b"):
        read(tmp_path / "flat")
    with pytest.raises(NoPhotos, match=r"\.csv\b.*\.parquet\b.*/flat/a\.png\b"):
        read(tmp_path / "flat" / "a.png")
    with pytest.raises(ConfigError, match=r"\bingest\.photos\b"):
        ingest(IngestConfig())


# the fingerprint


def test_the_fingerprint_sees_a_change_in_place(tmp_path):
    two_classes(tmp_path)
    config = IngestConfig(photos=str(tmp_path))
    before = fingerprint(config)
    assert fingerprint(config) == before
    write_files(tmp_path, {"cat/new.png": photo_file(40)})
    added = fingerprint(config)
    write_files(tmp_path, {"cat/new.png": photo_file(41, size=9)})
    assert len({before, added, fingerprint(config)}) == 3


def test_the_fingerprint_of_a_manifest_sees_rows_and_photos(tmp_path):
    two_classes(tmp_path)
    manifest = tmp_path / "m.csv"
    config = IngestConfig(photos=str(manifest))
    manifest.write_text("image,label\ncat/0.png,cat\ndog/0.png,dog\n")
    first = fingerprint(config)
    manifest.write_text("image,label\ncat/0.png,cat\ndog/0.png,cow\n")
    second = fingerprint(config)
    write_files(tmp_path, {"cat/0.png": photo_file(1, size=9)})
    third = fingerprint(config)
    (tmp_path / "cat/0.png").unlink()
    assert len({first, second, third, fingerprint(config)}) == 4


# manifests


def manifest(root, text):
    (root / "m.csv").write_text(text, encoding="utf-8")
    return root / "m.csv"


def test_a_csv_manifest_carries_splits_groups_and_slices(tmp_path):
    two_classes(tmp_path)
    rows = ["image,label,split,group,camera", "cat/0.png,cat,Train,g1,NA", "dog/0.png,dog,val,,c2"]
    table = read(manifest(tmp_path, "\n".join(rows)))
    columns = ["label", "given_split", "group", "slice:camera"]
    assert table.frame[columns].to_numpy().tolist() == [
        ["cat", "train", "g1", "NA"],
        ["dog", "validation", "", "c2"],
    ]


def test_a_parquet_manifest_reads_as_its_csv_does(tmp_path):
    two_classes(tmp_path)
    path = manifest(tmp_path, "image,label,weight\ncat/0.png,1,\ndog/0.png,2,3\n")
    frame = pd.DataFrame(
        {"image": ["cat/0.png", "dog/0.png"], "label": [1, 2], "weight": [None, "3"]}
    )
    frame.to_parquet(tmp_path / "m.parquet")
    assert read(tmp_path / "m.parquet").digest == read(path).digest


def test_a_manifest_and_its_photos_may_be_remote_or_absolute(tmp_path):
    two_classes(tmp_path)
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/remote/a.png", photo_file(1))
    text = f"image,label\na.png,cat\nmemory://remote/a.png,cat\n{tmp_path}/dog/0.png,dog\n"
    memory.pipe_file("/remote/m.csv", text.encode())
    table = read("memory://remote/m.csv", roots=(str(tmp_path),))
    assert len(table.frame) == 2
    assert table.n_repeated == 1
    config = IngestConfig(photos="memory://remote/m.csv")
    before = fingerprint(config)
    memory.pipe_file("/remote/a.png", photo_file(2, size=9))
    assert fingerprint(config) != before


def test_a_photo_of_a_manifest_that_does_not_exist_is_missing(tmp_path):
    two_classes(tmp_path)
    path = manifest(tmp_path, "image,label\ncat/0.png,cat\ndog/0.png,dog\ncat/9.png,cat\n")
    table = read(path, max_quarantine_fraction=0.5)
    assert table.quarantine[["label", "reason"]].to_numpy().tolist() == [["cat", "missing"]]


def test_repeated_rows_count_once_and_contradicting_labels_clash(tmp_path):
    two_classes(tmp_path)
    rows = "cat/0.png,cat\ncat/0.png,cat\ndog/0.png,dog\ncat/1.png,cat\ncat/1.png,dog\n"
    table = read(manifest(tmp_path, f"image,label\n{rows}"), max_quarantine_fraction=0.5)
    assert (len(table.frame), table.n_repeated, table.n_ignored) == (2, 1, 0)
    assert table.quarantine["reason"].tolist() == ["clashing labels"] * 2


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("image,lable\na,b\n", ManifestError, r"\bimage,lable\b.* label \(.*'lable'"),
        ("file,label\na,b\n", ManifestError, r"\bfile,label\b.* image\b"),
        ('image,label\na,"b', ManifestError, r"/m\.csv, line 2\b.*\bquotes\b"),
        ('image,label\na,"b\nc,"d"\n', ManifestError, r"/m\.csv, line 2\b.*\bline 3\b"),
        ("image;label\na;b\n", ManifestError, r"\bsemicolons\b.*\bcommas\b"),
        ("image\tlabel\na\tb\n", ManifestError, r"\btabs\b.*\bcommas\b"),
        ("\u540d,label\na,b\n", ManifestError, r"\bno image\b"),
        ("image,label,label\na,b,c\n", ManifestError, r"/m\.csv\b.*\bimage,label,label\b"),
        ("", NoPhotos, r"/m\.csv\b.*\bheader\b"),
        ("image,label\n", NoPhotos, r"/m\.csv\b.*\bheader\b"),
    ],
)
def test_an_invalid_manifest_is_refused_with_its_line(tmp_path, text, error, words):
    with pytest.raises(error, match=words):
        read(manifest(tmp_path, text))


def test_a_manifest_in_another_encoding_or_format_is_refused(tmp_path):
    text = "image,Straße\n"
    files = {"m.csv": text.encode("latin-1"), "wide.csv": text.encode("utf-16")}
    write_files(tmp_path, {**files, "m.parquet": b"no"})
    for name in files:
        with pytest.raises(ManifestError, match=rf"/{name}\b.*\bUTF-8\b"):
            read(tmp_path / name)
    with pytest.raises(ManifestError, match=r"/m\.parquet\b.*\bParquet\b"):
        read(tmp_path / "m.parquet")
    with pytest.raises(NoPhotos, match=r"\bmanifest\b.*/none\.csv\b"):
        read(tmp_path / "none.csv")


def test_a_file_is_written_whole_and_only_once(tmp_path):
    for place in (f"{tmp_path}/a/b.bin", "memory://once/a/b.bin"):
        write_if_absent(place, b"first")
        write_if_absent(place, b"second")
        with fsspec.open(place) as file:
            assert file.read() == b"first"
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b.bin"]
