"""Local and remote files: locations, listings and atomic writes."""

import os
import re
import sys
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import fsspec
from fsspec.implementations.local import LocalFileSystem
from fsspec.spec import AbstractFileSystem

from regraft.core.disk import disk_full, is_full_disk
from regraft.core.errors import ConfigError, MissingDriver

_SCHEME = r"[A-Za-z][A-Za-z0-9+.-]*"
_URL = re.compile(rf"{_SCHEME}(::{_SCHEME})*://")


def is_url(place: str) -> bool:
    """Return whether a location is an fsspec URL, not a path on this machine.

    A URL begins with a scheme, or with a chain of them. `::` elsewhere is a part of a name.

    >>> is_url("s3://bucket/cats"), is_url("/home/me/cats"), is_url("cats/10::22.jpg")
    (True, False, False)
    >>> is_url("simplecache::s3://bucket/cats"), is_url("zip://a.jpg::cats.zip")
    (True, True)
    """
    return bool(_URL.match(place))


def absolute(place: str) -> str:
    """Return the location as an fsspec URL or as an absolute local path."""
    if place.startswith("file://") or not is_url(place):
        local = place.removeprefix("file://")
        return os.path.abspath(os.path.expanduser(local))
    return place.rstrip("/")


def filesystem(place: str) -> tuple[AbstractFileSystem, str]:
    """Return the file system of a location, and the path on it.

    Args:
        place: local path or fsspec URL.

    Raises:
        MissingDriver: the package for this kind of URL is not installed.
        ConfigError: no file system supports this kind of URL.
    """
    if place.startswith("file://") or not is_url(place):
        return LocalFileSystem(), absolute(place)  # fsspec would split a name at "::"
    try:
        fs, path = fsspec.core.url_to_fs(place) if _is_chain(place) else _plain_filesystem(place)
    except ImportError as error:
        scheme = place.partition("://")[0]
        raise MissingDriver(
            f"Expected an installed package for {scheme}:// URLs, got none ({error})."
        ) from None
    except ValueError as error:
        raise ConfigError(
            f"Expected a local path or a URL that fsspec can open, got {place} ({error})."
        ) from None
    return fs, str(path)


def _is_chain(url: str) -> bool:
    """Return whether `::` separates several URLs, instead of being a part of a name."""
    first, *others = url.split("::")
    known = fsspec.available_protocols()
    return "://" not in first or any("://" in other or other in known for other in others)


def _plain_filesystem(url: str) -> tuple[AbstractFileSystem, str]:
    """Do the same as fsspec.core.url_to_fs, which would split a name at `::`."""
    kind = fsspec.get_filesystem_class(url.partition("://")[0])
    fs = fsspec.filesystem(url.partition("://")[0], **kind._get_kwargs_from_urls(url))
    return fs, kind._strip_protocol(url)


def access_errors() -> tuple[type[Exception], ...]:
    """Return the exceptions that file systems raise: OSError and the errors of remote clients.

    The clients are optional dependencies. A client that raised an error has been imported already,
    so nothing is imported here.
    """
    classes = (
        ("aiohttp", "ClientError"),
        ("botocore.exceptions", "BotoCoreError"),
        ("google.auth.exceptions", "GoogleAuthError"),
        ("gcsfs.retry", "HttpError"),
        ("azure.core.exceptions", "AzureError"),
    )
    loaded = [(sys.modules[module], name) for module, name in classes if module in sys.modules]
    return (OSError, *(getattr(module, name) for module, name in loaded))


def location_errors() -> tuple[type[Exception], ...]:
    """Return access_errors() and those of an invalid location: no driver, a port of 99999."""
    return (ConfigError, ValueError, OverflowError, *access_errors())


def list_files(folder: str, suffix: str) -> tuple[AbstractFileSystem, list[str]]:
    """Return the file system of a folder, and the sorted paths of its files with the suffix.

    A glob pattern is not used, because it would interpret a bracket in the folder's own name.

    Args:
        folder: local path or fsspec URL; a missing folder has no files.
        suffix: end of the file names, such as ".json".
    """
    fs, path = filesystem(folder)
    fs.invalidate_cache(path)  # otherwise files added by other machines are not listed
    try:
        names = fs.ls(path, detail=False)
    except FileNotFoundError:
        names = []
    return fs, sorted(name for name in names if name.endswith(suffix))


def read_files(fs: AbstractFileSystem, paths: list[str]) -> list[bytes]:
    """Return the contents of the files.

    Raises:
        The error of the first file that cannot be read.
    """
    contents = []
    for content in try_read_files(fs, paths):
        if isinstance(content, Exception):
            raise content
        contents.append(content)
    return contents


def try_read_files(fs: AbstractFileSystem, paths: list[str]) -> list[bytes | Exception]:
    """Return the content of each file, or the error that reading it raised.

    A store behind a network answers many requests at once. fsspec's cat() is not used, because it
    would interpret a bracket in a path.
    """
    if not isinstance(fs, LocalFileSystem):
        return list(fs.cat_ranges(paths, None, None, on_error="return"))
    contents: list[bytes | Exception] = []
    for path in paths:
        try:
            contents.append(Path(path).read_bytes())  # half the time of fsspec's, measured
        except OSError as error:
            contents.append(error)
    return contents


def write_atomic(url: str, data: bytes) -> None:
    """Write the file atomically: a reader sees the old content or the new content, never a part.

    Args:
        url: local path or fsspec URL; its folder is created.
        data: the whole content.

    Raises:
        DiskFull: the disk is full; no partial file remains.
        OSError: the file cannot be written; no partial file remains.
    """
    fs, path = filesystem(url)
    fs.makedirs(path.rpartition("/")[0], exist_ok=True)
    if not isinstance(fs, LocalFileSystem):
        fs.pipe_file(path, data)  # object stores publish complete objects only
        return
    part = f"{path}.{uuid4().hex}.part"
    try:
        with open(part, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        if os.path.exists(part):
            os.unlink(part)
        if is_full_disk(error):
            raise disk_full(path, error.strerror, len(data)) from None
        raise


def read_if_exists(url: str) -> bytes | None:
    """Return the content of the file, or None if there is none, also if it was removed just now."""
    fs, path = filesystem(url)
    try:
        return bytes(fs.cat_file(path))
    except (FileNotFoundError, NotADirectoryError):
        return None


def remove_if_exists(fs: AbstractFileSystem, path: str) -> None:
    """Remove the file; another process may have removed it already."""
    with suppress(FileNotFoundError):
        fs.rm_file(path)


def write_if_absent(url: str, data: bytes) -> None:
    """Write the file atomically, unless it exists.

    Args:
        url: local path or fsspec URL. The name is derived from the content, so that a second writer
            would write the same bytes.
        data: the whole content.
    """
    fs, path = filesystem(url)
    if not fs.exists(path):
        write_atomic(url, data)
