"""Rows of a CSV or Parquet manifest as text, a few at a time; one reader for all commands."""

import csv
import difflib
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from regraft.core.errors import ManifestError, NoPhotos
from regraft.core.files import filesystem, location_errors
from regraft.data.ingest.sources import printable

if TYPE_CHECKING:
    from _csv import Reader

_BATCH_ROWS = 10_000  # rows of a Parquet file in memory at a time; guess
_MAX_NAMED = 12  # columns that an error lists
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
_OTHER_DELIMITERS = {";": "semicolons", "\t": "tabs", "|": "bars"}


class Row(NamedTuple):
    """A row of a manifest.

    where: "line 3" of a CSV file, or "row 3" of a Parquet file.
    cells: text by column, without blanks at the ends; "" = none. Cells of an unusable row may be
        wrong or missing.
    reason, detail: why the row is unusable, "" = it is usable.
    """

    where: str
    cells: dict[str, str]
    reason: str = ""
    detail: str = ""


@dataclass
class ManifestRows:
    """An open manifest; iterating yields its rows, once.

    columns: names without blanks at the ends; columns without a name are left out.
    is_cut: after the iteration, whether the last line was left out because it may be incomplete.
    """

    place: str
    columns: tuple[str, ...]
    is_cut: bool = False
    _rows: Iterator[Row] = field(default_factory=lambda: iter(()))

    def __iter__(self) -> Iterator[Row]:
        return self._rows


@contextmanager
def open_rows(
    place: str, *, may_wait: bool = False, columns: Sequence[str] = ()
) -> Iterator[ManifestRows]:
    """Yield the open manifest.

    Numbers, times and categories of a Parquet file are read as the text that Python prints, whole
    numbers without a fraction, also in a column of floats (a missing cell turns 3 into 3.0 there).

    Args:
        place: absolute local path or fsspec URL of a .csv (UTF-8) or .parquet file.
        may_wait: whether the file may be empty, and its last CSV line be left out if it has no line
            end.
        columns: the columns of a Parquet file that are read; () = all.

    Raises:
        NoPhotos: the file does not exist.
        ManifestError: the file is no table, a column is missing twice or holds no text, or an
            opened quote is never closed.
    """
    try:
        fs, path = filesystem(place)
        if fs.exists(path) and not fs.isfile(path):  # a pipe would block
            raise NoPhotos(f"Expected a manifest at {place}, got no regular file. Check the path.")
        file = fs.open(path, "rb")
    except location_errors() as error:
        problem = "no such file" if isinstance(error, FileNotFoundError) else str(error)
        raise NoPhotos(f"Expected a manifest at {place}: {problem}. Check the path.") from None
    with file:
        if not place.lower().endswith(".csv"):
            yield _open_parquet(file, place, columns)
            return
        _refuse_utf_16(file, place)
        # A byte that is not UTF-8 becomes a surrogate, and makes its row unusable, not the file.
        with io.TextIOWrapper(file, "utf-8-sig", errors="surrogateescape", newline="") as text:
            yield _open_csv(text, place, may_wait)


def check_columns(rows: ManifestRows, required: Sequence[str]) -> None:
    """Check the names of the columns.

    Raises:
        ManifestError: a required column is missing, or two columns have the same name.
    """
    names = ",".join(rows.columns[:_MAX_NAMED]) + (",..." * (len(rows.columns) > _MAX_NAMED))
    for column in required:
        if column in rows.columns:
            continue
        near = difflib.get_close_matches(column, [name.lower() for name in rows.columns], n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        advice = "Rename the column."
        for delimiter, plural in _OTHER_DELIMITERS.items():
            if len(rows.columns) == 1 and delimiter in names:
                hint, advice = f", separated by {plural}", "Save the table with commas."
        expected = "column" if len(required) == 1 else "columns"
        raise ManifestError(
            f"Expected the {expected} {' and '.join(required)} in {rows.place}, got {names[:200]}: "
            f"no {column}{hint}. {advice}"
        )
    if len(set(rows.columns)) < len(rows.columns):
        raise ManifestError(
            f"Expected unique column names in {rows.place}, got {names}. Rename or remove a column."
        )


# CSV


def _refuse_utf_16(file: IO[bytes], place: str) -> None:
    start = file.read(2)
    file.seek(0)
    if start in _UTF_16:
        raise ManifestError(f"Expected {place} to be a CSV table in UTF-8, got UTF-16. Save again.")


def _open_csv(text: IO[str], place: str, may_wait: bool) -> ManifestRows:
    table = ManifestRows(place, ())
    # Python's csv module, because pandas reads "NA" as a missing value and hides line numbers.
    lines = _whole_lines(text, table) if may_wait else text
    reader = csv.reader(lines, strict=True, skipinitialspace=True)
    try:
        lines_with_text = (cells for cells in reader if any(cell.strip() for cell in cells))
        header = [name.strip() for name in next(lines_with_text, [])]
    except csv.Error as error:
        raise ManifestError(f"Expected a header in {place}, line 1, got: {error}.") from None
    if not _is_utf8("".join(header)):
        raise ManifestError(
            f"Expected {place} to be a CSV table in UTF-8, got another encoding. Save it again."
        )
    table.columns = tuple(name for name in header if name)
    table._rows = _csv_rows(reader, header, table, may_wait)
    return table


def _whole_lines(lines: Iterable[str], table: ManifestRows) -> Iterator[str]:
    """Yield the lines that have a line end."""
    for line in lines:
        if line.endswith(("\n", "\r")):
            yield line
        else:
            table.is_cut = True


def _csv_rows(
    reader: "Reader", header: list[str], table: ManifestRows, may_wait: bool
) -> Iterator[Row]:
    while True:
        first = reader.line_num + 1
        where = f"line {first}"
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            is_end = "unexpected end" in str(error)
            if is_end and may_wait:
                table.is_cut = True
                return
            if is_end or reader.line_num > first:  # it contains other rows
                raise ManifestError(
                    f"Expected a closing quote in {table.place}, {where}, got none ({error} in "
                    f"line {reader.line_num}). Correct the quotes."
                ) from None
            yield Row(where, {}, "malformed row", str(error))
            continue
        if any(cell.strip() for cell in cells):  # otherwise a blank line, perhaps with commas
            yield _csv_row(where, [cell.strip() for cell in cells], header)


def _csv_row(where: str, cells: list[str], header: list[str]) -> Row:
    named = {name: cell for name, cell in zip(header, cells, strict=False) if name}
    if not _is_utf8("".join(cells)):
        return _not_utf8(where, named)
    if len(cells) < len(header) or any(cells[len(header) :]):
        detail = f"expected {len(header)} cells as in the header, got {len(cells)}"
        return Row(where, named, "wrong number of cells", f"{detail}; quote cells with a comma")
    return Row(where, named)


# Parquet


def _open_parquet(file: IO[bytes], place: str, columns: Sequence[str]) -> ManifestRows:
    try:
        table = pq.ParquetFile(file)
        schema = table.schema_arrow
    except (ValueError, OSError, pa.ArrowException) as error:
        raise ManifestError(
            f"Expected {place} to be a Parquet table, got: {error}. Write the file again."
        ) from None
    names = {
        name: name.strip()
        for name in schema.names
        if name.strip() and not name.startswith("__index_level_")  # pandas' row numbers
    }
    if len(set(schema.names)) == len(schema.names):
        names = {name: new for name, new in names.items() if not columns or new in columns}
        for name, new in names.items():
            if table.metadata.num_rows:  # an empty table has any types
                _refuse_type(new, schema.field(name).type, place)
        new_names = tuple(names.values())
    else:
        new_names = tuple(schema.names)  # check_columns() refuses them
    return ManifestRows(place, new_names, _rows=_parquet_rows(table, names, place))


def _parquet_rows(table: pq.ParquetFile, names: dict[str, str], place: str) -> Iterator[Row]:
    number = 0
    batches = table.iter_batches(_BATCH_ROWS, columns=list(names))
    while True:
        try:
            batch = next(batches, None)
            if batch is None:
                return
            columns = [_texts(column) for column in batch.columns]
        except (ValueError, OSError, pa.ArrowException) as error:
            raise ManifestError(
                f"Expected {place} to be a Parquet table, got: {error}. Write the file again."
            ) from None
        order = [names[name] for name in batch.schema.names]
        for at in range(batch.num_rows):
            number += 1
            texts = (column[at] for column in columns)
            cells = dict(zip(order, (text.strip() for text in texts), strict=True))
            is_text = _is_utf8("".join(cells.values()))
            where = f"row {number}"
            yield Row(where, cells) if is_text else _not_utf8(where, cells)


def _refuse_type(name: str, kind: pa.DataType, place: str) -> None:
    """Raise ManifestError for a column that does not hold text, numbers or times."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    is_text = any(check(kind) for check in _TEXT_TYPES)
    if name == "image" and not is_text:
        raise ManifestError(
            f"Expected paths or URLs in the column image of {place}, got {_type_name(kind)}. Write "
            f"each photo to a file, and the path of the file to the column."
        )
    if not is_text and not any(check(kind) for check in _PLAIN_TYPES):
        raise ManifestError(
            f"Expected text, numbers or times in the column {name} of {place}, got "
            f"{_type_name(kind)}. Remove the column."
        )


def _type_name(kind: pa.DataType) -> str:
    text = str(kind)
    is_photo = "binary" in text
    return f"the bytes of photos ({text[:60]})" if is_photo else f"the type {text[:60]}"


def _texts(column: pa.Array) -> list[str]:
    """Return the cells as text; "" = none."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        column = column.dictionary_decode()
        kind = column.type
    if pa.types.is_floating(kind):
        values = column.cast(pa.string()).to_pylist()  # 3.0 is written 3
        return ["" if value in (None, "nan") else value for value in values]
    if any(check(kind) for check in _BYTE_TYPES):
        values = column.cast(pa.large_binary()).to_pylist()
        return ["" if v is None else v.decode("utf-8", "surrogateescape") for v in values]
    if pa.types.is_temporal(kind):
        return [_time_text(value) for value in column]
    return ["" if value is None else str(value) for value in column.to_pylist()]


def _time_text(value: pa.Scalar) -> str:
    try:
        time = value.as_py()
    except (ValueError, OverflowError, LookupError):  # after the year 9999, or an unknown time zone
        return str(value.value)
    return "" if time is None else str(time)


_Check = Callable[[pa.DataType], bool]
_TEXT_TYPES: tuple[_Check, ...] = (
    pa.types.is_string,
    pa.types.is_large_string,
    pa.types.is_string_view,
    pa.types.is_null,
)
_BYTE_TYPES: tuple[_Check, ...] = (
    *_TEXT_TYPES[:3],
    pa.types.is_binary,
    pa.types.is_large_binary,
    pa.types.is_binary_view,
    pa.types.is_fixed_size_binary,
)
_PLAIN_TYPES: tuple[_Check, ...] = (
    *_BYTE_TYPES,
    pa.types.is_integer,
    pa.types.is_floating,
    pa.types.is_boolean,
    pa.types.is_decimal,
    pa.types.is_temporal,
)


def _not_utf8(where: str, cells: dict[str, str]) -> Row:
    shown = {name: printable(cell) for name, cell in cells.items()}
    return Row(where, shown, "row is not utf-8", "save the table in UTF-8")


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
