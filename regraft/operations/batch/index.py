"""Two lists of photos compared on disk: memory does not grow with them."""

import itertools
import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from regraft.operations.batch.walk import Entry

_CACHE_KB = 4096  # of the database's pages in memory. Guess
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
# Two calls at once may have planned a photo twice: the first shard has it.
_GONE = """
    SELECT shard, row, path FROM planned WHERE NOT EXISTS (
        SELECT 1 FROM listed WHERE listed.path = planned.path AND listed.stamp = planned.stamp)
    OR EXISTS (SELECT 1 FROM planned AS other WHERE other.path = planned.path
               AND other.stamp = planned.stamp AND other.shard < planned.shard)
    ORDER BY shard, row
"""


class Index:
    """What is listed now and what was planned before."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database

    def remember(self, shard: int, entries: Sequence[Entry]) -> None:
        """Takes down that these photos are the rows of the shard."""
        rows = ((path, stamp, shard, row) for row, (path, stamp) in enumerate(entries))
        self._database.executemany("INSERT INTO planned VALUES (?, ?, ?, ?)", rows)

    def see(self, entries: Iterator[Entry]) -> None:
        """Takes down that these photos are there; one that comes twice counts once."""
        self._database.executemany("INSERT OR IGNORE INTO listed VALUES (?, ?)", entries)

    def n_listed(self) -> int:
        """How many photos are there."""
        (n,) = self._database.execute("SELECT count(*) FROM listed").fetchone()
        return int(n)

    def new(self, size: int) -> Iterator[list[Entry]]:
        """The photos that no shard has as they are, sorted by path, at most `size` at a time."""
        rows = self._database.execute(_NEW)
        while few := rows.fetchmany(size):
            yield [Entry(*row) for row in few]

    def gone(self) -> Iterator[tuple[int, list[tuple[int, bytes]]]]:
        """(shard, [(row, path), ...]) of the photos that are there no longer as they were."""
        rows = self._database.execute(_GONE)
        for shard, group in itertools.groupby(rows, key=lambda row: int(row[0])):
            yield shard, [(row, path) for _, row, path in group]


@contextmanager
def index() -> Iterator[Index]:
    """An empty index in a temporary file, as long as the block lives."""
    with (
        tempfile.TemporaryDirectory() as folder,
        closing(sqlite3.connect(Path(folder) / "index.db")) as database,
    ):
        database.executescript(_TABLES)
        yield Index(database)
