"""Files are written completely or not at all, local and remote."""

import os
import resource
from contextlib import contextmanager

import fsspec
import pytest

from regraft.core.files import (
    filesystem,
    list_files,
    read_files,
    write_atomic,
    write_if_absent,
)

PLACES = ("{folder}/deep/down/file", "memory://deep/down/file")


@contextmanager
def full_disk(n_bytes=1000):
    """Limit the file size to n_bytes, so that the system refuses a write in the middle."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def content(url):
    fs, path = filesystem(url)
    return fs.cat_file(path)


@pytest.fixture(params=PLACES, ids=["local", "url"])
def place(request, tmp_path):
    yield request.param.format(folder=tmp_path)
    fsspec.filesystem("memory").store.clear()


def test_a_file_is_replaced_as_a_whole(place):
    write_atomic(place, b"long and old")
    write_atomic(place, b"new")
    assert content(place) == b"new"


def test_what_is_written_once_is_left_alone(place):
    write_if_absent(place, b"first")
    write_if_absent(place, b"second")
    assert content(place) == b"first"


def test_a_full_disk_leaves_the_old_file_and_no_part_of_the_new(tmp_path):
    place = tmp_path / "file"
    write_atomic(str(place), b"old")
    with full_disk(), pytest.raises(OSError, match="too large"):
        write_atomic(str(place), bytes(2000))
    assert place.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_files_are_read_in_the_given_order_whatever_their_names_mean_in_a_pattern(place):
    folder = f"{place.rpartition('/')[0]}/run [2026] *"
    for name in ("1.txt", "2.txt", "3.txt"):
        write_atomic(f"{folder}/{name}", name.encode())
    fs, paths = list_files(folder, ".txt")
    assert read_files(fs, paths[::-1]) == [b"3.txt", b"2.txt", b"1.txt"]
    with pytest.raises(FileNotFoundError):
        read_files(fs, [*paths, f"{paths[0]}.gone"])


def test_a_folder_is_listed_whatever_its_name_means_in_a_pattern(place):
    folder = f"{place.rpartition('/')[0]}/run [2026] *"
    assert list_files(folder, ".txt")[1] == []
    for name in ("b.txt", "a.txt", "c.part"):
        write_atomic(f"{folder}/{name}", b"1")
    _, found = list_files(folder, ".txt")
    assert [path.rpartition("/")[2] for path in found] == ["a.txt", "b.txt"]
