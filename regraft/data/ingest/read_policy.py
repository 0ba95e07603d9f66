"""The policy that limits which files and URLs a request may read."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Self, get_args

from regraft.core.config import RemoteScheme
from regraft.core.errors import ConfigError, UnusablePhoto
from regraft.core.files import is_url
from regraft.data.ingest.decode import read_bytes

LOCAL = "file"
SCHEMES = (LOCAL, *get_args(RemoteScheme))
NOT_ALLOWED = "not allowed"  # reason of an UnusablePhoto
DEFAULT_MAX_BYTES = 64 * 2**20  # guess: a photo of 100 megapixels fits as JPEG


class Location(NamedTuple):
    """What a text names: its scheme in lower case (LOCAL for a path), and the path or URL."""

    scheme: str
    place: str


def parse_location(text: str) -> Location | None:
    """Return the location that a text names; None for a chain of URLs, which names several.

    >>> parse_location("FILE:///a/b.jpg"), parse_location("S3://bucket/b.jpg").place
    (Location(scheme='file', place='/a/b.jpg'), 's3://bucket/b.jpg')
    """
    scheme, separator, path = text.partition("://")
    if not is_url(text) or not separator:
        return Location(LOCAL, text)
    scheme = scheme.lower()
    if scheme != LOCAL and "::" in text:
        return None
    return Location(scheme, path if scheme == LOCAL else f"{scheme}://{path}")


@dataclass(frozen=True)
class ReadPolicy:
    """The files and URLs that a served model may open.

    Args:
        schemes: a subset of SCHEMES; "file" stands for local paths. () = nothing may be opened.
        max_bytes: maximum size of a file in bytes, >= 1.
    """

    schemes: tuple[str, ...] = ()
    max_bytes: int = DEFAULT_MAX_BYTES

    @classmethod
    def from_model_config(cls, model_config: Mapping[str, Any] | None) -> Self:
        """Return the policy in MLflow's model_config.

        Raises:
            ConfigError: a scheme is not in SCHEMES, or the size is not a whole number >= 1.
        """
        config = dict(model_config or {})
        schemes = config.get("image_schemes") or []
        max_bytes = config.get("image_max_bytes", DEFAULT_MAX_BYTES)
        if not isinstance(schemes, list | tuple) or not set(schemes) <= set(SCHEMES):
            raise ConfigError(
                f"Expected image_schemes to be a list of {', '.join(SCHEMES)}, got {schemes!r}."
            )
        if type(max_bytes) is not int or max_bytes < 1:
            raise ConfigError(
                f"Expected image_max_bytes to be a whole number of bytes >= 1, got {max_bytes!r}."
            )
        return cls(tuple(schemes), max_bytes)

    def model_config(self) -> dict[str, Any]:
        """Return the policy as model_config; MLflow lets a caller change only stored keys."""
        return {"image_schemes": list(self.schemes), "image_max_bytes": self.max_bytes}


def read_allowed(place: str, policy: ReadPolicy) -> bytes:
    """Return the bytes of a regular file at a path or URL, if the policy allows it.

    Raises:
        UnusablePhoto: the policy does not allow the location (then nothing is opened), or the file
            cannot be read.
    """
    location = parse_location(place)
    if location is None or location.scheme not in policy.schemes:
        allowed = ", ".join(policy.schemes) or "no path and no URL"
        raise UnusablePhoto(NOT_ALLOWED, f"image_schemes allows {allowed}")
    return read_bytes(location.place, policy.max_bytes)
