"""A full disk is one error with the path and the space, in whichever words a library reports it."""

import errno
import os
import resource
import subprocess
import sys
from contextlib import contextmanager

import pytest

from regraft.cli import main
from regraft.core.disk import find_full_disk
from regraft.core.errors import DiskFull, ReloadMismatch, StateError
from regraft.core.files import write_atomic
from regraft.core.state import open_state, reported_faults

MIB = 2**20


@contextmanager
def small_disk(folder, n_bytes: int):
    """Mount a real file system of n_bytes at the folder."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={n_bytes}", "tmpfs", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except FileNotFoundError as error:
        pytest.skip(f"no mount on this machine: {error}")
    if done.returncode:
        pytest.skip(f"this user may not mount a file system: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True, timeout=10)


def test_a_file_that_does_not_fit_is_refused_with_its_path_and_size(tmp_path):
    with small_disk(tmp_path / "disk", MIB) as disk:
        write_atomic(str(disk / "file"), b"old")
        with pytest.raises(DiskFull, match=r"Expected 3\.0 MiB .*/disk/file, got \d.* (KiB|MiB)"):
            write_atomic(str(disk / "file"), bytes(3 * MIB))
        assert (disk / "file").read_bytes() == b"old"
        assert os.listdir(disk) == ["file"]


def test_a_state_folder_on_a_full_disk_is_refused(tmp_path):
    with small_disk(tmp_path / "disk", MIB) as disk:
        with pytest.raises(OSError, match="No space"), (disk / "filler").open("wb") as file:
            file.write(bytes(2 * MIB))
        with pytest.raises(StateError, match=rf"{disk}/state.*(free space|No space)"):
            open_state(disk / "state")


@pytest.mark.parametrize("library", ["sqlite", "parquet", "safetensors", "shutil"])
def test_each_library_on_a_full_disk_is_the_same_error(tmp_path, library):
    source = tmp_path / "source"
    source.write_bytes(bytes(3 * MIB))
    with small_disk(tmp_path / "disk", MIB) as disk:
        with pytest.raises(DiskFull, match=r" of free space for /") as caught, reported_faults():
            write_too_much(library, disk / "file", source)
        if library == "shutil":
            assert str(disk) in str(caught.value)


def write_too_much(library: str, path, source):
    """Write 3 MB."""
    if library == "sqlite":
        import sqlite3
        from contextlib import closing

        with closing(sqlite3.connect(path)) as connection:
            connection.execute("CREATE TABLE t AS SELECT zeroblob(?)", (3 * MIB,))
            connection.commit()
    elif library == "parquet":
        import pandas as pd

        pd.DataFrame({"a": [os.urandom(3 * MIB)]}).to_parquet(path)
    elif library == "safetensors":
        import torch
        from safetensors.torch import save_file

        save_file({"a": torch.zeros(3 * MIB // 4)}, path)
    else:
        import shutil

        shutil.copyfile(source, path)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_the_command_line_ends_with_7_and_no_traceback(tmp_path, monkeypatch, capsys, number):
    def fail(*_: object):
        try:
            raise OSError(number, os.strerror(number), str(tmp_path / "weights"))
        except OSError as error:
            raise RuntimeError("a library gave up") from error

    monkeypatch.setattr("regraft.cli.config.load_config", fail)
    monkeypatch.setattr(sys, "argv", ["regraft", "config", "show"])
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 7
    said = capsys.readouterr().err
    assert said.startswith("DiskFull: Expected 2.0 GiB of free space for ")
    assert f"{tmp_path}/weights" in said
    assert os.strerror(number) in said


def test_a_check_that_a_full_disk_failed_is_the_full_disk():
    assert find_full_disk(ReloadMismatch("it cannot be used: No space left on device"), None)
    assert find_full_disk(ReloadMismatch("it cannot be used: the file is short"), None) is None


def test_code_that_continues_without_a_file_continues_without_space(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            write_atomic(str(tmp_path / "file"), bytes(2000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert isinstance(caught.value, DiskFull)
