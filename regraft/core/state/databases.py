"""Damage of the two SQLite databases in a state folder, found before a library fails on it."""

import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from regraft.core.errors import DatabaseDamaged
from regraft.core.state.folder import State


def require_mlflow_database(path: Path, *, thorough: bool = False) -> None:
    """Raise an error if MLflow's database is damaged, emptied or gone; it may not exist yet.

    Args:
        thorough: see find_damage().

    Raises:
        DatabaseDamaged: with the file, and what to do.
    """
    stamp = version_stamp(path)
    if problem := find_damage(path, was_created=stamp.exists(), thorough=thorough):
        raise DatabaseDamaged(
            f"Expected MLflow's database, with all models and decisions, in {path}, got "
            f"{problem}. Restore the file from a backup. To begin without the models, move "
            f"{path.name} and {stamp.name} out of {path.parent}."
        )


def require_zenml_database(state: State, *, thorough: bool = False) -> None:
    """Raise an error if ZenML's database is damaged, emptied or gone; it may not exist yet.

    Args:
        thorough: see find_damage().

    Raises:
        DatabaseDamaged: with the file, and what to do.
    """
    path = state.zenml_database
    has_run = state.artifacts.is_dir() and any(state.artifacts.iterdir())
    if problem := find_damage(path, was_created=has_run, thorough=thorough):
        raise DatabaseDamaged(
            f"Expected ZenML's database, with the runs and their cached results, in {path}, got "
            f"{problem}. Restore the file from a backup, or move the folders {state.zenml} and "
            f"{state.artifacts} away: the next training creates them again and computes every "
            "stage. The models are not in them."
        )


def version_stamp(path: Path) -> Path:
    """Return the file beside MLflow's database with the version of MLflow that created it."""
    return path.with_suffix(".version")


def find_damage(path: Path, *, was_created: bool, thorough: bool = False) -> str:
    """Return what is wrong with an SQLite file, "" if nothing.

    Args:
        was_created: whether the file had tables before; otherwise it may be absent or empty.
        thorough: read the whole file; takes about a second for 100 MB.
    """
    if not path.exists():
        return "no such file" if was_created else ""
    query = "PRAGMA quick_check(1)" if thorough else "SELECT 'ok'"
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)) as connection:
            [n_tables] = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
            [result] = connection.execute(query).fetchone()
    except sqlite3.OperationalError:  # a writer has locked the file, or it may not be read
        return ""
    except sqlite3.DatabaseError as error:
        return str(error)
    if was_created and not n_tables:
        return "a file without a table"
    return "" if result == "ok" else str(result).replace("\n", "; ")
