"""The policy that limits which files and URLs a request may read."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from regraft.core.errors import ConfigError, UnusablePhoto
from regraft.data.ingest.decode import read_bytes

# Each scheme reads a single object and no other location (unlike reference://, zip:// or ::).
SCHEMES = ("file", "s3", "gs", "gcs", "abfs", "abfss", "az", "http", "https")
DEFAULT_MAX_BYTES = 64 * 2**20  # guess: a photo of 100 megapixels fits as JPEG


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
    scheme, separator, path = place.partition("://")
    scheme = scheme.lower() if separator else "file"
    if scheme not in policy.schemes or "::" in place:
        allowed = ", ".join(policy.schemes) or "no path and no URL"
        raise UnusablePhoto("not allowed", f"image_schemes allows {allowed}")
    if separator:
        place = path if scheme == "file" else f"{scheme}://{path}"
    try:
        return read_bytes(place, policy.max_bytes)
    except (
        ConfigError,
        ValueError,
    ) as error:  # no driver for the scheme, or an invalid path or URL
        detail = f"{type(error).__name__}: the location cannot be opened"
        raise UnusablePhoto("unreadable", detail) from None
