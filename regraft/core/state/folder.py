"""The state folder: all persistent data of Regraft; it may be moved or copied.

<root>/
├── state.json     format version, path of the folder when it was last opened, places elsewhere
├── zenml/         ZenML's settings and its SQLite store
├── artifacts/     artifacts of ZenML's steps
├── mlflow.db      MLflow's tracking store and model registry
├── mlflow/        MLflow's files: models, plots, reports
├── embeddings/    cached embeddings of photos; may be deleted
├── checkpoints/   checkpoints of interrupted trainings
├── images/        PNG files of photos that were given as arrays
├── photos/        cached facts of photos; may be deleted
├── splits/        the split of each photo
├── journal/       the result of every call of `retrain` and `watch`
├── schedule/      the schedule entries and their last runs
├── reports/       the report pages, and status.html
├── matplotlib/    the font cache of this machine
├── runs/          a lock and a marker for each running pipeline run
└── locks/         a lock for each kind of exclusive work; must not be deleted
"""

import re
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from regraft.core.errors import StateError
from regraft.core.relocate import relocate_database, relocate_yaml, rewriter
from regraft.core.state.record import FILE as RECORD_FILE
from regraft.core.state.record import StateRecord, read_record, write_record

_FOLDERS = (
    "zenml",
    "artifacts",
    "mlflow",
    "checkpoints",
    "journal",
    "schedule",
    "embeddings",
    "images",
    "photos",
    "splits",
    "reports",
    "runs",
    "locks",
)
_LOCK_TIMEOUT_S = 300.0  # guess: creation takes 5 s, moving a large folder a minute
# Characters with a special meaning in SQLite URLs, in MLflow's file URLs or in JSON, and what
# stands for the bytes of a name that is not UTF-8.
_UNSAFE = re.compile(r"""["\\?#%*\x00-\x1f\ud800-\udfff]""")


@dataclass(frozen=True)
class State:
    """The paths of an opened state folder.

    root: absolute path of the folder.
    debug: whether ZenML and MLflow log debug messages.
    moved_from: previous path of the folder, if it was moved or copied since it was last opened.
    is_writable: whether this process may write to the folder; only readers get a folder otherwise.
    """

    root: Path
    debug: bool = False
    moved_from: Path | None = None
    is_writable: bool = True

    @property
    def zenml(self) -> Path:
        """Folder of ZenML's settings and store."""
        return self.root / "zenml"

    @property
    def zenml_database(self) -> Path:
        """The SQLite file of ZenML's store."""
        return self.zenml / "local_stores" / "default_zen_store" / "zenml.db"

    @property
    def artifacts(self) -> Path:
        """Folder of the artifacts of ZenML's steps."""
        return self.root / "artifacts"

    @property
    def mlflow_database(self) -> Path:
        """The SQLite file of MLflow's tracking store and registry."""
        return self.root / "mlflow.db"

    @property
    def mlflow_artifacts(self) -> Path:
        """Folder of MLflow's files: models, plots, reports."""
        return self.root / "mlflow"

    @property
    def embeddings(self) -> Path:
        """Folder of the cached embeddings."""
        return self.root / "embeddings"

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints of interrupted trainings."""
        return self.root / "checkpoints"

    @property
    def images(self) -> Path:
        """Folder of the PNG files of photos that were given as arrays."""
        return self.root / "images"

    @property
    def photos(self) -> Path:
        """Folder of the cached facts of photos."""
        return self.root / "photos"

    @property
    def splits(self) -> Path:
        """Folder of the recorded splits of photos."""
        return self.root / "splits"

    @property
    def journal(self) -> Path:
        """Folder of the results of `retrain` and `watch`."""
        return self.root / "journal"

    @property
    def schedule(self) -> Path:
        """Folder of the schedule entries."""
        return self.root / "schedule"

    @property
    def reports(self) -> Path:
        """Folder of the report pages."""
        return self.root / "reports"

    @property
    def runs(self) -> Path:
        """Folder of the locks and markers of pipeline runs."""
        return self.root / "runs"

    @property
    def locks(self) -> Path:
        """Folder of the locks of exclusive work."""
        return self.root / "locks"

    @property
    def lock(self) -> Path:
        """Lock file of the folder."""
        return self.root / ".lock"


def open_state(root: Path, debug: bool = False) -> State:
    """Open the state folder at `root`; create it if missing, repair it if moved or copied.

    A new folder is readable by its owner only, and so is everything below it.

    Args:
        root: relative to the working directory, or absolute; symbolic links are followed.
        debug: whether ZenML and MLflow log debug messages.

    Raises:
        StateError: the path cannot hold a writable folder or contains an unsupported character, or
            another version of Regraft wrote the folder in another format.
    """
    root = _resolve(root)
    try:
        return _open(root, debug)
    except (FileExistsError, NotADirectoryError):
        raise StateError(
            f"Expected the state folder at {root}, got a file at this path or at a parent. Move "
            "that file, or choose another folder with --state."
        ) from None
    except (OSError, NotImplementedError) as error:  # NotImplementedError: no file locks there
        raise _unusable(root, "writable", error) from None


def existing_state(root: Path, debug: bool = False) -> State:
    """Open the state folder at `root`, which must exist; for commands that write to it.

    Raises:
        StateError: the folder does not exist, or open_state() raises.
    """
    return open_state(_existing(root), debug)


def readable_state(root: Path, debug: bool = False) -> State:
    """Open the state folder at `root`, which must exist; for commands that only read.

    Write permission is not necessary, unless the folder was moved or copied and not opened since.

    Raises:
        StateError: the folder does not exist, its record cannot be read, or the paths in its
            databases must be updated first.
    """
    root = _existing(root)
    try:
        return _open(root, debug)
    except (OSError, NotImplementedError) as error:
        record = read_record(root)
        if record is None or record.root != root:
            raise StateError(
                f"Expected a state folder that was opened at {root} before, got one of "
                f"{record.root if record else 'no path'}, whose paths cannot be updated "
                f"({_reason(error)}). Make the folder writable and run `regraft doctor` once, or "
                "move the folder back."
            ) from None
        return State(root, debug, is_writable=False)


def _resolve(root: Path) -> Path:
    """Return the absolute path of a state folder, links followed.

    Raises:
        StateError: the path contains an unsupported character, or cannot be followed.
    """
    try:
        resolved = root.expanduser().resolve()
    except (OSError, RuntimeError, ValueError) as error:  # a loop of links, ~nobody, a null byte
        raise _unusable(root, "writable", error) from None
    if unsafe := _UNSAFE.search(str(resolved)):
        raise StateError(
            f"Expected a path of a state folder without {unsafe[0]!r}, which has a special meaning "
            f"in database URLs, got {str(resolved)!r}. Choose another path with --state."
        )
    return resolved


def _existing(root: Path) -> Path:
    """Return the absolute path of a state folder that exists.

    Raises:
        StateError: the folder does not exist, or may not be read.
    """
    root = _resolve(root)
    try:
        (root / RECORD_FILE).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise StateError(
            f"Expected a state folder at {root}, got none. Run `regraft train PHOTOS` first, or "
            "give the folder with --state."
        ) from None
    except OSError as error:
        raise _unusable(root, "readable", error) from None
    return root


def _unusable(root: Path, expected: str, error: Exception) -> StateError:
    return StateError(
        f"Expected a {expected} state folder at {root}, got: {_reason(error)}. Correct its "
        "permissions or free some space, or choose another folder with --state."
    )


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error)


def _open(root: Path, debug: bool) -> State:
    # Photos' names, thumbnails and settings are for this user; an existing folder is left as it is,
    # so that a group may share one.
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=root):
        pass  # a lock would wait for minutes in a folder that can hold no file
    with state_lock(State(root)):
        return State(root, debug, _prepare(State(root)))


@contextmanager
def state_lock(state: State) -> Iterator[None]:
    """Hold the lock of the state folder for the duration of the block.

    Raises:
        StateError: another process has held the lock for five minutes.
    """
    lock = FileLock(state.lock, timeout=_LOCK_TIMEOUT_S)
    try:
        lock.acquire()
    except Timeout:
        raise StateError(
            f"Waited {_LOCK_TIMEOUT_S:.0f} s for the lock {state.lock}, which another process "
            "holds. Find the process with `fuser` and stop it; this releases the lock."
        ) from None
    try:
        yield
    finally:
        lock.release()


def _prepare(state: State) -> Path | None:
    """Create missing folders and repair paths; return the previous path if the folder moved."""
    record = read_record(state.root)
    for name in _FOLDERS:
        (state.root / name).mkdir(exist_ok=True)
    if record and record.root == state.root:
        return None
    moved = StateRecord(state.root)
    if record:
        _repair(state, record.root)
        rewrite = rewriter(record.root, state.root)
        moved = StateRecord(state.root, {k: str(rewrite(v)) for k, v in record.places.items()})
    write_record(state.root, moved)  # last, so that an interrupted repair is repeated
    return record.root if record else None


def _repair(state: State, old: Path) -> None:
    try:
        for database in (state.zenml_database, state.mlflow_database):
            relocate_database(database, old, state.root)
    except sqlite3.Error as error:
        raise StateError(
            f"The state folder was moved from {old} to {state.root}, and the paths in its "
            f"databases could not be updated: {error}. Stop the processes that use them and try "
            "again, or move the folder back."
        ) from None
    relocate_yaml(state.zenml / "config.yaml", old, state.root)
