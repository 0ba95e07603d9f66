"""The secret of a target, read at the moment when it is needed."""

import os
from pathlib import Path

from regraft.core.config import Target


def secret_of(target: Target) -> str | None:
    """The secret, "" if the target has none; None if there should be one and is not.

    A file's line break at the end is no part of it.
    """
    if not target.has_secret:
        return ""
    if target.secret_env:
        return os.environ.get(target.secret_env, "").strip() or None
    try:
        return Path(target.secret_file).expanduser().read_text(encoding="utf-8").strip() or None
    except (OSError, UnicodeDecodeError, RuntimeError):  # ~ of a user who has no home
        return None


def where_from(target: Target) -> str:
    """Where the secret is looked for, in words."""
    if target.secret_env:
        return f"the environment variable {target.secret_env}"
    return f"the file {target.secret_file}"
