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
├── reports/       the report pages
├── matplotlib/    the fonts that were found on this machine
└── runs/          one file a run that lives: who runs it
"""

import getpass
import json
import os
import re
import socket
import sqlite3
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psutil
from filelock import FileLock, Timeout

from regraft.errors import StateError
from regraft.files import write_whole
from regraft.relocate import relocate_database, relocate_yaml

FORMAT = 1
_FOLDERS = (
    *("zenml", "artifacts", "mlflow", "checkpoints"),
    *("embeddings", "images", "photos", "splits", "reports", "runs"),
)
_LOCK_TIMEOUT_S = 300.0  # guess: first creation takes 5 s, a large move a minute
_CLOCK_SLACK_S = 5.0  # a process's start time moves when the machine's clock is set
# Characters that SQLite's URL, MLflow's file URLs or JSON would read as something else.
_UNSAFE = re.compile(r"""["\\?#%*\x00-\x1f]""")
# Variables of the caller's shell that would lead ZenML or MLflow to another store.
_FOREIGN = re.compile(
    r"ZENML_(STORE|SECRETS_STORE|BACKUP_SECRETS_STORE|ACTIVE|DEFAULT|SERVER|LOCAL_STORES)"
    r"(_.*)?|DISABLE_DATABASE_MIGRATION|MLFLOW_(RUN|EXPERIMENT)_(ID|NAME)"
)


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
    def reports(self) -> Path:
        """The report pages."""
        return self.root / "reports"

    @property
    def runs(self) -> Path:
        """One marker file a run that lives."""
        return self.root / "runs"

    @property
    def lock(self) -> Path:
        """The file that the folder is locked by."""
        return self.root / ".lock"


@dataclass(frozen=True)
class RunMarker:
    """Who runs a pipeline run; ZenML itself keeps no process id.

    name: the pipeline run's name.
    pid, created: process id and the process's start time in seconds since 1970; a pid alone is
        given to another process sooner or later.
    host: the machine; a process of another one cannot be seen from here.
    started: when the run started, ISO 8601, UTC.
    """

    name: str
    pid: int
    host: str
    created: float
    started: str

    @property
    def alive(self) -> bool:
        """Whether the process lives; on another machine it is taken to."""
        if self.host != socket.gethostname():
            return True
        try:
            process = psutil.Process(self.pid)
            zombie = process.status() == psutil.STATUS_ZOMBIE
            return not zombie and abs(process.create_time() - self.created) < _CLOCK_SLACK_S
        except psutil.NoSuchProcess:
            return False


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


def environment(state: State, debug: bool) -> dict[str, str]:
    """The variables that ZenML and MLflow read when they are imported.

    Args:
        state: an opened state folder.
        debug: let them talk.
    """
    return {
        "ZENML_CONFIG_PATH": str(state.zenml),
        # Not a folder with .zen in it: else ZenML looks for one above the working directory,
        # whose stack would win over ours.
        "ZENML_REPOSITORY_PATH": str(state.zenml),
        "ZENML_CUSTOM_SOURCE_ROOT": str(Path(__file__).resolve().parent.parent),
        "ZENML_ANALYTICS_OPT_IN": "false",
        "ZENML_LOGGING_VERBOSITY": "DEBUG" if debug else "WARN",
        "ZENML_ENABLE_RICH_TRACEBACK": "false",
        "ZENML_ENABLE_REPO_INIT_WARNINGS": "false",
        "ZENML_DISABLE_INTERACTIVE_INPUT": "true",
        "ZENML_DISABLE_CLIENT_SERVER_MISMATCH_WARNING": "true",
        "AUTO_OPEN_DASHBOARD": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
        "MLFLOW_LOGGING_LEVEL": "DEBUG" if debug else "WARNING",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "GIT_PYTHON_REFRESH": "quiet",  # no git on the machine is no news
        # What would be written into the user's home otherwise: the fonts that matplotlib found,
        # and what uv keeps when ZenML asks it for the installed packages.
        "MPLCONFIGDIR": str(state.root / "matplotlib"),
        "UV_NO_CACHE": "1",
    }


def activate(state: State) -> None:
    """Puts environment() into this process, and takes out what leads to another store.

    Raises:
        StateError: zenml was imported before, and reads another folder.
    """
    variables = environment(state, state.debug)
    current = os.environ.get("ZENML_CONFIG_PATH")
    if "zenml" in sys.modules and current != variables["ZENML_CONFIG_PATH"]:
        raise StateError(
            f"Expected to choose the state folder {state.root} before zenml is imported, but it "
            f"was imported with {current or 'its own default'}. Use one state folder a process."
        )
    for name in [name for name in os.environ if _FOREIGN.fullmatch(name)]:
        del os.environ[name]
    os.environ.update(variables)


def who_am_i() -> str:
    """Who runs this process, as a ledger says it: user@host."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # in a container, a number that nobody gave a name
        user = f"uid-{os.getuid()}"
    return f"{user}@{socket.gethostname()}"


@contextmanager
def run_marker(state: State, name: str) -> Iterator[RunMarker]:
    """Says, as long as the block lives, that this process runs the pipeline run `name`.

    A process that is killed leaves its marker; running() then shows it dead.
    """
    marker = mark_run(state, name, os.getpid(), datetime.now(UTC))
    try:
        yield marker
    finally:
        forget_run(state, name)


def mark_run(state: State, name: str, pid: int, now: datetime) -> RunMarker:
    """Writes <root>/runs/<name>.json for a process that lives; returns what it says."""
    created = psutil.Process(pid).create_time()
    marker = RunMarker(name, pid, socket.gethostname(), created, now.isoformat())
    write_whole(str(_marker_path(state, name)), json.dumps(asdict(marker)).encode())
    return marker


def forget_run(state: State, name: str) -> None:
    """Removes a run's marker; none there is as good."""
    _marker_path(state, name).unlink(missing_ok=True)


def running(state: State) -> list[RunMarker]:
    """Every marker in the folder, oldest first; ask each whether it is alive."""
    markers = []
    for path in state.runs.glob("*.json"):
        try:
            markers.append(RunMarker(**json.loads(path.read_text(encoding="utf-8"))))
        except FileNotFoundError:  # the run ended between the two lines above
            continue
        except (ValueError, TypeError):
            raise StateError(
                f"Expected a run marker in {path}, got something else. Delete that file."
            ) from None
    return sorted(markers, key=lambda marker: marker.started)


def _marker_path(state: State, name: str) -> Path:
    return state.runs / f"{quote(name, safe=' ')}.json"


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
