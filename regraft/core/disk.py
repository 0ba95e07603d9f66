"""A full disk, in whichever words a library reports it."""

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from regraft.core.errors import DiskFull

RUN_BYTES = 2 * 2**30  # guess: a run of some thousand photos writes a tenth of it
# EFBIG: a limit on the size of files, such as `ulimit -f`.
_ERRNOS = {
    errno.ENOSPC: "No space left on device",
    errno.EDQUOT: "Disk quota exceeded",
    errno.EFBIG: "File too large",
}
# safetensors, SQLite, pyarrow and shutil raise their own errors, with one of these texts.
_TEXT = re.compile(
    r"No space left on device|database or disk is full|Disk quota exceeded|File too large"
    r"|os error (28|122|27)\b"
)
_NEARLY_FULL_BYTES = 16 * 2**20  # guess


def find_full_disk(error: BaseException, folder: Path | None) -> DiskFull | None:
    """Return the error as DiskFull if it, or an error that caused it, reports a full disk.

    Args:
        folder: where files are written if the error names none; None means the temporary folder.
    """
    for each in _chain(error):
        if isinstance(each, DiskFull):
            return each
        number = each.errno if isinstance(each, OSError) else None
        if number in _ERRNOS or _TEXT.search(str(each)):
            reason = _ERRNOS.get(number or 0) or str(each).strip().splitlines()[-1]
            named = (each.filename2, each.filename) if isinstance(each, OSError) else ()
            paths = [str(name) for name in (*named, folder, tempfile.gettempdir()) if name]
            return disk_full(_fullest(paths), reason, RUN_BYTES)
    return None


def is_full_disk(error: OSError) -> bool:
    """Return whether the operating system refused to store more bytes."""
    return error.errno in _ERRNOS


def disk_full(path: str, reason: str | None, needed_bytes: int) -> DiskFull:
    """Return the error about a file that could not be written.

    Args:
        needed_bytes: free space that the writer needs.
    """
    free = format_bytes(shutil.disk_usage(_existing_parent(path)).free)
    reason = reason or "the disk is full"
    full = DiskFull(
        f"Expected {format_bytes(needed_bytes)} of free space for {path}, got {free} "
        f"({reason}). Free that space, or choose another disk, then run the same command again: it "
        "resumes."
    )
    full.strerror = reason  # the short text, as in every OSError
    return full


def format_bytes(n_bytes: float) -> str:
    """Return a number of bytes as text.

    >>> format_bytes(2 * 2**30), format_bytes(1536), format_bytes(5)
    ('2.0 GiB', '1.5 KiB', '5 bytes')
    """
    for power, unit in ((3, "GiB"), (2, "MiB"), (1, "KiB")):
        if n_bytes >= 1024**power:
            return f"{n_bytes / 1024**power:.1f} {unit}"
    return f"{n_bytes:.0f} bytes"


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield the error and the errors that it was raised from, or while handling."""
    seen: set[int] = set()
    each: BaseException | None = error
    while each is not None and id(each) not in seen:
        seen.add(id(each))
        yield each
        each = each.__cause__ or each.__context__


def _fullest(paths: list[str]) -> str:
    """Return the first path on a nearly full disk, else the first path."""
    for path in paths:
        if shutil.disk_usage(_existing_parent(path)).free < _NEARLY_FULL_BYTES:
            return path
    return paths[0]


def _existing_parent(path: str) -> str:
    while path and not os.path.exists(path):
        path = os.path.dirname(path)
    return path or "."
