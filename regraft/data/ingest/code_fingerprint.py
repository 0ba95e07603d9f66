"""Fingerprints of code: a cache is invalid once the code that filled it changes."""

import hashlib
from collections.abc import Iterable
from functools import cache
from importlib import metadata
from pathlib import Path

import regraft

# From the bytes of a file to its pixels; relative to regraft/.
DECODING_FILES = (
    "data/ingest/decode.py",
    "data/ingest/formats.py",
    "data/ingest/png.py",
    "data/ingest/tiff.py",
)


def code_fingerprint(files: Iterable[str], libraries: Iterable[str]) -> str:
    """Return the hash of source files and of the versions of the libraries that they use.

    Args:
        files: relative to regraft/, such as "data/ingest/decode.py".
        libraries: names of installed distributions, such as "pillow".

    Returns:
        64 hex digits.
    """
    digest = hashlib.sha256()
    for file in files:
        digest.update((Path(regraft.__file__).parent / file).read_bytes())
    digest.update(" ".join(version(library) for library in libraries).encode())
    return digest.hexdigest()


@cache
def version(library: str) -> str:
    """Return the version of an installed distribution.

    The result is cached for the process: parsing the metadata takes milliseconds, and the imported
    code of a process does not change.
    """
    return metadata.version(library)
