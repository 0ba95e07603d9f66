"""The state folder: everything that Regraft remembers, in one place that may be moved or copied.

<root>/
├── state.json     format version and the path that the folder had when it was last opened
├── zenml/         ZenML's settings and its SQLite store
├── artifacts/     what ZenML's steps hand on
├── mlflow.db      MLflow's tracking store and model registry
├── mlflow/        MLflow's files: models, plots, reports
├── embeddings/    what frozen networks made of each photo; may be deleted
├── checkpoints/   of trainings that were interrupted
├── images/        photos that came as arrays, as PNG
├── photos/        what each photo was found to be; may be deleted
├── splits/        which side a photo was given
├── journal/       what every call of `retrain` and `watch` came to
├── schedule/      what is to be run when, and when it was run last
├── reports/       the report pages, and status.html
├── matplotlib/    the fonts that were found on this machine
├── runs/          which pipeline runs live: a lock each, and whose it is
└── locks/         what is done by one process at a time: a lock each, never to be deleted
"""

import json
import re
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from regraft.core.errors import StateError
from regraft.core.files import write_whole
from regraft.core.relocate import relocate_database, relocate_yaml

FORMAT = 1
_FOLDERS = (
    *("zenml", "artifacts", "mlflow", "checkpoints", "journal", "schedule"),
    *("embeddings", "images", "photos", "splits", "reports", "runs", "locks"),
)
_LOCK_TIMEOUT_S = 300.0  # guess: first creation takes 5 s, a large move a minute
# Characters that SQLite's URL, MLflow's file URLs or JSON would read as something else.
_UNSAFE = re.compile(r"""["\\?#%*\x00-\x1f]""")


@dataclass(frozen=True)
class State:
    """Where everything lies.

    root: absolute path of the folder.
    debug: let ZenML and MLflow talk.
    moved_from: the path that the folder had before, if this opening found it moved or copied.
    """

    root: Path
    debug: bool = False
    moved_from: Path | None = None

    @property
    def zenml(self) -> Path:
        """ZenML's settings and store."""
        return self.root / "zenml"

    @property
    def zenml_database(self) -> Path:
        """The SQLite file of ZenML's store."""
        return self.zenml / "local_stores" / "default_zen_store" / "zenml.db"

    @property
    def artifacts(self) -> Path:
        """What ZenML's steps hand on."""
        return self.root / "artifacts"

    @property
    def mlflow_database(self) -> Path:
        """The SQLite file of MLflow's tracking store and registry."""
        return self.root / "mlflow.db"

    @property
    def tracking_uri(self) -> str:
        """MLflow's tracking URI, for the registry too."""
        return f"sqlite:///{self.mlflow_database}"

    @property
    def mlflow_artifacts(self) -> Path:
        """MLflow's files: models, plots, reports."""
        return self.root / "mlflow"

    @property
    def embeddings(self) -> Path:
        """What frozen networks made of each photo."""
        return self.root / "embeddings"

    @property
    def checkpoints(self) -> Path:
        """Trainings that were interrupted."""
        return self.root / "checkpoints"

    @property
    def images(self) -> Path:
        """Photos that came as arrays, as PNG."""
        return self.root / "images"

    @property
    def photos(self) -> Path:
        """What each photo was found to be."""
        return self.root / "photos"

    @property
    def splits(self) -> Path:
        """Which side a photo was given."""
        return self.root / "splits"

    @property
    def journal(self) -> Path:
        """What every call of `retrain` and `watch` came to."""
        return self.root / "journal"

    @property
    def schedule(self) -> Path:
        """What is to be run when."""
        return self.root / "schedule"

    @property
    def reports(self) -> Path:
        """The report pages."""
        return self.root / "reports"

    @property
    def runs(self) -> Path:
        """Which pipeline runs live."""
        return self.root / "runs"

    @property
    def locks(self) -> Path:
        """What is done by one process at a time."""
        return self.root / "locks"

    @property
    def lock(self) -> Path:
        """The file that the folder is locked by."""
        return self.root / ".lock"


def open_state(root: Path, debug: bool = False) -> State:
    """The state folder at `root`, created if new, repaired if it was moved or copied.

    Args:
        root: relative to the working directory, or absolute; symbolic links are followed.
        debug: let ZenML and MLflow talk.

    Raises:
        StateError: the folder cannot be written, is no folder, or is of a newer Regraft.
    """
    root = root.expanduser().resolve()
    if unsafe := _UNSAFE.search(str(root)):
        raise StateError(
            f"The path of a state folder may not hold {unsafe[0]!r}, which database URLs read "
            f"as something else, got {str(root)!r}. Choose another with --state."
        )
    try:
        root.mkdir(parents=True, exist_ok=True)
        with locked(State(root)):
            return State(root, debug, _prepare(State(root)))
    except (FileExistsError, NotADirectoryError):
        raise StateError(
            f"Expected the state folder at {root}, got a file there or above. Move that file, or "
            "choose another place with --state."
        ) from None
    except OSError as error:
        raise StateError(
            f"Expected a state folder that I can write at {root}, got: {error.strerror or error}. "
            "Mend its permissions or free some space, or choose another place with --state."
        ) from None


def existing_state(root: Path, debug: bool = False) -> State:
    """The state folder at `root`, which a run has made before; for commands that only read.

    Raises:
        StateError: there is none, or open_state() has something against it.
    """
    if not (root.expanduser() / "state.json").is_file():
        raise StateError(
            f"Expected a state folder at {root.expanduser().resolve()}, found none. Run "
            "`regraft train PHOTOS` first, or name the place with --state."
        )
    return open_state(root, debug)


@contextmanager
def locked(state: State) -> Iterator[None]:
    """Holds the folder's lock; one process at a time gets past.

    Raises:
        StateError: another process holds it for five minutes.
    """
    lock = FileLock(state.lock, timeout=_LOCK_TIMEOUT_S)
    try:
        lock.acquire()
    except Timeout:
        raise StateError(
            f"Waited {_LOCK_TIMEOUT_S:.0f} s for the lock {state.lock}, another process holds it. "
            "See which one with `fuser` and end it; the lock goes with it."
        ) from None
    try:
        yield
    finally:
        lock.release()


def _prepare(state: State) -> Path | None:
    """Makes the folder whole; returns the path that it was moved from, if it was."""
    recorded = _read_record(state)
    for name in _FOLDERS:
        (state.root / name).mkdir(exist_ok=True)
    with tempfile.TemporaryFile(dir=state.root):
        pass  # a read-only disk is found now, not after an hour of training
    moved_from = recorded if recorded != state.root else None
    if moved_from:
        _repair(state, moved_from)
    if recorded != state.root:
        record = {"format": FORMAT, "root": str(state.root)}
        record_url = str(state.root / "state.json")
        write_whole(record_url, json.dumps(record).encode())  # last: else start again
    return moved_from


def _read_record(state: State) -> Path | None:
    path = state.root / "state.json"
    if not path.exists():
        return None
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        version, root = int(record["format"]), Path(record["root"])
    except (ValueError, KeyError, TypeError):
        raise StateError(
            f"Expected Regraft's own record in {path}, got something else. Put it back from a "
            "backup, or choose another place with --state."
        ) from None
    if version > FORMAT:
        raise StateError(
            f"Expected a state folder of format {FORMAT} or older at {state.root}, got {version}: "
            "a newer Regraft wrote it. Update Regraft, or choose another place with --state."
        )
    return root


def _repair(state: State, old: Path) -> None:
    try:
        for database in (state.zenml_database, state.mlflow_database):
            relocate_database(database, old, state.root)
    except sqlite3.Error as error:
        raise StateError(
            f"The state folder was moved from {old} to {state.root}, and its databases could not "
            f"be made to say so: {error}. End what uses them and try again, or move it back."
        ) from None
    relocate_yaml(state.zenml / "config.yaml", old, state.root)
