"""Listing of the photos in a CSV or Parquet manifest."""

import os
import unicodedata
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import NamedTuple

from regraft.core.config import IngestConfig
from regraft.core.errors import NoPhotos, UnusablePhoto
from regraft.data.ingest.manifest_rows import ManifestRows, Row, check_columns, open_rows
from regraft.data.ingest.row_locations import RowLocations
from regraft.data.ingest.sources import (
    SPLITS,
    Listed,
    Listing,
    Quarantined,
    clean_label,
    printable,
)

DEFAULT_INGEST = IngestConfig()
_KNOWN = ("image", "label", "split", "group", "labelled_at")
_MAX_LABEL = 255  # characters; the limit of a folder's name
_MAX_QUOTED = 60  # characters of a cell in a message
_INVALID_LABEL = "invalid label"
_LAST_YEAR = 2099  # a later label would override every correction, for ever


class NamedPhoto(NamedTuple):
    """A photo that is named by a user, or by a row of a manifest.

    place: absolute path or URL; for an unusable row its cell, or the row if the cell is empty.
    error: why the row is unusable, None = it is usable.
    cells: of the row, text by column, "" = none.
    """

    place: str
    error: UnusablePhoto | None = None
    cells: Mapping[str, str] = MappingProxyType({})


def is_manifest(place: str) -> bool:
    """Return whether a location is a manifest, by its extension.

    >>> is_manifest("photos.CSV"), is_manifest("photos")
    (True, False)
    """
    return place.lower().endswith((".csv", ".parquet")) and not os.path.isdir(place)


def list_manifest(
    place: str, config: IngestConfig = DEFAULT_INGEST, *, may_wait: bool = False
) -> Listing:
    """Return the photos in a table image,label[,split][,group][,labelled_at][,slice columns].

    A relative image path is relative to the folder of the manifest; RowLocations has the rules
    about other locations. A row that repeats an earlier row counts as repeated. Split names are
    train, val, valid, validation and test, in any case; empty = not given. labelled_at is the time
    of the label as an ISO 8601 date or time, in UTC if it has no time zone; see resolve_labels()
    for several rows of the same photo. A row with an unusable cell goes into quarantine.

    Args:
        place: absolute local path or fsspec URL of a .csv (UTF-8) or .parquet file.
        config: schemes and roots are used.
        may_wait: whether rows may lack a label, and the table may be empty. A last CSV line
            without a line end may be incomplete; with may_wait it goes into quarantine.

    Raises:
        NoPhotos: the file does not exist, or has no rows.
        ManifestError: the file is no table, or lacks the column image or label.
    """
    with open_rows(place, may_wait=may_wait) as rows:
        if not rows.columns and may_wait:
            next(iter(rows), None)
            return Listing((), _unfinished(rows))
        if not rows.columns:
            raise NoPhotos(f"Expected photos in {place}, got no header. Add columns and rows.")
        check_columns(rows, ("image", "label"))
        slice_names = tuple(name for name in rows.columns if name not in _KNOWN)
        locations = RowLocations(place, config)
        listed: dict[tuple[str, str, str], dict[Listed, str]] = {}  # {photo: where it is first}
        quarantined = []
        n_rows = 0
        for row in rows:
            n_rows += 1
            uri = ""
            try:
                uri = _located(row, locations)
                photo = _listed(row, uri, slice_names, may_wait)
            except UnusablePhoto as error:
                quarantined.append(_quarantined(row, uri, error, place))
            else:
                key = (photo.uri, photo.label, photo.labelled_at)
                listed.setdefault(key, {}).setdefault(photo, row.where)
        quarantined += _unfinished(rows)
    if not n_rows and not may_wait:
        raise NoPhotos(f"Expected photos in {place}, got a header and no rows. Add rows.")
    photos = [photo for same in listed.values() if len(same) == 1 for photo in same]
    clashing = [
        entry for same in listed.values() if len(same) > 1 for entry in _clashing(same, place)
    ]
    quarantined += clashing
    n_repeated = n_rows - len(photos) - len(quarantined) + rows.is_cut
    return Listing(
        tuple(photos), tuple(quarantined), n_repeated=n_repeated, slice_names=slice_names
    )


def manifest_photos(
    place: str, config: IngestConfig, *, all_columns: bool = False
) -> Iterator[NamedPhoto]:
    """Yield a photo for each row of a manifest, in order; labels are not needed.

    Args:
        place: as in list_manifest().
        config: schemes and roots are used.
        all_columns: whether the cells of other columns than image are read.

    Raises:
        NoPhotos: the file does not exist.
        ManifestError: the file is no table, or lacks the column image.
    """
    with open_rows(place, columns=() if all_columns else ("image",)) as rows:
        check_columns(rows, ("image",))
        locations = RowLocations(place, config)
        for row in rows:
            try:
                photo = NamedPhoto(_located(row, locations), None, row.cells)
            except UnusablePhoto as error:
                with_line = UnusablePhoto(error.reason, _with_line(error.detail, row.where, place))
                photo = NamedPhoto(_row_name(row, place), with_line, row.cells)
            yield photo


def _listed(row: Row, uri: str, slice_names: tuple[str, ...], may_wait: bool) -> Listed:
    """Return the photo of a row.

    Raises:
        UnusablePhoto: a cell is unusable.
    """
    if printable(uri) != uri:
        raise UnusablePhoto("name is not utf-8", "rename the folder of the manifest")
    label, split = clean_label(row.cells["label"]), row.cells.get("split", "")
    if not label and not may_wait:
        raise UnusablePhoto("no label", "fill the cell")
    if len(label) > _MAX_LABEL or any(unicodedata.category(letter) == "Cc" for letter in label):
        detail = f"expected up to {_MAX_LABEL} characters in a line, got {_quote(label)}"
        raise UnusablePhoto(_INVALID_LABEL, detail)
    if split and split.lower() not in SPLITS:
        detail = f"expected {', '.join(SPLITS)} or an empty cell, got {_quote(split)}"
        raise UnusablePhoto("unknown split", detail)
    return Listed(
        uri=uri,
        label=label,
        split=SPLITS[split.lower()] if split else "",
        group=row.cells.get("group", ""),
        slices=tuple(row.cells[name] for name in slice_names),
        labelled_at=_in_utc(row.cells.get("labelled_at", "")),
    )


def _located(row: Row, locations: RowLocations) -> str:
    if row.reason:
        raise UnusablePhoto(row.reason, row.detail)
    if not row.cells["image"]:
        raise UnusablePhoto("no image", "fill the cell")
    return locations.locate(row.cells["image"])


def _in_utc(text: str) -> str:
    if not text:
        return ""
    try:
        time = datetime.fromisoformat(text)
        in_utc = time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        detail = f"expected an ISO 8601 date or time such as 2026-03-29T14:05, got {_quote(text)}"
        raise UnusablePhoto("invalid labelled_at", detail) from None
    if in_utc.year > _LAST_YEAR:
        detail = f"expected a year up to {_LAST_YEAR}, got {_quote(text)}"
        raise UnusablePhoto("invalid labelled_at", detail)
    return in_utc.isoformat(timespec="microseconds")


def _quote(text: str) -> str:
    return repr(text[:_MAX_QUOTED]) + ("..." if len(text) > _MAX_QUOTED else "")


def _row_name(row: Row, place: str) -> str:
    return printable(row.cells.get("image", "") or f"{place}, {row.where}")


def _with_line(detail: str, where: str, place: str) -> str:
    return printable(f"{detail} ({where} of {os.path.basename(place)})")


def _quarantined(row: Row, uri: str, error: UnusablePhoto, place: str) -> Quarantined:
    # A cell that may be no label names no class, whose photos would all be missing.
    has_label = not row.reason and error.reason != _INVALID_LABEL
    return Quarantined(
        path=printable(uri) or _row_name(row, place),
        label=clean_label(row.cells["label"]) if has_label else "",
        reason=error.reason,
        detail=_with_line(error.detail, row.where, place),
    )


def _clashing(same: dict[Listed, str], place: str) -> Iterator[Quarantined]:
    """Yield an entry for each row of the same image, label and time that differs elsewhere."""
    for photo, where in same.items():
        other = next(line for line in same.values() if line != where)
        detail = f"{other} has the same label, but another split, group or other column"
        detail = _with_line(detail, where, place)
        yield Quarantined(photo.uri, photo.label, "contradicting rows", detail)


def _unfinished(rows: ManifestRows) -> tuple[Quarantined, ...]:
    """Return the quarantine entry for an incomplete last line, which may still be being written."""
    if not rows.is_cut:
        return ()
    detail = "the last line has no line end and may be incomplete; it is used once it has one"
    return (Quarantined(printable(rows.place), "", "unfinished line", detail),)
