"""Every file below a folder, one after the other."""

import difflib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from regraft.core.errors import NoPhotos
from regraft.core.files import access_errors, filesystem, is_url

MISSING = "missing"  # the stamp of a file that is named, and not there
_Above = frozenset[tuple[int, int]]  # (device, inode) of a folder and of all that it lies in


class Found(NamedTuple):
    """One file below a root: its parts from the root down, where it is, and its state.

    stamp: changes when the file does; never read as anything but text.
    problem: why it could not even be listed, "" if it could.
    """

    parts: tuple[str, ...]
    uri: str
    stamp: str
    problem: str = ""


def find_files(root: str) -> list[Found]:
    """Every file below a folder, hidden ones too, sorted by path.

    Args:
        root: absolute local path or fsspec URL, as `absolute` gives it.

    Raises:
        NoPhotos: there is no such folder; names a sibling of nearly that name.
    """
    files = _find_remote(root) if is_url(root) else walk_local(root)
    return sorted(files, key=lambda file: file.parts)


def walk_files(root: str) -> Iterator[Found]:
    """As find_files(), in no order and never all of them at once.

    Behind a URL it asks once a folder, where find_files() asks for the whole.
    """
    return _walk_remote(root) if is_url(root) else walk_local(root)


def walk_local(root: str) -> Iterator[Found]:
    """Every file below a folder of this machine, in no order.

    Links are followed, but not back up. A folder that cannot be read comes with its `problem`.

    Raises:
        NoPhotos: as find_files().
    """
    if not os.path.isdir(root):
        raise NoPhotos(f"Expected a folder at {root}, found none. {_sibling_hint(Path(root))}")
    pending: list[tuple[str, tuple[str, ...], _Above]] = [(root, (), frozenset())]
    while pending:
        folder, parts, above = pending.pop()
        try:
            state = os.stat(folder)
            here = above | {(state.st_dev, state.st_ino)}
            with os.scandir(folder) as names:
                for name in names:
                    found = _found(name, parts)
                    if isinstance(found, Found):
                        yield found
                    elif found and found not in here:
                        pending.append((name.path, (*parts, name.name), here))
        except OSError as error:
            said = f"a folder that cannot be read: {error.strerror}"
            yield Found((*parts, ""), folder, MISSING, said)


def stamp_of(uri: str) -> str:
    """What changes when the file does; MISSING if it cannot be seen.

    Args:
        uri: local path or fsspec URL.
    """
    try:
        if is_url(uri):
            fs, path = filesystem(uri)
            return str(fs.ukey(path))
        return _stamp(os.stat(uri))
    except access_errors():
        return MISSING
    except ValueError:  # no path or URL at all: a port of 99999, a zero byte
        return MISSING


def _stamp(state: os.stat_result) -> str:
    return f"{state.st_size}:{state.st_mtime_ns}"


def _found(name: "os.DirEntry[str]", parts: tuple[str, ...]) -> Found | tuple[int, int] | None:
    """A file; of a folder its identity; None for a socket and the like."""
    try:
        state = name.stat()
    except OSError:  # a dangling or looping link: named, and found missing when it is read
        return Found((*parts, name.name), name.path, MISSING)
    if stat.S_ISREG(state.st_mode):
        return Found((*parts, name.name), name.path, _stamp(state))
    return (state.st_dev, state.st_ino) if stat.S_ISDIR(state.st_mode) else None


def _find_remote(root: str) -> Iterator[Found]:
    fs, top = filesystem(root)
    details: dict[str, dict[str, Any]] = fs.find(top, detail=True)
    if not details and not fs.exists(top):
        raise NoPhotos(f"Expected a folder at {root}, found nothing there. Check the address.")
    for path, info in details.items():
        parts = tuple(path.removeprefix(top.rstrip("/")).strip("/").split("/"))
        yield Found(parts, fs.unstrip_protocol(path), _told(info))


def _walk_remote(root: str) -> Iterator[Found]:
    fs, top = filesystem(root)
    fs.invalidate_cache(top)
    for folder, _, files in fs.walk(top, detail=True):
        below = folder.removeprefix(top).strip("/")
        parts = tuple(below.split("/")) if below else ()
        for name, info in files.items():
            yield Found((*parts, name), fs.unstrip_protocol(info["name"]), _told(info))
        fs.invalidate_cache(folder)  # else it remembers every folder it has seen


def _told(info: dict[str, Any]) -> str:
    return str(sorted(info.items(), key=str))


def _sibling_hint(path: Path) -> str:
    siblings = os.listdir(path.parent) if path.parent.is_dir() else []
    near = difflib.get_close_matches(path.name, siblings, n=1)
    return f"Did you mean {path.parent / near[0]}?" if near else "Check the spelling."
