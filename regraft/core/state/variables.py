"""The variables that ZenML and MLflow read, so that they use the state folder and stay quiet."""

import os
import re
import sys
from pathlib import Path

import regraft
from regraft.core.errors import StateError
from regraft.core.state.folder import State

# Variables of the caller's shell that would lead ZenML or MLflow to another store.
_FOREIGN = re.compile(
    r"ZENML_(STORE|SECRETS_STORE|BACKUP_SECRETS_STORE|ACTIVE|DEFAULT|SERVER|LOCAL_STORES)"
    r"(_.*)?|DISABLE_DATABASE_MIGRATION|MLFLOW_(RUN|EXPERIMENT)_(ID|NAME)"
)


def environment(state: State, debug: bool) -> dict[str, str]:
    """The variables that ZenML and MLflow read when they are imported.

    Args:
        state: an opened state folder.
        debug: let them talk.
    """
    return {
        "ZENML_CONFIG_PATH": str(state.zenml),
        # Not a folder with .zen in it: else ZenML looks for one above the working directory,
        # whose stack would win over ours.
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
        "GIT_PYTHON_REFRESH": "quiet",  # no git on the machine is no news
        # What would be written into the user's home otherwise: the fonts that matplotlib found,
        # and what uv keeps when ZenML asks it for the installed packages.
        "MPLCONFIGDIR": str(state.root / "matplotlib"),
        "UV_NO_CACHE": "1",
    }


def activate(state: State) -> None:
    """Puts environment() into this process, and takes out what leads to another store.

    Raises:
        StateError: zenml was imported before, and reads another folder.
    """
    variables = environment(state, state.debug)
    current = os.environ.get("ZENML_CONFIG_PATH")
    if "zenml" in sys.modules and current != variables["ZENML_CONFIG_PATH"]:
        raise StateError(
            f"Expected to choose the state folder {state.root} before zenml is imported, but it "
            f"was imported with {current or 'its own default'}. Use one state folder a process."
        )
    for name in [name for name in os.environ if _FOREIGN.fullmatch(name)]:
        del os.environ[name]
    os.environ.update(variables)
