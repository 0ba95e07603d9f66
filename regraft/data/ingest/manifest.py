"""Listing of the photos in a CSV or Parquet manifest."""

import csv
import difflib
import io
import os
import unicodedata
from datetime import UTC, datetime
from typing import NamedTuple

import pandas as pd
import pyarrow as pa

from regraft.core.errors import ManifestError, NoPhotos, UnusablePhoto
from regraft.core.files import is_url
from regraft.data.ingest.decode import read_bytes
from regraft.data.ingest.sources import SPLITS, Listed, Listing, Quarantined, printable

_KNOWN = ("image", "label", "split", "group", "labelled_at")


class _Table(NamedTuple):
    columns: tuple[str, ...]
    rows: list[tuple[int, list[str]]]  # (line of a CSV file or row of a Parquet file, cells)
    is_cut: bool = False  # the text after the last line end was left out


def is_manifest(place: str) -> bool:
    """Return whether a location is a manifest, by its extension.

    >>> is_manifest("photos.CSV"), is_manifest("photos")
    (True, False)
    """
    return place.lower().endswith((".csv", ".parquet")) and not os.path.isdir(place)


def list_manifest(place: str, *, may_wait: bool = False) -> Listing:
    """Return the photos in a table image,label[,split][,group][,labelled_at][,slice columns].

    A relative image path is relative to the folder of the manifest. A row that repeats an earlier
    row counts as repeated. Split names are train, val, valid, validation and test, in any case;
    empty = not given. labelled_at is the time of the label as an ISO 8601 date or time, in UTC if
    it has no time zone; see resolve_labels() for several rows of the same photo.

    Args:
        place: absolute local path or fsspec URL of a .csv (UTF-8) or .parquet file.
        may_wait: whether rows may lack a label, and the table may be empty. A last CSV line
            without a line end may be incomplete; with may_wait it goes into quarantine.

    Raises:
        NoPhotos: the file does not exist, or has no rows.
        ManifestError: a column, an image or a label is missing, a split is unknown, a labelled_at
            is not a time, or two rows of the same image contradict each other; the message contains
            the line.
    """
    table = _read_table(place, may_wait)
    if may_wait and not table.columns:
        return Listing((), _unfinished(table, place))
    _refuse_columns(table, place)
    slice_names = tuple(column for column in table.columns if column not in _KNOWN)
    unique: dict[tuple[str, str, str], tuple[Listed, int]] = {}
    for line, cells in table.rows:
        row = dict(zip(table.columns, cells, strict=True))
        listed = _listed(row, slice_names, place, line)
        if not listed.label and not may_wait:
            raise ManifestError(_missing_cell("label", place, line))
        key = (listed.uri, listed.label, listed.labelled_at)
        earlier = unique.setdefault(key, (listed, line))
        _refuse_contradiction(listed, line, *earlier, place)
    n_repeated = len(table.rows) - len(unique)
    photos, quarantined = [], [*_unfinished(table, place)]
    for listed, _ in unique.values():
        name = printable(listed.uri)
        if name == listed.uri:
            photos.append(listed)
        else:
            quarantined.append(Quarantined(name, listed.label, "name is not utf-8", "rename it"))
    return Listing(
        tuple(photos), tuple(quarantined), n_repeated=n_repeated, slice_names=slice_names
    )


def _read_table(place: str, may_wait: bool) -> _Table:
    try:
        data = read_bytes(place)
    except UnusablePhoto as error:
        raise NoPhotos(f"Expected a manifest at {place}: {error.detail}. Check the path.") from None
    table = _read_csv(data, place, may_wait) if _is_csv(place) else _read_parquet(data, place)
    if not table.rows and not may_wait:
        raise NoPhotos(f"Expected photos in {place}, got a header and no rows. Add rows.")
    return table


def _read_csv(data: bytes, place: str, may_wait: bool) -> _Table:
    whole = data[: max(data.rfind(b"\n"), data.rfind(b"\r")) + 1] if may_wait else data
    table = _read_whole_csv(whole, place)
    return table._replace(is_cut=len(whole) < len(data))


def _read_whole_csv(data: bytes, place: str) -> _Table:
    # Python's csv module, because pandas reads "NA" as a missing value and hides line numbers.
    try:
        reader = csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True)
        columns = tuple(name.strip() for name in next(reader, []))
        rows = [(reader.line_num, cells) for cells in reader if cells]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ManifestError(
            f"Expected {place} to be a CSV table in UTF-8, got: {error}. Save the file again."
        ) from None
    for line, cells in rows:
        if len(cells) != len(columns):
            raise ManifestError(
                f"Expected {len(columns)} cells as in the header, got {len(cells)} in {place}, "
                f"line {line}. Quote cells that contain a comma."
            )
    return _Table(columns, rows)


def _read_parquet(data: bytes, place: str) -> _Table:
    try:
        frame = pd.read_parquet(io.BytesIO(data))
    except (ValueError, OSError, pa.ArrowException) as error:
        raise ManifestError(
            f"Expected {place} to be a Parquet table, got: {error}. Write the file again."
        ) from None
    text = frame.astype(object).where(frame.notna(), "")
    rows = [
        (number, [str(cell) for cell in cells])
        for number, cells in enumerate(text.itertuples(index=False), start=1)
    ]
    return _Table(tuple(str(name).strip() for name in frame.columns), rows)


def _unfinished(table: _Table, place: str) -> tuple[Quarantined, ...]:
    """Return the quarantine entry for an incomplete last line, which may still be being written."""
    if not table.is_cut:
        return ()
    detail = "the last line has no line end and may be incomplete; it is used once it has one"
    return (Quarantined(printable(place), "", "unfinished line", detail),)


def _is_csv(place: str) -> bool:
    return place.lower().endswith(".csv")


def _line_word(place: str) -> str:
    return "line" if _is_csv(place) else "row"


def _refuse_columns(table: _Table, place: str) -> None:
    names = ",".join(table.columns)
    for column in ("image", "label"):
        if column in table.columns:
            continue
        near = difflib.get_close_matches(column, [name.lower() for name in table.columns], n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise ManifestError(
            f"Expected columns image,label[,split][,group] in {place}, got {names}: "
            f"no {column}{hint}. Rename the column."
        )
    if len(set(table.columns)) < len(table.columns):
        raise ManifestError(
            f"Expected unique column names in {place}, got {names}. Rename or remove a column."
        )


def _listed(row: "dict[str, str]", slice_names: tuple[str, ...], place: str, line: int) -> Listed:
    where = _where(place, line)
    image, label = row["image"].strip(), row["label"].strip()
    split = row.get("split", "").strip()
    if not image:
        raise ManifestError(_missing_cell("image", place, line))
    if split and split.lower() not in SPLITS:
        legal = ", ".join(SPLITS)
        raise ManifestError(
            f"Expected a known split, got {split!r} in {where}. Use {legal}, or an empty cell."
        )
    return Listed(
        uri=_resolve(image, place),
        label=unicodedata.normalize("NFC", label),
        split=SPLITS[split.lower()] if split else "",
        group=row.get("group", "").strip(),
        slices=tuple(row[name].strip() for name in slice_names),
        labelled_at=_in_utc(row.get("labelled_at", "").strip(), where),
    )


def _in_utc(text: str, where: str) -> str:
    if not text:
        return ""
    try:
        time = datetime.fromisoformat(text)
        in_utc = time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise ManifestError(
            f"Expected an ISO 8601 date or time such as 2026-03-29T14:05 in labelled_at, got "
            f"{text!r} in {where}. Correct the cell, or leave it empty."
        ) from None
    return in_utc.isoformat(timespec="microseconds")


def _missing_cell(cell: str, place: str, line: int) -> str:
    return f"Expected an image and a label in {_where(place, line)}, got no {cell}. Fill the cell."


def _where(place: str, line: int) -> str:
    return f"{place}, {_line_word(place)} {line}"


def _resolve(image: str, place: str) -> str:
    if is_url(image) or os.path.isabs(image):
        return image
    folder = place.rpartition("/")[0]
    if is_url(place):
        return f"{folder}/{image.removeprefix('./')}"
    return os.path.normpath(os.path.join(folder, image))


def _refuse_contradiction(
    listed: Listed, line: int, earlier: Listed, earlier_line: int, place: str
) -> None:
    if listed != earlier:
        word = _line_word(place)
        raise ManifestError(
            f"Expected consistent rows of {listed.uri} in {place}, got {word} {earlier_line} and "
            f"{word} {line} with the same label but another split, group or other column. Remove "
            f"one of the rows."
        )
