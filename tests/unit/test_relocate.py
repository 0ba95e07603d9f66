import base64
import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import yaml

from regraft.core.relocate import relocate_database, relocate_yaml, rewriter

OLD, NEW = Path("/old place/s"), Path("/new ü/t")


def base64_text(text):
    return base64.b64encode(text.encode()).decode()


def database(folder, *values):
    """An SQLite file with a table t of the values."""
    path = folder / "some.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE t (value)")
        connection.executemany("INSERT INTO t VALUES (?)", [(value,) for value in values])
    return path


def read(path):
    with closing(sqlite3.connect(path)) as connection:
        return [value for (value,) in connection.execute("SELECT value FROM t")]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("/old place/s", "/new ü/t"),
        ("/old place/s/a/b", "/new ü/t/a/b"),
        ("file:///old%20place/s/a", "file:///new%20%C3%BC/t/a"),
        ("file:///old place/s/a", "file:///new ü/t/a"),
        ("sqlite:////old place/s/mlflow.db", "sqlite:////new ü/t/mlflow.db"),
        ('{"path": "/old place/s"}', '{"path": "/new ü/t"}'),
        ('"{\\"path\\": \\"/old place/s\\"}"', '"{\\"path\\": \\"/new ü/t\\"}"'),
        ("at /old place/s/x and /old place/s/y", "at /new ü/t/x and /new ü/t/y"),
        (base64_text('{"path": "/old place/s/x"}'), base64_text('{"path": "/new ü/t/x"}')),
        (b"/old place/s/x", "/new ü/t/x".encode()),
    ],
)
def test_a_path_is_rewritten_in_every_encoding(before, after):
    assert rewriter(OLD, NEW)(before) == after


@pytest.mark.parametrize(
    "value",
    [
        *("/old place/st", "/old place/s.bak/x", "/mnt/old place/s/x", "../old place/s"),
        *(b"\xff/old place/s", base64_text('{"path": "/old place/st"}'), "aGVsbG8gd29ybGQ="),
        *(7, 1.5, None),
    ],
)
def test_another_path_stays_as_it_is(value):
    assert rewriter(OLD, NEW)(value) == value


def test_json_escapes_of_the_old_path_are_rewritten():
    text = json.dumps({"path": "/größe/x"})
    assert json.loads(rewriter(Path("/größe"), NEW)(text)) == {"path": "/new ü/t/x"}


def test_a_copy_inside_the_original_is_rewritten_once(tmp_path):
    path = database(tmp_path, "/a/b/x", "file:///a/b/x")
    old, new = Path("/a/b"), Path("/a/b/reports/copy")
    assert relocate_database(path, old, new) == 2
    assert relocate_database(path, old, new) == 0
    assert read(path) == ["/a/b/reports/copy/x", "file:///a/b/reports/copy/x"]


def test_a_database_that_is_not_there_is_not_created(tmp_path):
    assert relocate_database(tmp_path / "none.db", OLD, NEW) == 0
    assert not (tmp_path / "none.db").exists()


def test_yaml_lines_folded_at_a_space_are_rewritten_too(tmp_path):
    path = tmp_path / "config.yaml"
    long = OLD / ("a " * 60) / "x"
    path.write_text(yaml.safe_dump({"store": {"url": f"sqlite:///{long}", "sizes": [1]}}))
    relocate_yaml(path, OLD, NEW)
    relocate_yaml(tmp_path / "none.yaml", OLD, NEW)
    url = f"sqlite:///{NEW}/{'a ' * 60}/x"
    assert yaml.safe_load(path.read_text()) == {"store": {"url": url, "sizes": [1]}}
