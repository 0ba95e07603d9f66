"""The secret and the address of a target, read only when they are needed."""

import os
from pathlib import Path

from regraft.core.config import Target


def read_secret(target: Target) -> str | None:
    """Return the secret, "" if the target has none, None if it should have one but it is missing.

    Whitespace around the secret is removed, such as the line break at the end of a file.
    """
    if not target.has_secret:
        return ""
    if target.secret_env:
        return _variable(target.secret_env)
    return _content(target.secret_file)


def read_address(target: Target) -> str | None:
    """Return the address or command line of a target, None if its variable or file is missing."""
    if not target.is_reference:
        return target.to
    kind, _, place = target.to.partition(":")
    return _variable(place) if kind == "env" else _content(place)


def _variable(name: str) -> str | None:
    return os.environ.get(name, "").strip() or None


def _content(path: str) -> str | None:
    try:
        return Path(path).expanduser().read_text(encoding="utf-8").strip() or None
    except (OSError, UnicodeDecodeError, RuntimeError):  # RuntimeError: ~ of an unknown user
        return None


def format_source(target: Target) -> str:
    """Return the name of the variable or file that holds the secret, in words."""
    if target.secret_env:
        return f"the environment variable {target.secret_env}"
    return f"the file {target.secret_file}"
