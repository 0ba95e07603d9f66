"""What is listed where: a folder becomes a list of photos, none of them opened yet."""

import os
import unicodedata
from dataclasses import dataclass
from typing import NamedTuple

from regraft.core.errors import ClassVanished, NoPhotos
from regraft.data.ingest.walk import Found, find_files

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
    """One photo as its source names it.

    label: "" = none yet. labelled_at: ISO 8601 in UTC, so that text sorts as time; "" = not said.
    is_late: it lies in the inbox.
    """

    uri: str
    label: str
    split: str = ""
    group: str = ""
    slices: tuple[str, ...] = ()
    labelled_at: str = ""
    is_late: bool = False


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


def printable(name: str) -> str:
    r"""The name with every byte that is not UTF-8 written as an escape.

    >>> printable("caf" + chr(0xDCE9) + ".jpg")
    'caf\\xe9.jpg'
    """
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def list_folder(root: str, *, may_wait: bool = False) -> Listing:
    """The photos in a folder with a folder a class.

    The label is the first folder below the root; photos deeper down belong to that label. If the
    folders right below the root are `train` and at least one of val, valid, validation and test
    (any case, and nothing else but hidden folders and folders without photos), they are splits, and
    the label is the first folder below them.

    Args:
        root: absolute local path or fsspec URL.
        may_wait: photos outside every class folder have no label yet, instead of going into
            quarantine; there may be no photo at all; and a class folder without a file that is a
            photo by its extension puts its files into quarantine, instead of stopping the run.

    Raises:
        NoPhotos: no such folder, nothing in it, no folder a class, or splits beside other folders.
        ClassVanished: a class folder holds files, and none of them is a photo by its extension.
    """
    files = find_files(root)
    candidates = [file for file in files if is_candidate(file)]
    with_splits = _are_splits({file.parts[0] for file in candidates if len(file.parts) > 1})
    _refuse_mixed(root, candidates, with_splits)
    lost = _without_candidates([file for file in files if not _is_litter(file)], with_splits)
    entries = [_entry(file, with_splits, may_wait) for file in candidates]
    if may_wait:
        entries += [_no_photo(file, label) for label, odd in lost.items() for file in odd]
    listing = Listing(
        photos=tuple(entry for entry in entries if isinstance(entry, Listed)),
        quarantined=tuple(entry for entry in entries if isinstance(entry, Quarantined)),
        n_ignored=len(files) - len(entries),
    )
    if not may_wait:
        _refuse_nothing(root, listing)
        _refuse_lost(lost)
    return listing


def is_candidate(file: Found) -> bool:
    """Whether a file is a photo by its extension, and neither hidden nor a system's litter.

    What could not even be listed (`problem`) is one too, so that it is accounted for.
    """
    if _is_litter(file):
        return False
    return bool(file.problem) or _extension(file) in EXTENSIONS


def _is_litter(file: Found) -> bool:
    return any(part.startswith(".") or part.lower() in _LITTER for part in file.parts)


def _extension(file: Found) -> str:
    return os.path.splitext(file.parts[-1])[1].lower()


def _refuse_mixed(root: str, candidates: list[Found], with_splits: bool) -> None:
    """Folders of classes called train and test beside others are splits and a leftover."""
    folders = {file.parts[0] for file in candidates if len(file.parts) > 1}
    with_classes = {file.parts[0].lower() for file in candidates if len(file.parts) > 2}
    splits = {folder.lower() for folder in folders} & SPLITS.keys()
    if with_splits or "train" not in with_classes or len(splits) < 2:
        return
    odd = sorted(printable(folder) for folder in folders if folder.lower() not in SPLITS)
    raise NoPhotos(
        f"Expected only splits ({', '.join(sorted(splits))}) in {root}, found {', '.join(odd)} "
        f"beside them. Move that out if it is no split, or rename the others if all are classes."
    )


def _without_candidates(files: list[Found], with_splits: bool) -> dict[str, list[Found]]:
    """{label: its files} of every class of which each file would be ignored."""
    seen = {_label(file, with_splits) for file in files if is_candidate(file)}
    found: dict[str, list[Found]] = {}
    for file in files:
        if (label := _label(file, with_splits)) not in seen | {""}:
            found.setdefault(label, []).append(file)
    return dict(sorted(found.items()))


def _refuse_lost(lost: dict[str, list[Found]]) -> None:
    """A class of which every file would be ignored is a mistake, not litter."""
    if not lost:
        return
    counts = "; ".join(
        f"{label} ({len(files)} files: {', '.join(sorted({_extension_word(f) for f in files}))})"
        for label, files in lost.items()
    )
    raise ClassVanished(
        f"Expected photos in every class folder, found none in {counts}. Photos are files ending "
        f"in {', '.join(sorted(EXTENSIONS))}. Convert them, or move the folder out."
    )


def _no_photo(file: Found, label: str) -> Quarantined:
    detail = f"{_extension_word(file)}; nor is any other file of this class a photo by its name"
    return Quarantined(printable(file.uri), label, "no photo by its name", detail)


def _extension_word(file: Found) -> str:
    return _extension(file) or "no extension"


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


def _are_splits(folders: set[str]) -> bool:
    names = {folder.lower() for folder in folders}
    return "train" in names and len(names) > 1 and names <= SPLITS.keys()


def _entry(file: Found, with_splits: bool, may_wait: bool) -> Listed | Quarantined:
    folders = file.parts[:-1]
    split = SPLITS[folders[0].lower()] if with_splits and folders else ""
    label = _label(file, with_splits)
    path = printable(file.uri)
    if path != file.uri:
        return Quarantined(path, label, "name is not utf-8", "rename the file or its folder")
    if file.problem:
        return Quarantined(path, label, "unreadable", file.problem)
    if not label and not may_wait:
        return Quarantined(path, "", "no class folder", "it lies outside every class folder")
    return Listed(file.uri, label, split)


def _label(file: Found, with_splits: bool) -> str:
    """The class folder that a file lies in; "" = in none."""
    folders = file.parts[:-1]
    if with_splits:
        folders = folders[1:] if folders and folders[0].lower() in SPLITS else ()
    return unicodedata.normalize("NFC", printable(folders[0])) if folders else ""
