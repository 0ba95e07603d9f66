"""Promises about formats: every photo is read or named, whatever its format and its file name."""

import io
import os
import re
import sys
from pathlib import Path

import fsspec
import pytest
from PIL import Image
from tiny import photo_file, write_files

from regraft.core.config import IngestConfig
from regraft.core.errors import NoPhotos, TooManyQuarantined, UnusablePhoto
from regraft.data.ingest import decode, fingerprint, ingest
from regraft.data.ingest.code_fingerprint import DECODING_FILES
from regraft.data.ingest.formats import PHOTO_EXTENSIONS, format_of
from regraft.evaluation.predict import list_photos
from regraft.operations.batch.walk import walk

ROOT = Path(__file__).parents[2]
# The first bytes of files that cameras and programs write; "1" stands for a size in the header.
HEADS = {
    "HEIC": b"\0\0\0\x24ftypheic\0\0\0\0mif1heic",
    "HEIC of an iPhone's burst": b"\0\0\0\x24ftypmsf1\0\0\0\0msf1hevc",
    "AVIF": b"\0\0\0\x20ftypavif\0\0\0\0avifmif1miaf",
    "AVIF that says mif1": b"\0\0\0\x20ftypmif1\0\0\0\0mif1avifmiaf",
    "JPEG 2000": b"\0\0\0\x0cjP  \r\n\x87\n\0\0\0\x14ftypjp2 ",
    "JPEG XL": b"\0\0\0\x0cJXL \r\n\x87\n\0\0\0\x14ftypjxl ",
    "JPEG XL bare": b"\xff\x0a\xfa\x1f\x01",
    "JPEG XR": b"II\xbc\x01\x20\0\0\0",
    "RAW of Canon": b"II*\0\x10\0\0\0CR\x02\0",
    "RAW of Canon, newer": b"\0\0\0\x18ftypcrx \0\0\0\x01crx isom",
    "RAW of Olympus": b"IIRO\x08\0\0\0",
    "RAW of Panasonic": b"IIU\0\x18\0\0\0",
    "RAW of Fuji": b"FUJIFILMCCD-RAW 0201",
    "Photoshop": b"8BPS\0\x01\0\0\0\0\0\0\0\x03",
    "OpenEXR": b"v/1\x01\x02\0\0\0",
    "Radiance HDR": b"#?RADIANCE\n",
    "PNM": b"P6\n64 48\n255\n",
    "QOI": b"qoif\0\0\0\x40",
    "TGA": b"\0\0\x02\0\0\0\0\0\0\0\0\0\x40\0\x30\0\x18\0",
    "DICOM": bytes(128) + b"DICM\x02\0\0\0",
    "TIFF": b"MM\0*\0\0\0\x08",
    "BigTIFF": b"II+\0\x08\0\0\0",
}
HEIC = HEADS["HEIC"] + bytes(100)


@pytest.fixture(autouse=True)
def _without_pillow_heif(monkeypatch):
    monkeypatch.setattr(_module(), "reads_heic", lambda: False)


def _module():
    return sys.modules["regraft.data.ingest.decode"]


def pets(root, n=5):
    files = {
        f"{label}/{i}.jpg": photo_file(100 * at + i, "JPEG")
        for at, label in enumerate(("a", "b"))
        for i in range(n)
    }
    return write_files(root, files)


def read(root, **options):
    return ingest(IngestConfig(photos=str(root), **options))


@pytest.mark.parametrize("name", HEADS)
def test_a_format_is_known_by_its_first_bytes(name):
    expected = name.split(" of ")[0].removesuffix(" bare").removesuffix(" that says mif1")
    assert format_of(HEADS[name]).name == expected.replace("BigTIFF", "TIFF")


@pytest.mark.parametrize(
    "text", [b"BMW and others", b"P1. The plan", b"II. Results", b"MM", bytes(200), b""]
)
def test_a_text_is_no_image(text):
    assert format_of(text) is None


def test_photos_in_a_format_that_is_not_read_are_named_with_their_number_and_the_remedy(tmp_path):
    heic = {f"a/{i}.HEIC": HEIC + bytes([i]) for i in range(20)}
    write_files(pets(tmp_path), heic)
    with pytest.raises(TooManyQuarantined) as caught:
        read(tmp_path)
    words = r"\b20 of 30\b.*: 20 HEIC is not read\b.*\bpip install 'regraft\[heif\]'"
    assert re.search(words, str(caught.value))
    table = read(tmp_path, max_quarantine_fraction=1.0)
    assert re.search(
        r"\b20 quarantined \(20 HEIC is not read\), 0 other\b.*; HEIC .*\[heif\]", str(table)
    )
    assert set(table.quarantine["detail"]) == {
        "pip install 'regraft[heif]' (pillow-heif), or convert the files to JPEG, PNG or TIFF"
    }


@pytest.mark.parametrize("extension", sorted(PHOTO_EXTENSIONS))
def test_no_photo_is_among_the_other_files_because_of_its_extension(tmp_path, extension):
    write_files(pets(tmp_path), {f"a/x{extension}": b"no image"})
    table = read(tmp_path)
    assert (table.n_ignored, len(table.quarantine)) == (0, 1)


@pytest.mark.parametrize(
    "name", [name for name in HEADS if name.split()[0] not in ("AVIF", "TIFF")]
)
def test_a_format_that_is_not_read_is_named_by_its_content(name):
    expected = format_of(HEADS[name])
    with pytest.raises(UnusablePhoto) as caught:
        decode(HEADS[name] + bytes(200), 10_000)
    named = (f"{expected.name} is not read", expected.remedy)
    is_named = (caught.value.reason, caught.value.detail) == named
    assert is_named if expected.remedy else caught.value.reason in ("unreadable", "truncated")


def test_a_jpeg_that_is_called_heic_is_read(tmp_path):
    write_files(pets(tmp_path), {"a/x.HEIC": photo_file(77, "JPEG")})
    assert len(read(tmp_path).frame) == 11


# files without an extension

UNNAMED = {
    "a/IMG_0001": photo_file(50, "JPEG"),
    "a/2024.05.17": photo_file(51),
    "b/x.jpg?width=640": photo_file(52, "WEBP"),
    "b/LICENSE": b"the terms",
    "b/empty": b"",
    "b/heic": HEIC,
    "b/pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n",
}
PHOTOS = {"a/IMG_0001", "a/2024.05.17", "b/x.jpg?width=640", "b/heic", "b/pointer"}


def names(paths, root):
    return {os.path.relpath(os.fsdecode(path), root) for path in paths}


def test_a_file_without_an_extension_is_judged_by_its_content_everywhere(tmp_path):
    root = write_files(pets(tmp_path / "photos"), UNNAMED)
    table = read(root, max_quarantine_fraction=1.0)
    listed = set(table.frame["path"]) | set(table.quarantine["path"])
    jpegs = {f"{label}/{i}.jpg" for label in "ab" for i in range(5)}
    assert names(listed, root) == PHOTOS | jpegs
    assert (table.n_ignored, sorted(table.quarantine["reason"])) == (
        2,
        ["HEIC is not read", "git-lfs pointer"],
    )
    assert names([photo.place for photo in list_photos([str(root)])], root) == PHOTOS | jpegs
    assert names([entry.path for entry in walk(str(root))], root) == PHOTOS | jpegs
    (tmp_path / "inbox").mkdir()
    (root / "a/IMG_0001").rename(tmp_path / "inbox/IMG_0001")
    late = read(root, inbox=str(tmp_path / "inbox"), max_quarantine_fraction=1.0)
    assert late.n_waiting == 1


def test_a_remote_file_without_an_extension_is_judged_by_its_content():
    memory = fsspec.filesystem("memory")
    for name, data in UNNAMED.items():
        memory.pipe_file(f"/unnamed/{name}", data)
    listed = {photo.place for photo in list_photos(["memory://unnamed"])}
    assert {re.sub("^memory:///?unnamed/", "", place) for place in listed} == PHOTOS


def test_a_folder_of_photos_without_extensions_is_a_class(tmp_path):
    write_files(pets(tmp_path), {f"c/{i}": photo_file(300 + i) for i in range(3)})
    assert read(tmp_path).classes == ("a", "b", "c")


def test_a_file_without_an_extension_that_cannot_be_opened_is_reported(tmp_path):
    pets(tmp_path)
    (tmp_path / "a/gone").symlink_to(tmp_path / "nowhere")
    assert read(tmp_path).quarantine["reason"].tolist() == ["missing"]


def test_nothing_to_predict_names_what_a_photo_is(tmp_path):
    write_files(tmp_path, {"LICENSE": b"the terms"})
    with pytest.raises(NoPhotos, match=r"\.bmp\b.*\bwithout an extension\b"):
        list_photos([str(tmp_path)])


# HEIC, which needs an optional package


def heic_file(seed=0):
    pillow_heif = pytest.importorskip("pillow_heif")
    photo = Image.open(io.BytesIO(photo_file(seed, size=64)))
    buffer = io.BytesIO()
    pillow_heif.from_pillow(photo).save(buffer, quality=-1)
    return buffer.getvalue()


def test_heic_is_read_once_pillow_heif_is_installed(monkeypatch):
    data = heic_file()
    with pytest.raises(UnusablePhoto, match="HEIC is not read"):
        decode(data, 10_000)
    monkeypatch.setattr(_module(), "reads_heic", lambda: True)
    assert decode(data, 10_000).size == (64, 64)
    with pytest.raises(UnusablePhoto, match="too many pixels"):
        decode(data, 4000)


def test_the_fingerprint_of_the_photos_changes_when_pillow_heif_is_installed(tmp_path, monkeypatch):
    config = IngestConfig(photos=str(pets(tmp_path)))
    before = fingerprint(config)
    monkeypatch.setattr("regraft.data.ingest.table.reads_heic", lambda: "another answer")
    assert fingerprint(config) != before


# caches


def test_the_cache_keys_hash_every_file_that_decodes():
    """A file that decode.py imports decides the pixels too."""
    text = (ROOT / "regraft/data/ingest/decode.py").read_text(encoding="utf-8")
    imported = re.findall(r"^from regraft\.data\.ingest\.(\w+) import", text, re.MULTILINE)
    assert {f"data/ingest/{name}.py" for name in (*imported, "decode")} == set(DECODING_FILES)
