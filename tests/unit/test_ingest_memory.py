"""Promises of the cache of facts: only new content is decoded, and the table is the same."""

import logging
import re
import sys

import fsspec
import pandas as pd
import pytest
from fsspec.implementations.local import LocalFileSystem
from tiny import photo_file

from regraft.core.config import IngestConfig
from regraft.data.ingest import ingest
from regraft.data.ingest import memory as memory_module

facts_module = sys.modules["regraft.data.ingest.facts"]


def add(folder, seeds):
    for seed in seeds:
        path = folder / ("cat", "dog")[seed % 2] / f"{seed}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(photo_file(seed, "JPEG", 24))


@pytest.fixture
def pets(tmp_path):
    """Eight photos of two classes, a copy of one of them, and a broken file."""
    folder = tmp_path / "pets"
    add(folder, range(8))
    (folder / "cat/copy.jpg").write_bytes(photo_file(0, "JPEG", 24))
    (folder / "dog/broken.jpg").write_bytes(photo_file(9, "JPEG", 24)[:300])
    return folder


@pytest.fixture
def decoded(monkeypatch):
    """The sha256 of every file that was decoded."""
    seen = []
    unpack = facts_module.unpack

    def counted(data, max_pixels, at_least):
        seen.append(facts_module.sha256_of(data))
        return unpack(data, max_pixels, at_least)

    monkeypatch.setattr(facts_module, "unpack", counted)
    return seen


def read(folder, memory="", **options):
    options = {"max_quarantine_fraction": 0.5, "n_workers": 1} | options
    return ingest(IngestConfig(photos=str(folder), memory_url=str(memory), **options))


def assert_same(one, other):
    pd.testing.assert_frame_equal(one.frame, other.frame)
    pd.testing.assert_frame_equal(one.quarantine, other.quarantine)
    assert (one.digest, one.classes) == (other.digest, other.classes)


def shards(memory):
    return sorted(memory.rglob("*.parquet"))


def test_only_new_content_is_decoded(pets, tmp_path, decoded):
    (pets / "dog/broken.jpg").unlink()
    read(pets, tmp_path / "memory")
    assert len(set(decoded)) == 8
    decoded.clear()
    read(pets, tmp_path / "memory")
    assert len(decoded) == 0
    add(pets, (10, 11))
    (pets / "dog/1.jpg").rename(pets / "dog/renamed.jpg")
    read(pets, tmp_path / "memory")
    assert len(decoded) == 2
    assert len(shards(tmp_path / "memory")) == 2


@pytest.mark.parametrize("place", ["local", "memory://facts"])
def test_the_table_is_the_same_with_and_without_a_memory(pets, tmp_path, place):
    url = place if "://" in place else tmp_path / place
    plain = read(pets)
    assert len(plain.quarantine) == 1
    for _ in range(2):
        assert_same(read(pets, url), plain)
    if "://" in place:
        assert fsspec.filesystem("memory").glob("/facts/*/*.parquet")


def test_without_a_place_nothing_is_written(pets, tmp_path):
    read(pets)
    assert [path.name for path in tmp_path.iterdir()] == ["pets"]


def test_an_unusable_photo_is_decoded_in_each_run(pets, tmp_path, decoded):
    read(pets, tmp_path / "memory")
    decoded.clear()
    read(pets, tmp_path / "memory")
    assert decoded == [facts_module.sha256_of((pets / "dog/broken.jpg").read_bytes())]


def test_a_lower_limit_refuses_what_is_remembered(pets, tmp_path):
    (pets / "dog/large.jpg").write_bytes(photo_file(12, "JPEG", 40))
    read(pets, tmp_path / "memory")
    limited = read(pets, tmp_path / "memory", max_pixels=30 * 30)
    assert "too many pixels" in set(limited.quarantine["reason"])
    assert_same(limited, read(pets, max_pixels=30 * 30))
    assert len(read(pets, tmp_path / "memory").quarantine) == 1


@pytest.mark.parametrize(
    "harm", [lambda data: data[:-9], lambda data: b"", lambda data: data + b"x"]
)
def test_a_damaged_shard_is_removed_and_its_photos_are_decoded_again(
    pets, tmp_path, caplog, decoded, harm
):
    plain = read(pets, tmp_path / "memory")
    (shard,) = shards(tmp_path / "memory")
    shard.write_bytes(harm(shard.read_bytes()))
    decoded.clear()
    with caplog.at_level(logging.WARNING, "regraft.ingest"):
        assert_same(read(pets, tmp_path / "memory"), plain)
    [warning] = caplog.messages
    assert str(shard) in warning
    assert len(set(decoded)) == 9
    assert_same(read(pets, tmp_path / "memory"), plain)


def test_a_shard_that_is_no_table_is_removed_although_its_name_is_right(pets, tmp_path, caplog):
    folder = (
        tmp_path
        / "memory"
        / memory_module.code_fingerprint(memory_module.CODE_FILES, memory_module.LIBRARIES)
    )
    folder.mkdir(parents=True)
    (folder / f"{facts_module.sha256_of(b'no table')}.parquet").write_bytes(b"no table")
    with caplog.at_level(logging.WARNING, "regraft.ingest"):
        assert_same(read(pets, tmp_path / "memory"), read(pets))
    assert len(caplog.messages) == 1
    assert len(shards(tmp_path / "memory")) == 1


def test_a_memory_that_cannot_be_written_or_read_does_not_end_the_run(
    pets, tmp_path, caplog, monkeypatch
):
    (tmp_path / "file").write_bytes(b"")
    with caplog.at_level(logging.WARNING, "regraft.ingest"):
        assert_same(read(pets, tmp_path / "file"), read(pets))
    assert re.search(rf"{tmp_path}/file\b.*\(.+\)", caplog.messages[-1])

    def refuse(*arguments, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(LocalFileSystem, "ls", refuse)
    with caplog.at_level(logging.WARNING, "regraft.ingest"):
        assert memory_module.load_facts(str(tmp_path / "memory")) == {}
    assert str(tmp_path / "memory") in caplog.messages[-1]
    assert "([Errno 13] Permission denied)" in caplog.messages[-1]


def test_after_a_change_of_code_or_library_all_photos_are_decoded_again(
    pets, tmp_path, decoded, monkeypatch
):
    read(pets, tmp_path / "memory")
    decoded.clear()
    monkeypatch.setattr(memory_module, "LIBRARIES", ("pillow", "imagehash", "numpy"))
    read(pets, tmp_path / "memory")
    assert len(set(decoded)) == 9


def test_the_hash_sees_another_file_and_another_version(monkeypatch):
    fingerprint_module = sys.modules["regraft.data.ingest.code_fingerprint"]
    first = memory_module.code_fingerprint(memory_module.CODE_FILES, memory_module.LIBRARIES)
    assert (
        memory_module.code_fingerprint(memory_module.CODE_FILES[:1], memory_module.LIBRARIES)
        != first
    )
    monkeypatch.setattr(fingerprint_module, "version", lambda library: "another")
    assert (
        memory_module.code_fingerprint(memory_module.CODE_FILES, memory_module.LIBRARIES) != first
    )


def test_a_killed_run_has_written_complete_shards(pets, tmp_path, monkeypatch):
    monkeypatch.setattr(memory_module, "SHARD_PHOTOS", 3)
    read(pets, tmp_path / "memory")
    assert len(shards(tmp_path / "memory")) == 3
    assert len(memory_module.load_facts(str(tmp_path / "memory"))) == 8
