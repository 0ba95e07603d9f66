"""A comparison of two lists of photos on disk, in memory of constant size."""

import itertools
import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from regraft.operations.batch.walk import Entry

_CACHE_KB = 4096  # size of SQLite's page cache; guess
_TABLES = f"""
    PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA cache_size=-{_CACHE_KB};
    PRAGMA temp_store=FILE;
    CREATE TABLE listed (path BLOB PRIMARY KEY, stamp TEXT) WITHOUT ROWID;
    CREATE TABLE planned (path BLOB, stamp TEXT, shard INTEGER, row INTEGER,
                          PRIMARY KEY (path, stamp, shard)) WITHOUT ROWID;
"""
_NEW = """
    SELECT path, stamp FROM listed WHERE NOT EXISTS (
        SELECT 1 FROM planned WHERE planned.path = listed.path AND planned.stamp = listed.stamp)
    ORDER BY path
"""
# Two concurrent calls may have planned a photo twice; then it belongs to the first shard.
_GONE = """
    SELECT shard, row, path FROM planned WHERE NOT EXISTS (
        SELECT 1 FROM listed WHERE listed.path = planned.path AND listed.stamp = planned.stamp)
    OR EXISTS (SELECT 1 FROM planned AS other WHERE other.path = planned.path
               AND other.stamp = planned.stamp AND other.shard < planned.shard)
    ORDER BY shard, row
"""


class Index:
    """The photos that exist now (listed) and the photos of earlier plans (planned)."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database

    def add_planned(self, shard: int, entries: Sequence[Entry]) -> None:
        """Add the photos of a planned shard, in the order of its rows."""
        rows = ((path, stamp, shard, row) for row, (path, stamp) in enumerate(entries))
        self._database.executemany("INSERT INTO planned VALUES (?, ?, ?, ?)", rows)

    def add_listed(self, entries: Iterator[Entry]) -> None:
        """Add photos that exist now; duplicates count once."""
        self._database.executemany("INSERT OR IGNORE INTO listed VALUES (?, ?)", entries)

    def count_listed(self) -> int:
        """Return the number of photos that exist now."""
        (n,) = self._database.execute("SELECT count(*) FROM listed").fetchone()
        return int(n)

    def new_batches(self, size: int) -> Iterator[list[Entry]]:
        """Yield the photos that are new or changed, sorted by path, at most `size` at a time."""
        rows = self._database.execute(_NEW)
        while batch := rows.fetchmany(size):
            yield [Entry(*row) for row in batch]

    def gone_rows(self) -> Iterator[tuple[int, list[tuple[int, bytes]]]]:
        """Yield (shard, [(row, path), ...]) of planned photos that were changed or removed."""
        rows = self._database.execute(_GONE)
        for shard, group in itertools.groupby(rows, key=lambda row: int(row[0])):
            yield shard, [(row, path) for _, row, path in group]


@contextmanager
def open_index() -> Iterator[Index]:
    """Yield an empty index in a temporary file, which is deleted at the end of the block."""
    with (
        tempfile.TemporaryDirectory() as folder,
        closing(sqlite3.connect(Path(folder) / "index.db")) as database,
    ):
        database.executescript(_TABLES)
        yield Index(database)
