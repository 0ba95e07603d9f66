"""Listing of the photos in a folder, without opening them."""

import os
import unicodedata
from dataclasses import dataclass
from typing import NamedTuple

from regraft.core.errors import ClassVanished, NoPhotos
from regraft.data.ingest.walk import FileEntry, find_files

EXTENSIONS = frozenset(
    {
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".mpo",
        ".png",
        ".webp",
        ".gif",
        ".bmp",
        ".dib",
        ".tif",
        ".tiff",
    }
)
SPLITS = {
    "train": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
}
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
        n_ignored: hidden files, non-images and repeated manifest rows.
        slice_names: the manifest's extra columns, in the order of Listed.slices.
    """

    photos: tuple[Listed, ...]
    quarantined: tuple[Quarantined, ...] = ()
    n_ignored: int = 0
    slice_names: tuple[str, ...] = ()


def printable(name: str) -> str:
    r"""Return the name with every byte that is not UTF-8 written as an escape.

    >>> printable("caf" + chr(0xDCE9) + ".jpg")
    'caf\\xe9.jpg'
    """
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def list_folder(root: str, *, may_wait: bool = False) -> Listing:
    """Return the photos in a folder with one folder per class.

    The label is the first folder below the root; photos in deeper folders have the same label. If
    the folders directly below the root are `train` and at least one of val, valid, validation and
    test (in any case; hidden folders and folders without photos are ignored), they are splits, and
    the label is the first folder below them.

    Args:
        root: absolute local path or fsspec URL.
        may_wait: whether photos outside class folders are listed without a label, instead of being
            quarantined. The folder may then be empty, and the files of a class folder without any
            photo extension are quarantined, instead of stopping the run.

    Raises:
        NoPhotos: the folder does not exist, has no photos or no class folders, or contains both
            splits and other folders.
        ClassVanished: a class folder contains files, but no file with a photo extension.
    """
    files = find_files(root)
    candidates = [file for file in files if is_candidate(file)]
    with_splits = _are_splits({file.parts[0] for file in candidates if len(file.parts) > 1})
    _refuse_mixed(root, candidates, with_splits)
    visible = [file for file in files if not _is_system_file(file)]
    lost = _classes_without_photos(visible, with_splits)
    entries = [_entry(file, with_splits, may_wait) for file in candidates]
    if may_wait:
        entries += [_not_a_photo(file, label) for label, group in lost.items() for file in group]
    listing = Listing(
        photos=tuple(entry for entry in entries if isinstance(entry, Listed)),
        quarantined=tuple(entry for entry in entries if isinstance(entry, Quarantined)),
        n_ignored=len(files) - len(entries),
    )
    if not may_wait:
        _refuse_nothing(root, listing)
        _refuse_lost(lost)
    return listing


def is_candidate(file: FileEntry) -> bool:
    """Return whether a file is a photo by its extension, and neither hidden nor a system file.

    A file or folder that could not be listed (`problem`) counts too, so that it is reported.
    """
    if _is_system_file(file):
        return False
    return bool(file.problem) or _extension(file) in EXTENSIONS


def _is_system_file(file: FileEntry) -> bool:
    return any(part.startswith(".") or part.lower() in _SYSTEM_FILES for part in file.parts)


def _extension(file: FileEntry) -> str:
    return os.path.splitext(file.parts[-1])[1].lower()


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
    files: list[FileEntry], with_splits: bool
) -> dict[str, list[FileEntry]]:
    """Return {label: files} of each class whose files would all be ignored."""
    seen = {_label(file, with_splits) for file in files if is_candidate(file)}
    lost: dict[str, list[FileEntry]] = {}
    for file in files:
        if (label := _label(file, with_splits)) not in seen | {""}:
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
        f"{label} ({len(files)} files: {extensions[label]})" for label, files in lost.items()
    )
    raise ClassVanished(
        f"Expected photos in every class folder, got none in {counts}. Photos are files with an "
        f"extension of {', '.join(sorted(EXTENSIONS))}. Convert the files, or move the folder out."
    )


def _not_a_photo(file: FileEntry, label: str) -> Quarantined:
    detail = f"{_extension_text(file)}; no file of this class has a photo extension"
    return Quarantined(printable(file.uri), label, "no photo extension", detail)


def _extension_text(file: FileEntry) -> str:
    return _extension(file) or "no extension"


def _refuse_nothing(root: str, listing: Listing) -> None:
    if listing.photos:
        return
    reasons = {entry.reason for entry in listing.quarantined}
    if reasons == {"no class folder"}:
        raise NoPhotos(
            f"Expected one folder per class in {root}, got {len(listing.quarantined)} photos "
            f"without a class folder. Make a folder for each class, or write a manifest "
            f"(image,label)."
        )
    if not reasons:
        raise NoPhotos(
            f"Expected photos in {root}, got none ({listing.n_ignored} other files). Photos are "
            f"files with an extension of {', '.join(sorted(EXTENSIONS))}. Check the folder."
        )


def _are_splits(folders: set[str]) -> bool:
    names = {folder.lower() for folder in folders}
    return "train" in names and len(names) > 1 and names <= SPLITS.keys()


def _entry(file: FileEntry, with_splits: bool, may_wait: bool) -> Listed | Quarantined:
    folders = file.parts[:-1]
    split = SPLITS[folders[0].lower()] if with_splits and folders else ""
    label = _label(file, with_splits)
    path = printable(file.uri)
    if path != file.uri:
        return Quarantined(path, label, "name is not utf-8", "rename the file or its folder")
    if file.problem:
        return Quarantined(path, label, "unreadable", file.problem)
    if not label and not may_wait:
        return Quarantined(path, "", "no class folder", "the file is outside every class folder")
    return Listed(file.uri, label, split)


def _label(file: FileEntry, with_splits: bool) -> str:
    """Return the class folder of a file; "" = none."""
    folders = file.parts[:-1]
    if with_splits:
        folders = folders[1:] if folders and folders[0].lower() in SPLITS else ()
    return unicodedata.normalize("NFC", printable(folders[0])) if folders else ""
