"""Faults of the machine below the libraries: a full disk and a damaged database."""

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import TracebackType

from regraft.core.disk import find_full_disk
from regraft.core.errors import DatabaseDamaged, StateError
from regraft.core.state.databases import require_mlflow_database, require_zenml_database
from regraft.core.state.folder import State
from regraft.core.state.variables import active_root

_DAMAGE = re.compile(r"disk image is malformed|file is not a database")


@contextmanager
def reported_faults() -> Iterator[None]:
    """Raise an error of a library about a full disk or a damaged database as a StateError.

    Raises:
        DiskFull: the block failed because a disk is full; the message names the path.
        DatabaseDamaged: the block failed because a database of the active state folder is damaged.
    """
    with ExitStack() as stack:
        stack.push(_report)
        yield


def _report(
    kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
) -> None:
    if isinstance(error, Exception) and not isinstance(error, StateError):
        fault = find_fault(error)
        if fault:
            raise fault from error


def find_fault(error: Exception) -> StateError | None:
    """Return the fault of the machine that an error reports, None if it reports another one."""
    root = active_root()
    if full := find_full_disk(error, root):
        return full
    if root is None or not _DAMAGE.search(str(error)):
        return None
    state = State(root)
    try:
        require_mlflow_database(state.mlflow_database, thorough=True)
        require_zenml_database(state, thorough=True)
    except DatabaseDamaged as damaged:
        return damaged
    return None
