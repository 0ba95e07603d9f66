"""CSV text that a spreadsheet does not execute.

A spreadsheet computes a cell that begins with =, +, - or @, and skips a tab or a line break before
them; a file name or a label may begin so. Such a text gets an apostrophe in front, the sign for
text in spreadsheets. A number, also one that is written as text, stays as it is. A text that begins
with apostrophes before such a character gets one more, so that reading can remove exactly one.
"""

import csv
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

# Some spreadsheets also compute cells that begin with the full-width forms of the signs.
_ACTIVE = re.compile(
    "'*[=+\\-@\t\r\n\N{FULLWIDTH EQUALS SIGN}\N{FULLWIDTH PLUS SIGN}"
    "\N{FULLWIDTH HYPHEN-MINUS}\N{FULLWIDTH COMMERCIAL AT}]"
)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def csv_text(table: "pd.DataFrame") -> str:
    """Return the table as CSV with a header, without its index; texts are escaped."""
    texts = {
        str(name): column.map(_escaped)
        for name, column in table.items()
        if column.dtype.kind not in "biufcmM"  # numbers and times
    }
    escaped = table.assign(**texts).rename(columns=_escaped)
    text: str = escaped.to_csv(index=False)
    if "\r" in text:  # pandas does not quote it, and readers take it as the end of a line
        text = escaped.to_csv(index=False, quoting=csv.QUOTE_NONNUMERIC)
    return text


def unescaped(cell: str) -> str:
    """Return the text of a cell that csv_text() wrote.

    >>> unescaped("'=1+1"), unescaped("'tis"), unescaped("-3.5")
    ('=1+1', "'tis", '-3.5')
    """
    return cell[1:] if cell.startswith("'") and _ACTIVE.match(cell) else cell


def _escaped(cell: object) -> object:
    if isinstance(cell, str) and _ACTIVE.match(cell) and not _NUMBER.fullmatch(cell):
        return f"'{cell}"
    return cell
