"""Environment variables that make ZenML and MLflow use the state folder and log little."""

import os
import re
import sys
from pathlib import Path

import regraft
from regraft.core.errors import StateError
from regraft.core.state.folder import State
from regraft.core.state.record import FILE

# Variables of the caller's shell that would make ZenML or MLflow use another store.
_FOREIGN = re.compile(
    r"ZENML_(STORE|SECRETS_STORE|BACKUP_SECRETS_STORE|ACTIVE|DEFAULT|SERVER|LOCAL_STORES)"
    r"(_.*)?|DISABLE_DATABASE_MIGRATION|MLFLOW_(RUN|EXPERIMENT)_(ID|NAME)"
)


def environment(state: State, debug: bool) -> dict[str, str]:
    """Return the environment variables that ZenML and MLflow read when they are imported.

    Args:
        state: an opened state folder.
        debug: whether they log debug messages.
    """
    return {
        "ZENML_CONFIG_PATH": str(state.zenml),
        # Prevents ZenML from searching for a folder with .zen above the working directory, whose
        # stack would take precedence over ours.
        "ZENML_REPOSITORY_PATH": str(state.zenml),
        "ZENML_CUSTOM_SOURCE_ROOT": str(Path(regraft.__file__).resolve().parent.parent),
        "ZENML_ANALYTICS_OPT_IN": "false",
        "ZENML_LOGGING_VERBOSITY": "DEBUG" if debug else "WARN",
        "ZENML_ENABLE_RICH_TRACEBACK": "false",
        "ZENML_ENABLE_REPO_INIT_WARNINGS": "false",
        "ZENML_DISABLE_INTERACTIVE_INPUT": "true",
        "ZENML_DISABLE_CLIENT_SERVER_MISMATCH_WARNING": "true",
        "AUTO_OPEN_DASHBOARD": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
        "MLFLOW_LOGGING_LEVEL": "DEBUG" if debug else "WARNING",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "GIT_PYTHON_REFRESH": "quiet",  # no warning if git is not installed
        # Prevents files in the user's home folder: matplotlib's font cache, and the cache that uv
        # writes when ZenML lists the installed packages.
        "MPLCONFIGDIR": str(state.root / "matplotlib"),
        "UV_NO_CACHE": "1",
    }


def active_root() -> Path | None:
    """Return the root of the state folder that activate() has chosen, None if there is none."""
    folder = os.environ.get("ZENML_CONFIG_PATH")
    root = Path(folder).parent if folder else None
    return root if root and (root / FILE).exists() else None


def activate(state: State) -> None:
    """Set the variables of environment() in this process, and unset those of other stores.

    Raises:
        StateError: zenml was imported before with another folder.
    """
    variables = environment(state, state.debug)
    current = os.environ.get("ZENML_CONFIG_PATH")
    if "zenml" in sys.modules and current != variables["ZENML_CONFIG_PATH"]:
        raise StateError(
            f"Expected to choose the state folder {state.root} before zenml is imported, but zenml "
            f"was imported with {current or 'its default folder'}. Use only one state folder in "
            "each process."
        )
    for name in [name for name in os.environ if _FOREIGN.fullmatch(name)]:
        del os.environ[name]
    os.environ.update(variables)
