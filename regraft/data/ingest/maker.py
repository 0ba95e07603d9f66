"""Which code made what is kept: a cache must not outlive what filled it."""

import hashlib
from collections.abc import Iterable
from functools import cache
from importlib import metadata
from pathlib import Path

import regraft


def code_hash(rooms: Iterable[str], libraries: Iterable[str]) -> str:
    """Hash of source files and of the versions of the libraries that they rest on.

    Args:
        rooms: files below regraft/, such as "data/ingest/decode.py".
        libraries: names of installed distributions, such as "pillow".

    Returns:
        64 hex digits.
    """
    digest = hashlib.sha256()
    for room in rooms:
        digest.update((Path(regraft.__file__).parent / room).read_bytes())
    digest.update(" ".join(version(library) for library in libraries).encode())
    return digest.hexdigest()


@cache
def version(library: str) -> str:
    """Return the version of an installed distribution.

    Kept for the process: its metadata takes milliseconds to parse, and the code that a process has
    imported does not change.
    """
    return metadata.version(library)
