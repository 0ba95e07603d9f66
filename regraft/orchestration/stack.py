"""ZenML's private local stack of a state folder, created once and reused by every process."""

import importlib.metadata
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from regraft.core.files import write_atomic
from regraft.core.state import (
    State,
    places,
    require_mlflow_database,
    require_zenml_database,
    state_lock,
    version_stamp,
)

if TYPE_CHECKING:
    from zenml.client import Client

NAME = "regraft"


def bootstrap(state: State) -> None:
    """Create ZenML's store, MLflow's store and the stack "regraft", and activate the stack.

    Every command that uses ZenML calls it first, once a process. A second call changes nothing.
    Two processes on one new folder wait for each other, because ZenML's own first creation kills
    one of two, and because ZenML rewrites its settings in every process.

    Args:
        state: opened, and activated before zenml was imported.

    Raises:
        DatabaseDamaged: a database is damaged, was emptied or is gone.
    """
    with state_lock(state), _quiet(state.debug):
        require_zenml_database(state)
        _create_mlflow_database(state)
        from zenml.client import Client

        client = Client()
        components = {
            kind: _component(client, kind, flavor, configuration)
            for kind, (flavor, configuration) in _components(state).items()
        }
        _activate(client, components)


def _components(state: State) -> dict[str, tuple[str, dict[str, str]]]:
    """Return the flavor and the configuration of each component, by its kind.

    The stack has no components for an MLflow server: ZenML would store the password of the server,
    and refuses one without a password. Regraft calls MLflow itself.
    """
    components: dict[str, tuple[str, dict[str, str]]] = {
        "orchestrator": ("local", {}),
        "artifact_store": ("local", {"path": str(state.artifacts)}),
    }
    if (uri := places(state).tracking.uri).startswith("sqlite:"):
        components["experiment_tracker"] = ("mlflow", {"tracking_uri": uri})
        # It has no settings: it follows the experiment tracker of its stack.
        components["model_registry"] = ("mlflow", {})
    return components


def _component(client: "Client", kind: str, flavor: str, configuration: dict[str, str]) -> str:
    """Return the component's id; it exists and points into the state folder afterwards."""
    from zenml.enums import StackComponentType

    components = client.list_stack_components(name=NAME, type=kind, size=1, hydrate=True).items
    if not components:
        new = client.create_stack_component(NAME, flavor, StackComponentType(kind), configuration)
        return str(new.id)
    present = components[0].configuration
    if any(present.get(key) != value for key, value in configuration.items()):
        client.update_stack_component(
            components[0].id, StackComponentType(kind), configuration=configuration
        )
    return str(components[0].id)


def _activate(client: "Client", components: dict[str, str]) -> None:
    from zenml.enums import StackComponentType

    wanted = {StackComponentType(kind): id_ for kind, id_ in components.items()}
    stacks = client.list_stacks(name=NAME, size=1, hydrate=True).items
    if not stacks:
        client.create_stack(NAME, wanted)
    elif {kind: str(parts[0].id) for kind, parts in stacks[0].components.items()} != wanted:
        client.update_stack(
            stacks[0].id, component_updates={kind: [id_] for kind, id_ in wanted.items()}
        )
    if not stacks or client.active_stack_model.id != stacks[0].id:
        client.activate_stack(NAME)


def _create_mlflow_database(state: State) -> None:
    """Create or upgrade the tables of the folder's own database, once for each MLflow version."""
    tracking = places(state).tracking
    if tracking.uri != f"sqlite:///{state.mlflow_database}":
        return
    version = importlib.metadata.version("mlflow")
    require_mlflow_database(state.mlflow_database)
    stamp = version_stamp(state.mlflow_database)
    if state.mlflow_database.exists() and stamp.exists() and stamp.read_text() == version:
        return
    from regraft.registry.tracking.database import create_or_upgrade_database  # slow to import

    create_or_upgrade_database(tracking.uri, state.mlflow_artifacts)
    write_atomic(str(stamp), version.encode())


def silence_zenml() -> None:
    """Keep ZenML's messages off the console, tracebacks of failing steps too; its log has them.

    Call it after bootstrap(): ZenML configures its console when it is imported.
    """
    from zenml.logger import ZenMLConsoleHandler

    for handler in logging.getLogger().handlers:
        if isinstance(handler, ZenMLConsoleHandler):
            handler.setLevel(logging.CRITICAL + 1)


@contextmanager
def _quiet(debug: bool) -> Iterator[None]:
    """Keep ZenML's warnings about the active stack off the console while the block runs."""
    logger = logging.getLogger("zenml")
    level = logger.level
    if not debug:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
