"""Promises about manifests: each cell is read as it is, and a bad row costs itself alone."""

import socket
import sys
from contextlib import contextmanager

import fsspec
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tiny import photo_file, write_files

from regraft.core.config import IngestConfig
from regraft.core.errors import ManifestError, MissingDriver
from regraft.core.files import filesystem
from regraft.data.ingest import fingerprint, ingest
from regraft.data.ingest.manifest import list_manifest, manifest_photos
from regraft.drift.photos import gather
from regraft.evaluation.predict import list_photos
from regraft.operations.batch.walk import refusals, walk

BIG = 2**60 + 1  # no float has this value


@pytest.fixture
def album(tmp_path):
    """Photos im/0.png to im/8.png; their manifests are written beside im."""
    folder = tmp_path / "album"
    write_files(folder, {f"im/{i}.png": photo_file(i) for i in range(9)})
    return folder


def readers(place, config):
    """The (path, reason) of each row, by each command that reads manifests."""
    late = list_manifest(str(place), config, may_wait=True)
    yield {(photo.uri, "") for photo in late.photos} | {
        (r.path, r.reason) for r in late.quarantined
    }
    yield {(p.place, p.error.reason if p.error else "") for p in list_photos([str(place)], config)}
    entries = list(walk(str(place), config))
    reasons = refusals(entries)
    yield {
        (entry.path.decode(), reasons[at].reason if at in reasons else "")
        for at, entry in enumerate(entries)
    }
    seen = gather(str(place), config)
    yield {(path, "") for path in seen.photos.path} | {
        (row.path, "" if row.reason == "missing" else row.reason)
        for row in seen.unusable.itertuples()
    }


# cells


def test_whole_numbers_of_parquet_keep_each_digit_whatever_is_missing(album):
    columns = {
        "image": ["im/0.png", "im/1.png", "im/2.png", "im/3.png"],
        "label": pa.array([3, 10, None, 3], pa.int64()),
        "group": pa.array([BIG, None, 1, 2], pa.int64()),
        "split": pa.array(["test", None, None, None]).dictionary_encode(),
        "floats": [1.0, None, 0.5, 1e20],
        "raw": pa.array([b"left", None, b"", b"right"]),
        "is_new": [True, False, None, True],
    }
    pq.write_table(pa.table(columns), album / "m.parquet")
    listing = list_manifest(str(album / "m.parquet"), may_wait=True)
    photos = [(photo.label, photo.split, photo.group, *photo.slices) for photo in listing.photos]
    assert photos == [
        ("3", "test", str(BIG), "1", "left", "True"),
        ("10", "", "", "", "", "False"),
        ("", "", "1", "0.5", "", ""),
        ("3", "", "2", "1e+20", "right", "True"),
    ]


def test_a_null_in_an_inbox_of_numbers_makes_no_new_class(album):
    text = "\n".join(f"im/{i}.png,{i % 3 + 1}" for i in range(6))
    (album / "m.csv").write_text(f"image,label\n{text}\n")
    for kind in (pa.int64(), pa.float64()):
        labels = pa.array([1, 2, None], kind)
        table = pa.table({"image": ["im/6.png", "im/7.png", "im/8.png"], "label": labels})
        pq.write_table(table, album / "inbox.parquet")
        config = IngestConfig(photos=f"{album}/m.csv", inbox=f"{album}/inbox.parquet")
        made = ingest(config)
        assert (made.classes, made.n_waiting) == (("1", "2", "3"), 1)


def test_pandas_row_numbers_are_no_slice(album):
    frame = pd.DataFrame({"image": ["im/0.png", "im/1.png"], "label": ["a", "b"]})
    frame.iloc[::-1].to_parquet(album / "m.parquet")
    frame.to_csv(album / "m.csv")
    for name in ("m.parquet", "m.csv"):
        assert list_manifest(str(album / name)).slice_names == ()


ODD_TABLES = {
    "blanks in the header": " image , label \nim/0.png,a\n",
    "blank lines": "\n,,\nimage,label\n\nim/0.png,a\n",
    "trailing commas in rows": "image,label\nim/0.png,a,\nim/1.png,b,,\n",
    "trailing commas everywhere": "image,label,,\nim/0.png,a,,\n,,,\n",
    "blanks before quotes": 'image,label\n"im/0.png", "a"\n',
    "a missing image": "image,label\nim/0.png,a\n,b\n",
    "a short row": "image,label,split\nim/0.png,a,\nim/1.png,b\n",
    "a long row": "image,label\nim/0.png,a\nim/1.png,b,c\n",
    "a letter after a quote": 'image,label\nim/0.png,a\n"im/1.png"x,b\n',
    "latin-1": b"image,label\nim/0.png,a\ncaf\xe9.png,b\n",
    "a byte order mark": b"\xef\xbb\xbfimage,label\nim/0.png,a\n",
    "old Mac line ends": "image,label\rim/0.png,a\r",
    "a zero byte": "image,label\nim/0.png,a\nim/\0.png,b\n",
    "a huge cell": f"image,label\nim/0.png,a\n{'x' * 200_000},b\n",
    "two colons": "image,label\nim/0.png,a\nim/10::22.png,b\n",
}


@pytest.mark.parametrize("name", ODD_TABLES)
def test_every_command_reads_the_same_rows_of_an_odd_table(album, name):
    text = ODD_TABLES[name]
    (album / "m.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    first, *others = readers(album / "m.csv", IngestConfig())
    assert (f"{album}/im/0.png", "") in first
    assert len(first) <= 2
    for other in others:
        assert other == first
    listing = list_manifest(str(album / "m.csv"))
    assert {photo.label for photo in listing.photos} <= {"a", "b"}


def test_every_command_reads_a_missing_image_of_parquet_alike(album):
    pq.write_table(pa.table({"image": ["im/0.png", None], "label": [1, 2]}), album / "m.parquet")
    for found in readers(album / "m.parquet", IngestConfig()):
        assert found == {
            (f"{album}/im/0.png", ""),
            (f"{album}/m.parquet, row 2", "no image"),
        }


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (pa.binary(), r"the bytes of photos \(binary\)"),
        (pa.struct({"bytes": pa.binary(), "path": pa.string()}), "the bytes of photos"),
        (pa.int64(), "the type int64"),
    ],
)
def test_a_table_of_photo_bytes_is_refused_in_a_sentence_by_every_command(album, kind, words):
    cell = {"bytes": b"\xff\xd8", "path": "a"} if pa.types.is_struct(kind) else 1
    cell = b"\xff\xd8\xff" if pa.types.is_binary(kind) else cell
    table = pa.table({"image": pa.array([cell], kind), "label": ["a"]})
    pq.write_table(table, album / "m.parquet")
    place, config = str(album / "m.parquet"), IngestConfig()
    for command in (
        lambda: list_manifest(place),
        lambda: list_photos([place]),
        lambda: list(walk(place)),
        lambda: gather(place, config),
    ):
        with pytest.raises(ManifestError, match=words) as told:
            command()
        assert len(str(told.value)) < 400


def test_a_nested_column_is_refused_by_training_and_skipped_by_predict(album):
    table = pa.table({"image": ["im/0.png"], "label": ["a"], "boxes": [[1, 2]]})
    pq.write_table(table, album / "m.parquet")
    with pytest.raises(ManifestError, match=r"\bcolumn boxes\b.* list.*\bRemove\b"):
        list_manifest(str(album / "m.parquet"))
    assert len(list_photos([str(album / "m.parquet")])) == 1


def test_each_bad_cell_is_a_row_of_the_quarantine_and_ends_no_run(album):
    good = [f"im/{i}.png,{'ab'[i % 2]},,," for i in range(8)]
    bad = {
        ",a,,,": "no image",
        "im/8.png,,,,": "no label",
        "im/8.png,a\tb,,,": "invalid label",
        f"im/8.png,{'x' * 300},,,": "invalid label",
        "im/8.png,a,dev,,": "unknown split",
        "im/8.png,a,,,tomorrow": "invalid labelled_at",
        "im/8.png,a,,,2126-01-01": "invalid labelled_at",
        "im/8.png,a,b,c": "wrong number of cells",
        '"im/8.png"a,b,,,': "malformed row",
        "http://127.0.0.1:9/x.jpg,a,,,": "not allowed",
    }
    lines = ["image,label,split,group,labelled_at", *good, *bad, good[0]]
    (album / "m.csv").write_text("\n".join(lines))
    table = ingest(IngestConfig(photos=f"{album}/m.csv", max_quarantine_fraction=0.9))
    reasons = {row.detail.rpartition("(")[2]: row.reason for row in table.quarantine.itertuples()}
    assert reasons == {
        f"line {at} of m.csv)": reason for at, reason in enumerate(bad.values(), len(good) + 2)
    }
    assert (len(table.frame), table.n_repeated, table.classes) == (8, 1, ("a", "b"))


def test_times_after_the_last_year_of_python_are_told(album):
    far = pa.array([253402300800 * 5, 0], pa.timestamp("s"))
    images = ["im/0.png", "im/1.png"]
    table = pa.table({"image": images, "label": ["a", "b"], "labelled_at": far, "taken": far})
    pq.write_table(table, album / "m.parquet")
    listing = list_manifest(str(album / "m.parquet"))
    assert [entry.reason for entry in listing.quarantined] == ["invalid labelled_at"]
    assert [photo.slices for photo in listing.photos] == [("1970-01-01 00:00:00",)]


# locations


@contextmanager
def watched():
    """The files that are opened and the addresses that are connected to meanwhile."""
    opened = _EVENTS
    opened.clear()
    opened.append("")
    yield opened
    del opened[:]


_EVENTS: list[str] = []


def _listen(event, arguments):
    if _EVENTS and event in (
        "open",
        "os.listdir",
        "os.scandir",
        "socket.connect",
        "socket.getaddrinfo",
    ):
        _EVENTS.append(str(arguments))


sys.addaudithook(_listen)


def hostile(secret, web):
    host = web.removeprefix("http://").partition("/")[0]
    return [
        *(
            str(secret),
            f"file://{secret}",
            f"FILE://{secret}",
            f"../{secret.name}",
            "im/../../secret",
        ),
        *("/etc/passwd", "../../../../../../etc/passwd", "link.png", "folder/secret"),
        *(
            web,
            web.upper(),
            f"ftp://{host}/x",
            f"simplecache::{web}",
            f"filecache::file://{secret}",
        ),
        *(f"reference://x::file://{secret}", "reference://x::data:", f"zip://x.jpg::{secret}"),
        *("zip://x.jpg::/etc/passwd", "github://o:r@main/x", f"git://{secret.parent}:x@main"),
        *(f"sftp://{host}/x", f"smb://{host}/x", f"webhdfs://{host}/x", f"dask://{host}/x"),
        *("http://127.0.0.1:99999/x.jpg", "http://[::1/x.jpg", f"local://{secret}", "memory://x"),
        *("abfs://c@elsewhere.dfs.core.windows.net/x", "data:image/png;base64,aGVsbG8="),
        *("s3://bucket/x.jpg", "gs://bucket/x.jpg", "S3://bucket/y.jpg", f"s3://b/x::{web}"),
    ]


def test_nothing_outside_is_opened_whatever_a_manifest_names(album, caplog, monkeypatch):
    for package in ("s3fs", "gcsfs", "adlfs"):
        monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
    secret = album.parent / "secret"
    secret.write_bytes(b"BM the-canary")
    (album / "link.png").symlink_to(secret)
    (album / "folder").symlink_to(album.parent)
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        web = f"http://127.0.0.1:{server.getsockname()[1]}/x.jpg"
        images = hostile(secret, web)
        good = [f"im/{i}.png" for i in range(4)]
        frame = pd.DataFrame({"image": [*good, *images], "label": "a"})
        frame.loc[0, "label"] = "b"
        frame.to_csv(album / "m.csv", index=False)
        config = IngestConfig(photos=f"{album}/m.csv", max_quarantine_fraction=1.0)
        with watched() as events:
            fingerprint(config)
            table = ingest(config)
            seen = gather(f"{album}/m.csv", config)
            list(walk(f"{album}/m.csv", config))
            text = "\n".join(events)
    outside = ("secret", "passwd", "127.0.0.1", "bucket", "link.png", "folder/")
    assert not [word for word in outside if word in text]
    assert len(table.frame) == 4
    assert len(table.quarantine) == len(seen.unusable) == len(images)
    drivers = table.quarantine[table.quarantine.reason == "no driver"]
    assert drivers.path.str.lower().str.partition(":")[0].tolist() == ["gs", "s3", "s3"]
    hints = [line for line in caplog.messages if "Install s3fs" in line]
    assert [line.partition(" ")[0] for line in hints] == ["2", "2"]  # one for each command
    assert "the-canary" not in str(table.quarantine.to_dict()) + str(seen.unusable.to_dict())


def test_a_missing_package_is_told_by_its_name(monkeypatch):
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(MissingDriver, match=r"\bs3://.*\bs3fs\b"):
        filesystem("s3://bucket/x")


def reasons(place, **settings):
    photos = manifest_photos(str(place), IngestConfig(**settings))
    return [photo.error.reason if photo.error else "" for photo in photos]


def test_roots_and_schemes_let_a_manifest_name_more(album):
    outside = album.parent / "outside"
    write_files(outside, {"a.png": photo_file(1)})
    (album / "link.png").symlink_to(outside / "a.png")
    images = [f"{outside}/a.png", "../outside/a.png", "link.png", "https://h/a/b.png"]
    images += ["https://h/a/../b.png", "https://h/a/%2e%2e/b.png", "https://h/ab.png"]
    (album / "m.csv").write_text("\n".join(["image", *images]))
    assert reasons(album / "m.csv") == ["not allowed"] * 7
    both = (str(outside), "https://h/a/")
    assert reasons(album / "m.csv", roots=both) == ["", "", "", "", *["not allowed"] * 3]
    assert reasons(album / "m.csv", schemes=["https"])[3:] == [""] * 4
    error = next(manifest_photos(str(album / "m.csv"), IngestConfig())).error
    assert f"add {outside} to ingest.roots" in error.detail


def test_a_remote_manifest_names_photos_below_itself_and_no_file_of_this_machine():
    fs = fsspec.filesystem("memory")
    images = ["a.png", "./deep/a.png", "memory://bucket/labels/b.png", "/etc/passwd"]
    images += ["file:///etc/passwd", "../x.png", "x::/etc/passwd", "memory://bucket/x.png"]
    fs.pipe_file("/bucket/labels/m.csv", "\n".join(["image", *images]).encode())
    found = reasons("memory://bucket/labels/m.csv")
    assert found == ["", "", "", *["not allowed"] * 5]
    fs.rm("/bucket", recursive=True)
