"""Listing of the photos in a folder, without opening them."""

import unicodedata
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Literal, NamedTuple

from regraft.core.errors import ClassVanished, NoPhotos, UnusablePhoto
from regraft.core.text import format_count
from regraft.data.ingest.decode import is_lfs_pointer, read_head
from regraft.data.ingest.formats import (
    PHOTO_EXTENSIONS,
    READ_EXTENSIONS,
    extension_of,
    format_of,
)
from regraft.data.ingest.walk import FileEntry, find_files

PHOTO_FILES = (
    f"files with an extension of {', '.join(sorted(READ_EXTENSIONS))}, and files without an "
    f"extension that contain such an image"
)
SPLITS = {
    "train": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
}
_N_THREADS = 16  # for the content of remote files, which takes a request each; guess
_N_AHEAD = 1000  # files whose content is read before the first is yielded; guess
LabelFrom = Literal["top", "leaf", "path"]
_SYSTEM_FILES = frozenset(("thumbs.db", "desktop.ini", "__macosx", "@eadir", "$recycle.bin"))


class Listed(NamedTuple):
    """A photo in a folder or manifest.

    uri: absolute local path or fsspec URL. label: "" = none yet. split: train, validation, test or
    "" = not given. group: "" = none. slices: cells of the slice columns. labelled_at: time of the
    label, ISO 8601 in UTC, so that the text order is the time order; "" = unknown. is_late: whether
    the photo is in the inbox.
    """

    uri: str
    label: str
    split: str = ""
    group: str = ""
    slices: tuple[str, ...] = ()
    labelled_at: str = ""
    is_late: bool = False


class Quarantined(NamedTuple):
    """A file that is not used, with the reason; the fields are columns of the quarantine table."""

    path: str
    label: str
    reason: str
    detail: str


@dataclass(frozen=True)
class Listing:
    """The content of a folder or manifest.

    Attributes:
        photos: in any order.
        quarantined: files that are unusable according to their names or rows.
        n_ignored: hidden files and non-images.
        n_repeated: repeated manifest rows.
        slice_names: the manifest's extra columns, in the order of Listed.slices.
        notes: decisions that the user did not make, a sentence each.
    """

    photos: tuple[Listed, ...]
    quarantined: tuple[Quarantined, ...] = ()
    n_ignored: int = 0
    n_repeated: int = 0
    slice_names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Layout:
    """How the folders name the classes.

    with_splits: whether the first folders are splits.
    """

    with_splits: bool
    label_from: LabelFrom

    def label(self, file: FileEntry) -> str:
        """Return the class of a file; "" = none."""
        folders = self._class_folders(file)
        if not folders:
            return ""
        named = {"top": folders[:1], "leaf": folders[-1:], "path": folders}[self.label_from]
        return "/".join(named)

    def notes(self, photos: Iterable[FileEntry]) -> tuple[str, ...]:
        """Return a note if several folders with photos become one class."""
        classes: dict[str, set[tuple[str, ...]]] = {}
        for file in photos:
            if label := self.label(file):
                classes.setdefault(label, set()).add(self._class_folders(file))
        n_folders = sum(len(folders) for folders in classes.values())
        if n_folders == len(classes) or self.label_from == "path":
            return ()
        label, most = max(classes.items(), key=lambda item: len(item[1]))
        others = "leaf or path" if self.label_from == "top" else "path"
        return (
            f"{n_folders} folders with photos were read as {len(classes)} classes (most in "
            f"{label!r}: {len(most)}), because ingest.label_from={self.label_from}. If each folder "
            f"is a class, set it to {others}.",
        )

    def _class_folders(self, file: FileEntry) -> tuple[str, ...]:
        folders = file.parts[:-1]
        if self.with_splits:
            folders = folders[1:] if folders and folders[0].lower() in SPLITS else ()
        return tuple(clean_label(printable(name)) for name in folders)


def printable(name: str) -> str:
    r"""Return the name with every byte that is not UTF-8 written as an escape.

    >>> printable("caf" + chr(0xDCE9) + ".jpg")
    'caf\\xe9.jpg'
    """
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def clean_label(text: str) -> str:
    r"""Return the label that a folder's name or a cell means.

    >>> clean_label(" cafe\u0301 ")
    'café'
    """
    return unicodedata.normalize("NFC", text).strip()


def similar_labels(labels: Iterable[str]) -> tuple[tuple[str, ...], ...]:
    """Return the groups of labels that differ only in case, width or blanks, each sorted.

    >>> similar_labels(["Cat", "cat", "dog", "hot dog", "hot  dog"])
    (('Cat', 'cat'), ('hot  dog', 'hot dog'))
    """
    groups: dict[str, list[str]] = {}
    for label in sorted(set(labels)):
        key = " ".join(unicodedata.normalize("NFKC", label).casefold().split())
        groups.setdefault(key, []).append(label)
    return tuple(tuple(group) for group in groups.values() if len(group) > 1)


def list_folder(root: str, *, may_wait: bool = False, label_from: LabelFrom = "top") -> Listing:
    """Return the photos in a folder with one folder per class.

    The label is the first folder below the root; photos in deeper folders have the same label,
    unless label_from says otherwise. If the folders directly below the root are `train` and at
    least one of val, valid, validation and test (in any case; hidden folders and folders without
    photos are ignored), they are splits, and the label is the first folder below them.

    Args:
        root: absolute local path or fsspec URL.
        may_wait: whether photos outside class folders are listed without a label, instead of being
            quarantined. The folder may then be empty, and the files of a class folder without any
            photo are quarantined, instead of stopping the run.
        label_from: as in IngestConfig.

    Raises:
        NoPhotos: the folder does not exist, has no photos or no class folders, or contains both
            splits and other folders.
        ClassVanished: a class folder contains files, but no photo.
    """
    files = find_files(root)
    candidates = list(select_photos(files))
    with_splits = _are_splits({file.parts[0] for file in candidates if len(file.parts) > 1})
    _refuse_mixed(root, candidates, with_splits)
    visible = [file for file in files if not _is_system_file(file)]
    layout = _Layout(with_splits, label_from)
    lost = _classes_without_photos(visible, candidates, layout)
    entries = [_entry(file, layout, may_wait) for file in candidates]
    if may_wait:
        entries += [_not_a_photo(file, label) for label, group in lost.items() for file in group]
    listing = Listing(
        photos=tuple(entry for entry in entries if isinstance(entry, Listed)),
        quarantined=tuple(entry for entry in entries if isinstance(entry, Quarantined)),
        n_ignored=len(files) - len(entries),
        notes=layout.notes(candidates),
    )
    if not may_wait:
        _refuse_nothing(root, listing)
        _refuse_lost(lost)
    return listing


def select_photos(files: Iterable[FileEntry]) -> Iterator[FileEntry]:
    """Yield the files that are photos, in order: neither hidden nor a system file.

    A file with an extension is a photo by its extension, also if Regraft does not read the format,
    so that no photo is left out without a word. A file without an extension is a photo by its
    first bytes; a Git LFS pointer and a file that cannot be opened count too. So does a file or
    folder that could not be listed (`problem`).
    """
    remaining = iter(files)
    with ThreadPoolExecutor(_N_THREADS) as pool:
        while chunk := list(islice(remaining, _N_AHEAD)):
            visible = [file for file in chunk if not _is_system_file(file)]
            unnamed = [file.uri for file in visible if not file.problem and not _extension(file)]
            by_content = dict(zip(unnamed, pool.map(_contains_photo, unnamed), strict=True))
            for file in visible:
                is_named = bool(file.problem) or _extension(file) in PHOTO_EXTENSIONS
                if is_named or by_content.get(file.uri):
                    yield file


def _contains_photo(uri: str) -> bool:
    try:
        head = read_head(uri)
    except UnusablePhoto:
        return True
    return format_of(head) is not None or is_lfs_pointer(head)


def _is_system_file(file: FileEntry) -> bool:
    return any(part.startswith(".") or part.lower() in _SYSTEM_FILES for part in file.parts)


def _extension(file: FileEntry) -> str:
    return extension_of(file.parts[-1])


def _refuse_mixed(root: str, candidates: list[FileEntry], with_splits: bool) -> None:
    """Raise NoPhotos if the folder contains both splits and other folders."""
    folders = {file.parts[0] for file in candidates if len(file.parts) > 1}
    with_classes = {file.parts[0].lower() for file in candidates if len(file.parts) > 2}
    splits = {folder.lower() for folder in folders} & SPLITS.keys()
    if with_splits or "train" not in with_classes or len(splits) < 2:
        return
    odd = sorted(printable(folder) for folder in folders if folder.lower() not in SPLITS)
    raise NoPhotos(
        f"Expected only splits ({', '.join(sorted(splits))}) in {root}, got {', '.join(odd)} too. "
        f"Move the other folders out, or rename the splits if all folders are classes."
    )


def _classes_without_photos(
    files: list[FileEntry], candidates: list[FileEntry], layout: _Layout
) -> dict[str, list[FileEntry]]:
    """Return {label: files} of each class whose files would all be ignored.

    A folder above others with photos is no class of its own.
    """
    seen = {layout.label(file) for file in candidates}
    above = {file.parts[:n] for file in candidates for n in range(len(file.parts))}
    lost: dict[str, list[FileEntry]] = {}
    for file in files:
        if (label := layout.label(file)) not in seen | {""} and file.parts[:-1] not in above:
            lost.setdefault(label, []).append(file)
    return dict(sorted(lost.items()))


def _refuse_lost(lost: dict[str, list[FileEntry]]) -> None:
    """Raise ClassVanished if all files of a class would be ignored, which is a mistake."""
    if not lost:
        return
    extensions = {
        label: ", ".join(sorted({_extension_text(file) for file in files}))
        for label, files in lost.items()
    }
    counts = "; ".join(
        f"{label} ({format_count(len(files), 'file')}: {extensions[label]})"
        for label, files in lost.items()
    )
    raise ClassVanished(
        f"Expected photos in every class folder, got none in {counts}. Photos are {PHOTO_FILES}. "
        f"Convert the files, or move the folder out."
    )


def _not_a_photo(file: FileEntry, label: str) -> Quarantined:
    detail = f"{_extension_text(file)}; no file of this class is a photo by extension or content"
    return Quarantined(printable(file.uri), label, "no photo", detail)


def _extension_text(file: FileEntry) -> str:
    return _extension(file) or "no extension"


def _refuse_nothing(root: str, listing: Listing) -> None:
    if listing.photos:
        return
    reasons = {entry.reason for entry in listing.quarantined}
    if reasons == {"no class folder"}:
        raise NoPhotos(
            f"Expected one folder per class in {root}, got "
            f"{format_count(len(listing.quarantined), 'photo')} "
            f"without a class folder. Make a folder for each class, or write a manifest "
            f"(image,label)."
        )
    if not reasons:
        others = format_count(listing.n_ignored, "other file")
        raise NoPhotos(
            f"Expected photos in {root}, got none ({others}). Photos are "
            f"{PHOTO_FILES}. Check the folder."
        )


def _are_splits(folders: set[str]) -> bool:
    names = {folder.lower() for folder in folders}
    return "train" in names and len(names) > 1 and names <= SPLITS.keys()


def _entry(file: FileEntry, layout: _Layout, may_wait: bool) -> Listed | Quarantined:
    folders = file.parts[:-1]
    split = SPLITS[folders[0].lower()] if layout.with_splits and folders else ""
    label = layout.label(file)
    path = printable(file.uri)
    if path != file.uri:
        return Quarantined(path, label, "name is not utf-8", "rename the file or its folder")
    if file.problem:
        return Quarantined(path, label, "unreadable", file.problem)
    if not label and not may_wait:
        return Quarantined(path, "", "no class folder", "the file is outside every class folder")
    return Listed(file.uri, label, split)
