"""The locations that the rows of a manifest may name: its folder, and what the settings add.

A manifest is written by others: it must not make Regraft read a file or a server that its user has
not named. See docs/decisions/023-a-manifest-names-photos-below-itself.md.
"""

import logging
import os
import re
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache
from urllib.parse import unquote

from regraft.core.config import IngestConfig
from regraft.core.errors import UnusablePhoto
from regraft.core.files import absolute, is_url
from regraft.core.text import format_count
from regraft.data.ingest.decode import NO_DRIVER
from regraft.data.ingest.read_policy import LOCAL, NOT_ALLOWED, Location, parse_location

logger = logging.getLogger("regraft.ingest")

_AZURE = ("abfs", "abfss", "az")
_REAL_FOLDERS = 4096  # folders whose real path is remembered; guess


class RowLocations:
    """The locations that the rows of a manifest may name.

    Args:
        place: the manifest: absolute local path or fsspec URL.
        config: `schemes` and `roots` are used.
    """

    def __init__(self, place: str, config: IngestConfig) -> None:
        self._folder = place.rpartition("/")[0]
        self._schemes = config.schemes
        roots = [self._folder, *map(absolute, config.roots)]
        self._urls = [root for root in roots if is_url(root)]
        self._real_folders = [os.path.realpath(root or "/") for root in roots if not is_url(root)]
        self._real_folder = lru_cache(_REAL_FOLDERS)(os.path.realpath)

    def locate(self, image: str) -> str:
        """Return the absolute path or URL that a cell names; nothing is opened.

        Args:
            image: not empty. A relative path is relative to the folder of the manifest.

        Raises:
            UnusablePhoto: "not allowed", or "invalid name".
        """
        if "\0" in image:
            raise UnusablePhoto("invalid name", "the cell contains a zero byte")
        location = parse_location(image)
        if location is None:
            raise UnusablePhoto(NOT_ALLOWED, "a chain of URLs (::) names several locations")
        is_relative = not (is_url(image) or os.path.isabs(image))
        if is_relative and is_url(self._folder):
            return self._below_url(image)
        return self._local(location.place) if location.scheme == LOCAL else self._remote(location)

    def _below_url(self, image: str) -> str:
        url = f"{self._folder}/{image.removeprefix('./')}"
        if "::" in image or not _is_below(url, self._folder):
            raise UnusablePhoto(NOT_ALLOWED, f"outside {self._folder}, the folder of the manifest")
        return url

    def _local(self, path: str) -> str:
        folder = "/" if is_url(self._folder) else self._folder
        path = os.path.normpath(os.path.join(folder, path))
        real = os.path.join(self._real_folder(os.path.dirname(path)), os.path.basename(path))
        if os.path.islink(path):
            real = os.path.realpath(path)
        if any(real.startswith(os.path.join(root, "")) for root in self._real_folders):
            return path
        raise UnusablePhoto(
            NOT_ALLOWED,
            f"outside the folder of the manifest; to read it, add {os.path.dirname(real)} to "
            f"ingest.roots",
        )

    def _remote(self, location: Location) -> str:
        scheme, url = location
        if any(_is_below(url, root) for root in self._urls):
            return url
        allowed = ", ".join(self._schemes) or "no URL"
        if scheme not in self._schemes:
            raise UnusablePhoto(NOT_ALLOWED, f"{scheme}://; ingest.schemes allows {allowed}")
        if scheme in _AZURE and "@" in url.partition("://")[2].partition("/")[0]:
            detail = "the URL names an account; to read it, add its beginning to ingest.roots"
            raise UnusablePhoto(NOT_ALLOWED, detail)
        return url


def log_missing_drivers(errors: Iterable[UnusablePhoto]) -> None:
    """Log each package that is missing to open URLs, once, with the number of photos."""
    schemes = Counter(error.detail for error in errors if error.reason == NO_DRIVER)
    for detail, n in schemes.items():
        logger.warning("%s: %s", format_count(n, "photo"), detail)


def _is_below(url: str, root: str) -> bool:
    beginning = root.rstrip("/") + "/"
    below = unquote(url.removeprefix(beginning))
    return url.startswith(beginning) and ".." not in re.split(r"[/\\]", below)
