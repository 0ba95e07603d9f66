"""A place for bytes, on this machine or behind a URL; what is written is whole or not there."""

import os
import re
import sys
from uuid import uuid4

import fsspec
from fsspec.implementations.local import LocalFileSystem
from fsspec.spec import AbstractFileSystem

from regraft.core.errors import ConfigError

_URL = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*://|::")


def is_url(place: str) -> bool:
    """Whether a place is an fsspec URL rather than a path on this machine.

    >>> is_url("s3://bucket/cats"), is_url("/home/me/cats")
    (True, False)
    """
    return bool(_URL.search(place))


def absolute(place: str) -> str:
    """The place as an fsspec URL, or as an absolute local path."""
    if place.startswith("file://") or not is_url(place):
        local = place.removeprefix("file://")
        return os.path.abspath(os.path.expanduser(local))
    return place.rstrip("/")


def filesystem(place: str) -> tuple[AbstractFileSystem, str]:
    """The file system of a place, and the path on it.

    Args:
        place: local path or fsspec URL.

    Raises:
        ConfigError: nothing that is installed knows this kind of URL.
    """
    try:
        fs, path = fsspec.core.url_to_fs(place)
    except (ValueError, ImportError) as error:
        raise ConfigError(
            f"Expected a local path or a URL that fsspec can open, got {place} ({error})."
        ) from None
    return fs, str(path)


def access_errors() -> tuple[type[Exception], ...]:
    """What file systems raise: OSError, and behind URLs the clients' own errors.

    All of them are optional. Who raised one has imported it, so nothing is imported here.
    """
    classes = (
        ("aiohttp", "ClientError"),
        ("botocore.exceptions", "BotoCoreError"),
        ("google.auth.exceptions", "GoogleAuthError"),
        ("gcsfs.retry", "HttpError"),
        ("azure.core.exceptions", "AzureError"),
    )
    loaded = [(sys.modules[room], name) for room, name in classes if room in sys.modules]
    return (OSError, *(getattr(room, name) for room, name in loaded))


def listed(folder: str, suffix: str) -> tuple[AbstractFileSystem, list[str]]:
    """The paths of the files in a folder that end so, in order, and their file system.

    Not by a pattern, which would read a bracket in the folder's own name as one.

    Args:
        folder: local path or fsspec URL; one that is not there holds nothing.
    """
    fs, path = filesystem(folder)
    fs.invalidate_cache(path)  # else what other machines added stays unseen
    try:
        names = fs.ls(path, detail=False)
    except FileNotFoundError:
        names = []
    return fs, sorted(name for name in names if name.endswith(suffix))


def write_whole(url: str, data: bytes) -> None:
    """The file with these bytes, in place of an older one: a reader sees the old or the new.

    Args:
        url: local path or fsspec URL; its folder is made.
        data: all of it.

    Raises:
        OSError: it cannot be written; no part of it stays.
    """
    fs, path = filesystem(url)
    fs.makedirs(path.rpartition("/")[0], exist_ok=True)
    if not isinstance(fs, LocalFileSystem):
        fs.pipe_file(path, data)  # object stores show an object when it is whole
        return
    part = f"{path}.{uuid4().hex}.part"
    try:
        with open(part, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError:
        if os.path.exists(part):
            os.unlink(part)
        raise


def write_once(url: str, data: bytes) -> None:
    """As write_whole, but a file that is there is left alone.

    Args:
        url: named after its content, so that whoever writes second would write the same.
    """
    fs, path = filesystem(url)
    if not fs.exists(path):
        write_whole(url, data)
