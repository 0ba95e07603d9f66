"""The secret of a target, read only when it is needed."""

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
        return os.environ.get(target.secret_env, "").strip() or None
    try:
        return Path(target.secret_file).expanduser().read_text(encoding="utf-8").strip() or None
    except (OSError, UnicodeDecodeError, RuntimeError):  # RuntimeError: ~ of an unknown user
        return None


def format_source(target: Target) -> str:
    """Return the name of the variable or file that holds the secret, in words."""
    if target.secret_env:
        return f"the environment variable {target.secret_env}"
    return f"the file {target.secret_file}"
