"""Listing of all files below a folder."""

import difflib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from regraft.core.errors import NoPhotos
from regraft.core.files import filesystem, is_url, location_errors

MISSING = "missing"  # the stamp of a file that does not exist
_Above = frozenset[tuple[int, int]]  # (device, inode) of a folder and of its parents


class FileEntry(NamedTuple):
    """A file below a root.

    parts: the path relative to the root. uri: the absolute path or URL.
    stamp: a text that changes with the file; its format is not defined.
    problem: the reason why the file or folder could not be listed, "" = none.
    """

    parts: tuple[str, ...]
    uri: str
    stamp: str
    problem: str = ""


def find_files(root: str) -> list[FileEntry]:
    """Return every file below a folder, including hidden files, sorted by path.

    Args:
        root: absolute local path or fsspec URL, in the format of absolute().

    Raises:
        NoPhotos: the folder does not exist; the message suggests a folder with a similar name.
    """
    files = _find_remote(root) if is_url(root) else walk_local(root)
    return sorted(files, key=lambda file: file.parts)


def walk_files(root: str) -> Iterator[FileEntry]:
    """Yield every file below a folder, in any order; the files are never all in memory.

    For a URL, this function sends a request per folder; find_files() sends a single request.
    """
    return _walk_remote(root) if is_url(root) else walk_local(root)


def walk_local(root: str) -> Iterator[FileEntry]:
    """Yield every file below a folder of this machine, in any order.

    Links are followed, except to a parent folder. An unreadable folder has a `problem`.

    Raises:
        NoPhotos: as in find_files().
    """
    if not os.path.isdir(root):
        raise NoPhotos(f"Expected a folder at {root}, got none. {_sibling_hint(Path(root))}")
    pending: list[tuple[str, tuple[str, ...], _Above]] = [(root, (), frozenset())]
    while pending:
        folder, parts, above = pending.pop()
        try:
            state = os.stat(folder)
            parents = above | {(state.st_dev, state.st_ino)}
            with os.scandir(folder) as children:
                for child in children:
                    entry = _inspect(child, parts)
                    if isinstance(entry, FileEntry):
                        yield entry
                    elif entry and entry not in parents:
                        pending.append((child.path, (*parts, child.name), parents))
        except OSError as error:
            problem = f"the folder cannot be read: {error.strerror}"
            yield FileEntry((*parts, ""), folder, MISSING, problem)


def stamp_of(uri: str) -> str:
    """Return a text that changes with the file; MISSING if the file cannot be accessed.

    Args:
        uri: local path or fsspec URL.
    """
    try:
        if is_url(uri):
            fs, path = filesystem(uri)
            return str(fs.ukey(path))
        return _stamp(os.stat(uri))
    except location_errors():
        return MISSING  # also an invalid path or URL (port 99999, a zero byte), or no driver


def _stamp(state: os.stat_result) -> str:
    return f"{state.st_size}:{state.st_mtime_ns}"


def _inspect(
    child: "os.DirEntry[str]", parts: tuple[str, ...]
) -> FileEntry | tuple[int, int] | None:
    """Return a file, the identity of a folder, or None for sockets and similar."""
    try:
        state = child.stat()
    except OSError:  # a broken or circular link: listed, and reported as missing when it is read
        return FileEntry((*parts, child.name), child.path, MISSING)
    if stat.S_ISREG(state.st_mode):
        return FileEntry((*parts, child.name), child.path, _stamp(state))
    return (state.st_dev, state.st_ino) if stat.S_ISDIR(state.st_mode) else None


def _find_remote(root: str) -> Iterator[FileEntry]:
    fs, top = filesystem(root)
    details: dict[str, dict[str, Any]] = fs.find(top, detail=True)
    if not details and not fs.exists(top):
        raise NoPhotos(f"Expected a folder at {root}, got none. Check the address.")
    for path, info in details.items():
        parts = tuple(path.removeprefix(top.rstrip("/")).strip("/").split("/"))
        yield FileEntry(parts, fs.unstrip_protocol(path), _remote_stamp(info))


def _walk_remote(root: str) -> Iterator[FileEntry]:
    fs, top = filesystem(root)
    fs.invalidate_cache(top)
    for folder, _, files in fs.walk(top, detail=True):
        below = folder.removeprefix(top).strip("/")
        parts = tuple(below.split("/")) if below else ()
        for name, info in files.items():
            uri = fs.unstrip_protocol(info["name"])
            yield FileEntry((*parts, name), uri, _remote_stamp(info))
        fs.invalidate_cache(folder)  # otherwise fsspec caches the listing of every folder


def _remote_stamp(info: dict[str, Any]) -> str:
    return str(sorted(info.items(), key=str))


def _sibling_hint(path: Path) -> str:
    siblings = os.listdir(path.parent) if path.parent.is_dir() else []
    near = difflib.get_close_matches(path.name, siblings, n=1)
    return f"Did you mean {path.parent / near[0]}?" if near else "Check the spelling."
