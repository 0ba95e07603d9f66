"""Promises of the inbox: labels may be late, repeated or wrong; nothing is lost or guessed."""

import os
import re
import shutil
from functools import cache

import fsspec
import numpy as np
import pandas as pd
import pytest
from tiny import photo_file, write_files

from regraft.core.config import IngestConfig
from regraft.core.errors import ClassVanished, ConfigError, NoPhotos
from regraft.data.ingest import fingerprint, ingest
from regraft.data.ingest import inbox as inbox_module
from regraft.data.ingest.facts import extract_facts
from regraft.data.ingest.manifest import list_manifest
from regraft.data.ingest.memory import load_facts

LABELS = ("cat", "dog", "emu")


@pytest.fixture(scope="module", autouse=True)
def _content_is_looked_at_once():
    """Cache the facts, which depend on the content only; these tests are about labels."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("regraft.data.ingest.table.extract_facts", cache(extract_facts))
        yield


@pytest.fixture
def pets(tmp_path):
    """photos/cat/1..10 and photos/dog/11..20 by seed, and an empty inbox beside them."""
    for seed in range(1, 21):
        label = "cat" if seed <= 10 else "dog"
        write_files(tmp_path, {f"photos/{label}/{seed}.png": photo_file(seed)})
    (tmp_path / "inbox").mkdir()
    return tmp_path


def config_of(root, inbox="inbox", photos="photos", **options):
    return IngestConfig(photos=str(root / photos), inbox=str(root / inbox), **options)


def read(root, inbox="inbox", photos="photos", **options):
    return ingest(config_of(root, inbox, photos, **options))


def labels(table, root):
    """{path below root: label}."""
    rows = table.frame[["path", "label"]].itertuples(index=False)
    return {os.path.relpath(path, root): label for path, label in rows}


def relabelled(table, root):
    rows = table.relabelled[["path", "was", "label"]].itertuples(index=False)
    return [(os.path.relpath(path, root), was, label) for path, was, label in rows]


def csv(root, text, name="inbox.csv"):
    (root / name).write_text(text, encoding="utf-8")


# what joins, and what waits


def test_photos_in_the_inbox_join_the_others(pets):
    before = read(pets)
    write_files(pets, {"inbox/cat/a.png": photo_file(31), "inbox/emu/deep/b.png": photo_file(32)})
    table = read(pets)
    assert len(before.frame) == 20
    assert labels(table, pets) == labels(before, pets) | {
        "inbox/cat/a.png": "cat",
        "inbox/emu/deep/b.png": "emu",
    }
    assert table.classes == ("cat", "dog", "emu")
    assert table.frame["path"].is_monotonic_increasing
    assert (table.n_waiting, len(table.relabelled)) == (0, 0)
    assert "wait" not in str(table)
    assert "relabelled" not in str(table)


def test_photos_right_in_the_inbox_wait_and_are_no_failure(pets):
    write_files(
        pets,
        {"inbox/a.png": photo_file(31), "inbox/b.png": photo_file(32), "inbox/notes.txt": b"x"},
    )
    table = read(pets)
    assert len(table.frame) == 20
    assert (table.n_waiting, len(table.quarantine), table.n_ignored) == (2, 0, 1)
    assert re.search(r"\b1 other\b.*\b2 without a label$", str(table))
    assert table.digest == ingest(IngestConfig(photos=str(pets / "photos"))).digest


def test_a_photo_that_waits_is_known_when_its_label_comes(pets):
    write_files(pets, {"inbox/a.png": photo_file(31)})
    url = str(pets / "memory")
    read(pets, memory_url=url)
    known = load_facts(url)
    assert len(known) == 21
    (pets / "inbox/emu").mkdir()
    (pets / "inbox/a.png").rename(pets / "inbox/emu/a.png")
    table = read(pets, memory_url=url)
    assert labels(table, pets)["inbox/emu/a.png"] == "emu"
    assert (table.n_waiting, len(load_facts(url))) == (0, 21)


def test_manifest_rows_without_a_label_wait_until_a_row_brings_it(pets):
    write_files(pets, {"new/a.png": photo_file(31), "new/b.png": photo_file(32)})
    text = "image,label\nnew/a.png,\nnew/b.png,\n"
    csv(pets, text)
    assert read(pets, "inbox.csv").n_waiting == 2
    csv(pets, f"{text}new/b.png,emu\n")
    table = read(pets, "inbox.csv")
    assert (table.n_waiting, table.n_repeated, table.n_ignored) == (1, 1, 0)
    assert labels(table, pets)["new/b.png"] == "emu"
    assert table.relabelled.empty


def test_a_photo_that_has_a_label_anywhere_waits_nowhere(pets):
    write_files(pets, {"inbox/a.png": photo_file(31), "inbox/copy of 1.png": photo_file(1)})
    rows = [f"photos/cat/{i}.png,cat" for i in range(1, 11)]
    rows += [f"photos/dog/{i}.png,dog" for i in range(11, 21)]
    csv(pets, "\n".join(["image,label", *rows, "inbox/a.png,emu"]), "labels.csv")
    table = read(pets, photos="labels.csv")
    assert (table.n_waiting, table.n_repeated, table.n_ignored) == (0, 2, 0)
    assert labels(table, pets)["inbox/a.png"] == "emu"
    assert "inbox/copy of 1.png" not in labels(table, pets)


def test_an_empty_cell_never_takes_a_label_away(pets):
    csv(pets, "image,label,labelled_at\nphotos/cat/1.png,,2030-01-01\n")
    table = read(pets, "inbox.csv")
    assert labels(table, pets)["photos/cat/1.png"] == "cat"
    assert (table.n_waiting, len(table.relabelled)) == (0, 0)


@pytest.mark.parametrize("text", ["", "image,lab", "image,label\n", "image,label,split\n\n"])
def test_an_empty_inbox_is_fine(pets, text):
    csv(pets, text)
    for inbox in ("inbox", "inbox.csv"):
        assert len(read(pets, inbox).frame) == 20
    pd.DataFrame({"image": [], "label": []}).to_parquet(pets / "inbox.parquet")
    assert len(read(pets, "inbox.parquet").frame) == 20


def test_without_an_inbox_nothing_waits(pets):
    table = ingest(IngestConfig(photos=str(pets / "photos")))
    assert (table.n_waiting, len(table.relabelled)) == (0, 0)
    assert list(table.relabelled.columns) == ["path", "sha256", "was", "label"]


# which label counts


def test_the_label_in_the_inbox_wins_and_the_photo_keeps_its_path(pets):
    write_files(pets, {"inbox/dog/seen again.png": photo_file(1)})
    table = read(pets)
    assert labels(table, pets)["photos/cat/1.png"] == "dog"
    assert relabelled(table, pets) == [("photos/cat/1.png", "cat", "dog")]
    assert table.relabelled["sha256"].tolist() == [
        table.frame.set_index("path")["sha256"][str(pets / "photos/cat/1.png")]
    ]
    assert (len(table.frame), table.n_repeated, table.n_ignored) == (20, 1, 0)
    assert str(table).endswith(", 1 relabelled")


def test_a_label_that_both_places_agree_on_is_no_news(pets):
    write_files(pets, {"inbox/cat/seen again.png": photo_file(1)})
    table = read(pets)
    assert (len(table.frame), len(table.relabelled), table.n_repeated) == (20, 0, 1)
    assert table.digest == ingest(IngestConfig(photos=str(pets / "photos"))).digest


def test_every_copy_takes_the_new_label(pets):
    write_files(pets, {"photos/cat/copy.png": photo_file(1), "inbox/emu/x.png": photo_file(1)})
    table = read(pets)
    assert relabelled(table, pets) == [
        ("photos/cat/1.png", "cat", "emu"),
        ("photos/cat/copy.png", "cat", "emu"),
    ]


def test_a_correction_in_the_inbox_is_worth_as_much_as_one_in_place(pets):
    write_files(pets, {"inbox/dog/x.png": photo_file(1)})
    late = read(pets).digest
    (pets / "photos/cat/1.png").rename(pets / "photos/dog/1.png")
    (pets / "inbox/dog/x.png").unlink()
    assert read(pets).digest == late


def test_the_inbox_resolves_clashing_labels_outside(pets):
    write_files(pets, {"photos/dog/same as 1.png": photo_file(1)})
    assert read(pets).quarantine["reason"].tolist() == ["clashing labels"] * 2
    write_files(pets, {"inbox/dog/1.png": photo_file(1)})
    table = read(pets)
    assert table.quarantine.empty
    assert labels(table, pets)["photos/dog/same as 1.png"] == "dog"
    assert relabelled(table, pets) == [("photos/cat/1.png", "cat", "dog")]


def test_contradicting_labels_in_the_inbox_are_quarantined(pets):
    write_files(pets, {"inbox/dog/1.png": photo_file(1), "inbox/emu/1.png": photo_file(1)})
    table = read(pets, max_quarantine_fraction=0.5)
    assert table.quarantine["reason"].tolist() == ["clashing labels"] * 3
    assert "photos/cat/1.png" not in labels(table, pets)
    assert table.relabelled.empty
    assert table.classes == ("cat", "dog")


def test_a_correction_without_split_and_group_keeps_them(pets):
    csv(pets, "image,label\nphotos/cat/1.png,dog\n")
    rows = ["image,label,split,group,camera", "photos/cat/1.png,cat,test,g1,c1"]
    rows += ["photos/cat/2.png,cat,train,,c1", "photos/dog/11.png,dog,train,,c2"]
    csv(pets, "\n".join(rows), "labels.csv")
    table = read(pets, "inbox.csv", "labels.csv")
    columns = ["label", "given_split", "group", "slice:camera"]
    assert table.frame[columns].to_numpy().tolist()[0] == ["dog", "test", "g1", "c1"]
    csv(pets, "image,label,group,light\nphotos/cat/1.png,dog,g2,dim\n")
    table = read(pets, "inbox.csv", "labels.csv")
    columns.append("slice:light")
    assert table.frame[columns].to_numpy().tolist() == [
        ["dog", "test", "g2", "c1", "dim"],
        ["cat", "train", "", "c1", ""],
        ["dog", "train", "", "c2", ""],
    ]


def test_the_order_of_the_folders_changes_nothing(pets, list_folders_backwards):
    for number in range(6):
        write_files(pets, {f"inbox/{LABELS[number % 3]}/{number}.png": photo_file(number + 1)})
    write_files(pets, {"inbox/a.png": photo_file(31), "photos/dog/same as 1.png": photo_file(1)})
    straight = read(pets)
    list_folders_backwards()
    backwards = read(pets)
    assert straight.digest == backwards.digest
    for name in ("frame", "relabelled", "quarantine"):
        pd.testing.assert_frame_equal(getattr(straight, name), getattr(backwards, name))


# the time of a label


def dated(pets, *rows, inbox=True):
    """The table for these rows (image,label,labelled_at) in the inbox or in photos."""
    if inbox:
        csv(pets, "\n".join(["image,label,labelled_at", *rows, ""]))
        return read(pets, "inbox.csv", max_quarantine_fraction=0.5)
    named = [f"photos/dog/{i}.png,dog,2020-01-01" for i in range(11, 21)]
    named += [f"photos/cat/{i}.png,cat,2020-01-01" for i in range(2, 11)]
    csv(pets, "\n".join(["image,label,labelled_at", *rows, *named, ""]), "labels.csv")
    return read(pets, photos="labels.csv", max_quarantine_fraction=0.5)


@pytest.mark.parametrize("inbox", [True, False])
def test_the_newest_of_several_rows_counts_whatever_their_order(pets, inbox):
    rows = [f"photos/cat/1.png,{LABELS[i]},2026-0{i + 1}-01" for i in range(3)]
    for order in (rows, rows[::-1]):
        table = dated(pets, *order, inbox=inbox)
        assert labels(table, pets)["photos/cat/1.png"] == "emu"
        assert relabelled(table, pets) == [("photos/cat/1.png", "dog", "emu")]
        assert (len(table.frame), table.quarantine.empty) == (20, True)


@pytest.mark.parametrize("inbox", [True, False])
def test_a_corrected_correction_is_as_it_was(pets, inbox):
    first = ("photos/cat/1.png,cat,2026-01-01", "photos/cat/1.png,dog,2026-01-02")
    assert labels(dated(pets, *first, inbox=inbox), pets)["photos/cat/1.png"] == "dog"
    table = dated(pets, *first, "photos/cat/1.png,cat,2026-01-03", inbox=inbox)
    assert labels(table, pets)["photos/cat/1.png"] == "cat"
    assert relabelled(table, pets) == [("photos/cat/1.png", "dog", "cat")]


@pytest.mark.parametrize("inbox", [True, False])
def test_labels_of_the_same_time_clash(pets, inbox):
    rows = ("photos/cat/1.png,cat,2026-01-02", "photos/cat/1.png,dog,2026-01-02T00:00Z")
    table = dated(pets, "photos/cat/1.png,dog,2026-01-01", *rows, inbox=inbox)
    assert table.quarantine[["label", "reason"]].to_numpy().tolist() == [
        ["cat", "clashing labels"],
        ["dog", "clashing labels"],
    ]
    assert "photos/cat/1.png" not in labels(table, pets)


def test_a_label_without_a_time_is_older_than_any(pets):
    table = dated(pets, "photos/cat/1.png,emu,", "photos/cat/1.png,dog,1999-12-31")
    assert labels(table, pets)["photos/cat/1.png"] == "dog"


def test_times_are_compared_across_zones(pets):
    rows = ("photos/cat/1.png,emu,2026-03-29T03:30+02:00", "photos/cat/1.png,dog,2026-03-29T02:00")
    assert labels(dated(pets, *rows), pets)["photos/cat/1.png"] == "dog"


def test_a_manifest_of_parquet_may_hold_real_times(pets):
    times = pd.to_datetime(["2026-01-02", "2026-01-01", None])
    images = ["photos/cat/1.png", "photos/cat/1.png", "photos/cat/2.png"]
    rows = {"image": images, "label": ["dog", "emu", "cat"], "labelled_at": times}
    pd.DataFrame(rows).to_parquet(pets / "inbox.parquet")
    assert labels(read(pets, "inbox.parquet"), pets)["photos/cat/1.png"] == "dog"


def test_the_inbox_wins_over_photos_that_are_dated_later(pets):
    named = [f"photos/{'cat' if i <= 10 else 'dog'}/{i}.png" for i in range(1, 21)]
    rows = [f"{name},{name.split('/')[1]},2030-01-01" for name in named]
    csv(pets, "\n".join(["image,label,labelled_at", *rows]), "labels.csv")
    csv(pets, "image,label,labelled_at\nphotos/cat/1.png,dog,2020-01-01\n")
    assert relabelled(read(pets, "inbox.csv", "labels.csv"), pets)[0][2] == "dog"


def test_a_newer_row_wins_cell_by_cell(pets):
    rows = ["image,label,split,group,labelled_at", "photos/cat/1.png,cat,test,g1,2026-01-01"]
    rows += ["photos/cat/1.png,cat,,g2,2026-01-02", "photos/dog/11.png,dog,train,,"]
    csv(pets, "\n".join(rows), "labels.csv")
    table = read(pets, photos="labels.csv")
    assert table.frame[["given_split", "group"]].to_numpy().tolist() == [
        ["test", "g2"],
        ["train", ""],
    ]
    assert (table.n_repeated, len(table.relabelled)) == (1, 0)
    rows[2] = rows[2].replace("01-02", "01-01")
    csv(pets, "\n".join(rows), "labels.csv")
    table = read(pets, photos="labels.csv", max_quarantine_fraction=0.9, inbox="photos")
    assert table.quarantine.reason.tolist() == ["contradicting rows"] * 2


@pytest.mark.parametrize(
    "time", ["yesterday", "2026-13-01", "1.2.2026", "46110", "9999-12-31", "0001-01-01T00:00+14:00"]
)
def test_a_label_with_an_impossible_time_is_in_quarantine_with_its_line(pets, time):
    table = dated(pets, f"photos/cat/1.png,dog,{time}", "photos/cat/2.png,dog,2026-01-01")
    (row,) = table.quarantine.itertuples()
    assert (row.reason, row.label) == ("invalid labelled_at", "dog")
    assert f"'{time}' (line 2 of inbox.csv)" in row.detail
    found = labels(table, pets)
    assert (found["photos/cat/1.png"], found["photos/cat/2.png"]) == ("cat", "dog")


def test_the_time_of_a_label_is_no_slice(pets):
    table = dated(pets, "photos/cat/1.png,dog,2026-01-01")
    assert not [name for name in table.frame.columns if "slice" in name or "labelled" in name]


# while somebody writes


LAST_LINE = "photos/cat/2.png,dogfish\n"


@pytest.mark.parametrize(
    "lengths",
    [
        (1, 16, 17, 20, 24),  # a letter, up to the comma, with it, half of the label, no line end
        pytest.param(range(1, len(LAST_LINE)), marks=pytest.mark.slow),
    ],
    ids=["some", "every"],
)
def test_a_line_without_its_end_is_set_aside_until_it_has_one(pets, lengths):
    whole = f"image,label\nphotos/cat/1.png,dog\n{LAST_LINE}"
    for length in lengths:
        csv(pets, whole[: len(whole) - len(LAST_LINE) + length])
        table = read(pets, "inbox.csv")
        assert relabelled(table, pets) == [("photos/cat/1.png", "cat", "dog")]
        assert table.quarantine["reason"].tolist() == ["unfinished line"]
    csv(pets, whole)
    table = read(pets, "inbox.csv")
    assert table.quarantine.empty
    assert table.classes == ("cat", "dog", "dogfish")


def test_half_a_letter_at_the_end_of_the_inbox_is_no_other_encoding(pets):
    text = "image,label\nphotos/cat/1.png,café".encode()
    (pets / "inbox.csv").write_bytes(text[:-1])
    assert read(pets, "inbox.csv").quarantine["reason"].tolist() == ["unfinished line"]


def test_a_manifest_of_photos_needs_no_last_line_end(pets):
    csv(pets, "image,label\nphotos/cat/1.png,cat\nphotos/dog/11.png,dog", "labels.csv")
    assert len(read(pets, photos="labels.csv").frame) == 2
    assert len(list_manifest(str(pets / "labels.csv")).photos) == 2


def test_a_file_that_leaves_between_listing_and_reading_is_in_quarantine(pets, monkeypatch):
    write_files(
        pets,
        {
            "inbox/cat/a.png": photo_file(31),
            "inbox/b.png": photo_file(32),
            "inbox/c.png": photo_file(33),
        },
    )
    list_folder = inbox_module.list_folder

    def slow(place, **options):
        listing = list_folder(place, **options)
        (pets / "inbox/cat/a.png").unlink()
        (pets / "inbox/b.png").rename(pets / "inbox/cat/b.png")
        return listing

    monkeypatch.setattr(inbox_module, "list_folder", slow)
    table = read(pets)
    assert table.quarantine["reason"].tolist() == ["missing", "missing"]
    assert (table.n_waiting, len(table.frame)) == (1, 20)


# what is broken


def test_a_broken_photo_in_the_inbox_is_in_quarantine_with_its_reason(pets):
    write_files(
        pets,
        {
            "inbox/cat/a.png": photo_file(31)[:150],
            "inbox/b.png": b"",
            "inbox/c.png": photo_file(32),
        },
    )
    table = read(pets)
    assert table.quarantine[["label", "reason"]].to_numpy().tolist() == [
        ["", "empty file"],
        ["cat", "truncated"],
    ]
    assert table.n_waiting == 1


def test_a_class_that_only_the_inbox_has_does_not_stop_the_run_when_it_is_broken(pets):
    write_files(pets, {"inbox/emu/a.png": b"", "inbox/fox/a.ods": b"x", "inbox/fox/b": b"x"})
    table = read(pets, max_quarantine_fraction=0.2)
    assert table.classes == ("cat", "dog")
    assert table.quarantine[["label", "reason"]].to_numpy().tolist() == [
        ["emu", "empty file"],
        ["fox", "no photo"],
        ["fox", "no photo"],
    ]
    details = table.quarantine["detail"].tolist()
    assert [detail.split(";")[0] for detail in details[1:]] == [".ods", "no extension"]
    write_files(pets, {"inbox/fox/c.png": photo_file(31)})
    table = read(pets, max_quarantine_fraction=0.2)
    assert (len(table.quarantine), table.n_ignored) == (1, 2)
    write_files(pets, {"photos/emu/a.png": b""})
    with pytest.raises(ClassVanished, match=r" emu\b.*\b2\b.*/emu/a\.png, empty file\b"):
        read(pets, max_quarantine_fraction=0.2)


def test_what_waits_counts_as_usable_where_the_broken_are_counted(pets):
    write_files(
        pets, {f"inbox/{i}.png": photo_file(40 + i) for i in range(10)} | {"inbox/x.png": b""}
    )
    assert len(read(pets, max_quarantine_fraction=1 / 30).quarantine) == 1


# places that cannot be meant


def test_an_inbox_that_is_not_there_is_named(pets):
    (pets / "inbox").rmdir()
    for place, words in (
        ("inbox", r"^ingest\.inbox: .*\bfolder\b.*/inbox\b"),
        ("inbox.csv", r"^ingest\.inbox: .*\bmanifest\b.*/inbox\.csv\b"),
    ):
        for use in (ingest, fingerprint):
            with pytest.raises(NoPhotos, match=words):
                use(config_of(pets, place))
    remote = IngestConfig(photos=str(pets / "photos"), inbox="memory://no-inbox")
    for use in (ingest, fingerprint):
        with pytest.raises(NoPhotos, match=r"^ingest\.inbox: .* memory://no-inbox\b.* \.keep\b"):
            use(remote)
    fsspec.filesystem("memory").pipe_file("/no-inbox/.keep", b"")
    assert len(ingest(remote).frame) == 20


def test_an_invalid_inbox_is_refused(pets):
    write_files(pets, {"inbox/a.png": photo_file(31)})
    with pytest.raises(NoPhotos, match=r"\bingest\.inbox\b.*/inbox/a\.png\b"):
        read(pets, "inbox/a.png")
    with pytest.raises(
        ConfigError, match=r"\bingest\.inbox\b.*torchvision:MNIST\b.*\bingest\.photos\b"
    ):
        ingest(IngestConfig(photos=str(pets / "photos"), inbox="torchvision:MNIST"))


@pytest.mark.parametrize(
    ("photos", "inbox"), [("photos", "photos/"), ("photos", "photos/cat"), (".", "inbox")]
)
def test_nested_locations_are_refused(pets, photos, inbox):
    for use in (ingest, fingerprint):
        words = rf"ingest\.inbox={pets}/{inbox.rstrip('/')}.* ingest\.photos={pets}\b"
        with pytest.raises(ConfigError, match=words):
            use(config_of(pets, inbox, photos))


def test_places_of_nearly_the_same_name_are_two(pets):
    shutil.copytree(pets / "photos", pets / "photos of May")
    table = read(pets, "photos of May")
    assert (len(table.frame), table.n_repeated) == (20, 20)
    assert re.search(r"\b0 other\b.*\b20 duplicates\b", str(table))


def test_a_link_does_not_hide_that_the_inbox_lies_among_the_photos(pets):
    (pets / "link").symlink_to(pets / "photos" / "cat")
    with pytest.raises(ConfigError, match=r"ingest\.inbox=.*/link\b.* ingest\.photos=.*/photos\b"):
        read(pets, "link")


def test_a_manifest_among_the_photos_may_be_the_inbox(pets):
    csv(pets, "image,label\ncat/1.png,dog\n", "photos/late.csv")
    assert relabelled(read(pets, "photos/late.csv"), pets) == [("photos/cat/1.png", "cat", "dog")]


# the fingerprint


def test_the_fingerprint_sees_the_inbox(pets):
    seen = [fingerprint(IngestConfig(photos=str(pets / "photos"))), fingerprint(config_of(pets))]
    write_files(pets, {"inbox/a.png": photo_file(31)})
    seen.append(fingerprint(config_of(pets)))
    assert fingerprint(config_of(pets)) == seen[-1]
    (pets / "inbox/dog").mkdir()
    (pets / "inbox/a.png").rename(pets / "inbox/dog/a.png")
    seen.append(fingerprint(config_of(pets)))
    text = "image,label\nphotos/cat/1.png,dog\nphotos/cat/2.png,"
    for end in ("do", "dog", "dog\n"):
        csv(pets, text + end)
        seen.append(fingerprint(config_of(pets, "inbox.csv")))
    write_files(pets, {"photos/cat/1.png": photo_file(33, size=9)})
    seen.append(fingerprint(config_of(pets, "inbox.csv")))
    assert len(set(seen)) == len(seen)


# any sequence


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2, 3))]
)
def test_after_any_sequence_each_content_has_the_label_that_was_given_last(tmp_path, seed):
    """Photos are added to both locations, with or without a label, and rows correct labels."""
    rng = np.random.default_rng(seed)
    truth, rows = {}, ["image,label,labelled_at"]
    for number in range(6):
        truth[number] = "cat" if number % 2 else "dog"
        write_files(tmp_path, {f"photos/{truth[number]}/{number}.png": photo_file(number)})
    for step in range(40):
        kind, label = rng.choice(["early", "late", "bare", "correct"]), str(rng.choice(LABELS))
        number, time = len(truth), f"2026-01-01T00:00:{step:02}"
        if kind == "early":
            write_files(tmp_path, {f"photos/{label}/{number}.png": photo_file(number)})
            truth[number] = label
        elif kind == "correct":
            number = int(rng.integers(len(truth)))
            known = next(tmp_path.glob(f"*/**/{number}.png")).relative_to(tmp_path)
            rows.insert(int(rng.integers(1, len(rows) + 1)), f"{known},{label},{time}")
            truth[number] = label
        else:
            write_files(tmp_path, {f"new/{number}.png": photo_file(number)})
            truth[number] = label if kind == "late" else ""
            rows.append(f"new/{number}.png,{truth[number]},{time * (kind == 'late')}")
        if step % 8 == 7:
            csv(tmp_path, "\n".join([*rows, ""]))
            check_all(read(tmp_path, "inbox.csv", max_quarantine_fraction=0.0), truth, tmp_path)


def check_all(table, truth, root):
    found = {int(path.split("/")[-1][:-4]): label for path, label in labels(table, root).items()}
    assert found == {number: label for number, label in truth.items() if label}
    assert table.n_waiting == sum(not label for label in truth.values())
    folder = {
        path: path.split("/")[1] for path in labels(table, root) if path.startswith("photos/")
    }
    changed = {path for path, was in folder.items() if labels(table, root)[path] != was}
    assert changed <= {path for path, _, _ in relabelled(table, root)}
