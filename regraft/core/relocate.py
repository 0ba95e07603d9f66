"""A folder's own databases and settings, pointing at where the folder stands now.

ZenML and MLflow write absolute paths into many columns: artifact URIs, log files, the artifact
store's own configuration (as base64 JSON). A moved or copied folder would go on reading, or worse
writing, the old place. The columns differ from version to version, so every text is looked at; a
path counts only as a whole, so that /a/b is never found inside /a/bc or /mnt/a/b.
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

from regraft.core.files import write_whole

# A path starts where no longer path can run into it: not after a name or a slash, unless that
# slash ends the "file://" or "sqlite:///" of a URL.
_START = r"(?:(?<=://)|(?<=:///)|(?<![\w.~%+/\\-]))"
# A path ends at the next slash, at the end of the text, or at what closes it in JSON or a URL.
_END = r"(?=/|\Z|[\"\\?#\n\r<>])"
Value = str | bytes | int | float | None  # what a column of an SQLite table may hold
_BASE64 = re.compile(r"[A-Za-z0-9+/\s]{8,}={0,2}\s*")


def relocate_database(path: Path, old: Path, new: Path) -> int:
    """How many values of an SQLite file now name `new` instead of `old`.

    One transaction: killed in the middle, nothing has changed; done twice, nothing changes.

    Args:
        path: the SQLite file; one that does not exist counts 0.
        old: absolute path that the folder had.
        new: absolute path that it has.

    Raises:
        sqlite3.Error: it is no SQLite file, or cannot be written.
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
    """Makes a YAML file name `new` instead of `old`; a file that does not exist stays so.

    It is read and written as YAML, not as text: a long line with spaces in it is folded there.
    """
    if not path.exists():
        return
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    moved = _rewrite_tree(content, rewriter(old, new))
    if moved != content:
        write_whole(str(path), yaml.safe_dump(moved).encode())


def rewriter(old: Path, new: Path) -> Callable[[Value], Value]:
    """A function that gives any database value back with `old` replaced by `new`.

    It sees the path in plain text, in a percent-encoded URL, in JSON escapes, in bytes and in
    base64 JSON; every other value comes back as it was.

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
    """The plain replacement, over every way to write the path down."""
    forms = {
        f"file://{quote(old)}": f"file://{quote(new)}",
        quote(old): quote(new),
        json.dumps(old)[1:-1]: json.dumps(new)[1:-1],
        old: new,  # last: where the path needs no escape, the forms above are the same text
    }
    # A copy inside the original (/a/b to /a/b/c) must not be prefixed once more the second time.
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
