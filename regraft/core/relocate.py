"""Rewriting of absolute paths in the databases and settings of a moved or copied folder.

ZenML and MLflow write absolute paths into many columns: artifact URIs, log files, the configuration
of the artifact store (as base64 JSON). Without the rewriting, a moved or copied folder would still
read from, or write to, the old folder. The columns differ between versions, so every text value is
checked. Only a complete path matches: /a/b does not match in /a/bc or /mnt/a/b.
"""

import base64
import binascii
import json
import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import yaml

from regraft.core.files import write_atomic

# A path must not start after a name or a slash, because it would be a part of a longer path. The
# exception is the slash that ends the "file://" or "sqlite:///" of a URL.
_START = r"(?:(?<=://)|(?<=:///)|(?<![\w.~%+/\\-]))"
# A path ends at the next slash, at the end of the text, or at a delimiter of JSON or of a URL.
_END = r"(?=/|\Z|[\"\\?#\n\r<>])"
Value = str | bytes | int | float | None  # types of SQLite column values
_BASE64 = re.compile(r"[A-Za-z0-9+/\s]{8,}={0,2}\s*")


def relocate_database(path: Path, old: Path, new: Path) -> int:
    """Replace the path `old` with `new` in an SQLite file; return the number of changed values.

    The change is a single transaction, so an interrupted call changes nothing. A repeated call
    changes nothing.

    Args:
        path: the SQLite file; if it does not exist, the result is 0.
        old: previous absolute path of the folder.
        new: current absolute path of the folder.

    Raises:
        sqlite3.Error: the file is not an SQLite file, or cannot be written.
    """
    if not path.exists():
        return 0
    rewrite = rewriter(old, new)
    with closing(sqlite3.connect(path, timeout=60, isolation_level=None)) as connection:
        connection.create_function("rewrite", 1, rewrite, deterministic=True)
        connection.execute("BEGIN IMMEDIATE")
        n_values = sum(_rewrite_table(connection, table) for table in _tables(connection))
        connection.execute("COMMIT")
    return n_values


def relocate_yaml(path: Path, old: Path, new: Path) -> None:
    """Replace the path `old` with `new` in a YAML file; a missing file is not created.

    The file is parsed as YAML, because YAML folds long lines at spaces.
    """
    if not path.exists():
        return
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    moved = _rewrite_tree(content, rewriter(old, new))
    if moved != content:
        write_atomic(str(path), yaml.safe_dump(moved).encode())


def rewriter(old: Path, new: Path) -> Callable[[Value], Value]:
    """Return a function that replaces the path `old` with `new` in a database value.

    The function replaces the path in plain text, percent-encoded URLs, JSON escapes, bytes and
    base64 JSON. It returns every other value unchanged.

    >>> moved = rewriter(Path("/a/b"), Path("/c d"))
    >>> moved("/a/b/x"), moved("/a/bc"), moved("file:///a/b/x"), moved(7)
    ('/c d/x', '/a/bc', 'file:///c%20d/x', 7)
    """
    replace = _replacer(str(old), str(new))

    def rewrite(value: Value) -> Value:
        if isinstance(value, bytes):
            return _rewrite_bytes(value, replace)
        return _rewrite_text(value, replace) if isinstance(value, str) else value

    return rewrite


def _replacer(old: str, new: str) -> Callable[[str], str]:
    """Return a function that replaces all encodings of the path in a text."""
    forms = {
        f"file://{quote(old)}": f"file://{quote(new)}",
        quote(old): quote(new),
        json.dumps(old)[1:-1]: json.dumps(new)[1:-1],
        old: new,  # last: if the path needs no escape, the forms above are the same text
    }
    # If the copy is inside the original (/a/b to /a/b/c), a second call must not add the prefix
    # again.
    inside = {form: moved.removeprefix(form) for form, moved in forms.items()}
    alternatives = "|".join(
        re.escape(form) + (f"(?!{re.escape(rest)}{_END})" if rest != forms[form] and rest else "")
        for form, rest in inside.items()
    )
    pattern = re.compile(f"{_START}({alternatives}){_END}")
    return lambda text: pattern.sub(lambda match: forms[match[1]], text)


def _rewrite_text(text: str, replace: Callable[[str], str]) -> str:
    moved = replace(text)
    if moved != text or not _BASE64.fullmatch(text):
        return moved
    return _rewrite_base64(text, replace)


def _rewrite_base64(text: str, replace: Callable[[str], str]) -> str:
    try:
        inner = base64.b64decode(text, validate=True).decode("utf-8")
    except (binascii.Error, UnicodeDecodeError):
        return text
    moved = replace(inner)
    return base64.b64encode(moved.encode("utf-8")).decode("ascii") if moved != inner else text


def _rewrite_bytes(value: bytes, replace: Callable[[str], str]) -> bytes:
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError:
        return value
    moved = _rewrite_text(text, replace)
    return moved.encode("utf-8") if moved != text else value


def _rewrite_tree(value: object, rewrite: Callable[[Value], Value]) -> object:
    if isinstance(value, dict):
        return {key: _rewrite_tree(inner, rewrite) for key, inner in value.items()}
    if isinstance(value, list):
        return [_rewrite_tree(inner, rewrite) for inner in value]
    return rewrite(value) if isinstance(value, str) else value


def _tables(connection: sqlite3.Connection) -> list[str]:
    query = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
    return [name for (name,) in connection.execute(query)]


def _rewrite_table(connection: sqlite3.Connection, table: str) -> int:
    columns = [row[1] for row in connection.execute(f"PRAGMA table_info({_quoted(table)})")]
    n_values = 0
    for column in map(_quoted, columns):
        n_values += connection.execute(
            f"UPDATE {_quoted(table)} SET {column} = rewrite({column}) "
            f"WHERE typeof({column}) IN ('text', 'blob') AND rewrite({column}) IS NOT {column}"
        ).rowcount
    return n_values


def _quoted(identifier: str) -> str:
    return '"' + identifier.replace('"', '""') + '"'
