"""What is listed where: a folder becomes a list of photos, none of them opened yet."""

import difflib
import os
import stat
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from fsspec.implementations.local import LocalFileSystem

from regraft.errors import NoPhotos
from regraft.ingest.decode import filesystem, is_url

EXTENSIONS = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".webp", ".gif", ".bmp", ".dib")
) | {".tif", ".tiff"}
SPLITS = {
    "train": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
}
_LITTER = frozenset(("thumbs.db", "desktop.ini", "__macosx", "@eadir", "$recycle.bin"))


class Listed(NamedTuple):
    """One photo as its source names it."""

    uri: str
    label: str
    split: str = ""
    group: str = ""
    slices: tuple[str, ...] = ()


class Quarantined(NamedTuple):
    """One file that is not used, and why; the fields are the quarantine table's columns."""

    path: str
    label: str
    reason: str
    detail: str


@dataclass(frozen=True)
class Listing:
    """Everything found at one place.

    Attributes:
        photos: in no particular order.
        quarantined: files known to be unusable without opening them.
        n_ignored: hidden files, non-images and repeated manifest rows.
        slice_names: the manifest's extra columns, in the order of Listed.slices.
    """

    photos: tuple[Listed, ...]
    quarantined: tuple[Quarantined, ...] = ()
    n_ignored: int = 0
    slice_names: tuple[str, ...] = ()


class Found(NamedTuple):
    """One file below a root: its parts from the root down, where it is, and its state."""

    parts: tuple[str, ...]
    uri: str
    stamp: str  # changes when the file does; never read as anything but text
    problem: str = ""


def absolute(place: str) -> str:
    """The place as an fsspec URL, or as an absolute local path."""
    if place.startswith("file://") or not is_url(place):
        local = place.removeprefix("file://")
        return os.path.abspath(os.path.expanduser(local))
    return place.rstrip("/")


def printable(name: str) -> str:
    r"""The name with every byte that is not UTF-8 written as an escape.

    >>> printable("caf" + chr(0xDCE9) + ".jpg")
    'caf\\xe9.jpg'
    """
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def find_files(root: str) -> list[Found]:
    """Every file below a folder, hidden ones too, sorted by path.

    Args:
        root: absolute local path or fsspec URL, as `absolute` gives it.

    Raises:
        NoPhotos: there is no such folder; names a sibling of nearly that name.
    """
    files = _walk_remote(root) if is_url(root) else _walk_local(root)
    return sorted(files, key=lambda file: file.parts)


def list_folder(root: str) -> Listing:
    """The photos in a folder with a folder a class.

    The label is the first folder below the root; photos deeper down belong to that label. If the
    folders right below the root are `train` and at least one of val, valid, validation and test
    (any case, and nothing else but hidden folders), they are splits, and the label is the first
    folder below them.

    Args:
        root: absolute local path or fsspec URL.

    Raises:
        NoPhotos: no such folder, nothing in it, or no folder a class.
    """
    files = find_files(root)
    candidates = [file for file in files if _is_candidate(file)]
    with_splits = _are_splits({file.parts[0] for file in candidates if len(file.parts) > 1})
    entries = [_entry(file, with_splits) for file in candidates]
    listing = Listing(
        photos=tuple(entry for entry in entries if isinstance(entry, Listed)),
        quarantined=tuple(entry for entry in entries if isinstance(entry, Quarantined)),
        n_ignored=len(files) - len(candidates),
    )
    _refuse_nothing(root, listing)
    return listing


def _refuse_nothing(root: str, listing: Listing) -> None:
    if listing.photos:
        return
    reasons = {entry.reason for entry in listing.quarantined}
    if reasons == {"no class folder"}:
        raise NoPhotos(
            f"Expected a folder a class in {root}, found {len(listing.quarantined)} photos but no "
            f"folder around them. Make one folder for each class, or write a manifest "
            f"(image,label)."
        )
    if not reasons:
        raise NoPhotos(
            f"Expected photos in {root}, found none ({listing.n_ignored} other files). Photos are "
            f"files ending in {', '.join(sorted(EXTENSIONS))}."
        )


def _is_candidate(file: Found) -> bool:
    if any(part.startswith(".") or part.lower() in _LITTER for part in file.parts):
        return False
    return bool(file.problem) or os.path.splitext(file.parts[-1])[1].lower() in EXTENSIONS


def _are_splits(folders: set[str]) -> bool:
    names = {folder.lower() for folder in folders}
    return "train" in names and len(names) > 1 and names <= SPLITS.keys()


def _entry(file: Found, with_splits: bool) -> Listed | Quarantined:
    folders = file.parts[:-1]
    split = SPLITS[folders[0].lower()] if with_splits and folders else ""
    labels = folders[1:] if with_splits else folders
    label = unicodedata.normalize("NFC", printable(labels[0])) if labels else ""
    path = printable(file.uri)
    if path != file.uri:
        return Quarantined(path, label, "name is not utf-8", "rename the file or its folder")
    if file.problem:
        return Quarantined(path, label, "unreadable", file.problem)
    if not label:
        return Quarantined(path, "", "no class folder", "it lies outside every class folder")
    return Listed(file.uri, label, split)


def _walk_remote(root: str) -> Iterator[Found]:
    fs, top = filesystem(root)
    details: dict[str, dict[str, Any]] = fs.find(top, detail=True)
    if not details and not fs.exists(top):
        raise NoPhotos(f"Expected a folder at {root}, found nothing there. Check the address.")
    for path, info in details.items():
        parts = tuple(path.removeprefix(top.rstrip("/")).strip("/").split("/"))
        yield Found(parts, fs.unstrip_protocol(path), str(sorted(info.items(), key=str)))


def _walk_local(root: str) -> Iterator[Found]:
    if not os.path.isdir(root):
        raise NoPhotos(f"Expected a folder at {root}, found none. {_sibling_hint(Path(root))}")
    pending: list[tuple[str, tuple[str, ...], frozenset[tuple[int, int]]]] = [
        (root, (), frozenset([_identity(os.stat(root))]))
    ]
    while pending:
        folder, parts, above = pending.pop()
        try:
            names = os.listdir(folder)
        except OSError as error:
            yield Found((*parts, ""), folder, "", f"a folder that cannot be read: {error.strerror}")
            continue
        for name in names:
            path = os.path.join(folder, name)
            state = _state(path)
            if state is None or stat.S_ISREG(state.st_mode):
                stamp = f"{state.st_size}:{state.st_mtime_ns}" if state else "missing"
                yield Found((*parts, name), path, stamp)
            elif stat.S_ISDIR(state.st_mode) and _identity(state) not in above:
                pending.append((path, (*parts, name), above | {_identity(state)}))


def _identity(state: os.stat_result) -> tuple[int, int]:
    """What tells that a link has led back to a folder further up."""
    return state.st_dev, state.st_ino


def _state(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)
    except OSError:  # a dangling or looping link: listed, and found missing when it is read
        return None


def _sibling_hint(path: Path) -> str:
    siblings = os.listdir(path.parent) if path.parent.is_dir() else []
    near = difflib.get_close_matches(path.name, siblings, n=1)
    return f"Did you mean {path.parent / near[0]}?" if near else "Check the spelling."


def write_once(url: str, data: bytes) -> None:
    """A file with these bytes: whole or not at all, and left alone if it is there.

    Args:
        url: local path or fsspec URL, named after its content, so that whoever writes second
            would write the same.
        data: all of it.
    """
    fs, path = filesystem(url)
    if fs.exists(path):
        return
    if not isinstance(fs, LocalFileSystem):
        fs.makedirs(path.rpartition("/")[0], exist_ok=True)
        fs.pipe_file(path, data)  # object stores show an object when it is whole
        return
    os.makedirs(os.path.dirname(path), exist_ok=True)
    part = f"{path}.{os.getpid()}.part"
    Path(part).write_bytes(data)
    os.replace(part, path)
