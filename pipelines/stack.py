"""ZenML's local stack, set up once and found again by every process.

ZenML is imported inside the functions: it reads its environment at import, so state.activate()
has to come first, and `import pipelines` has to work where no store exists.
"""

import importlib.metadata
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from regraft.core.files import write_whole
from regraft.core.state import State, locked

if TYPE_CHECKING:
    from zenml.client import Client

NAME = "regraft"


def bootstrap(state: State) -> None:
    """Makes ZenML's store, MLflow's store and the stack "regraft", and activates the stack.

    Every command that uses ZenML calls it first, once a process. Done twice, it changes nothing;
    two processes at once on one fresh folder wait for each other, because ZenML's own first
    creation kills one of two, and because ZenML writes its settings anew in every process.

    Args:
        state: opened, and activated before zenml was imported.
    """
    with locked(state), _quiet(state.debug):
        _create_mlflow_database(state)
        from zenml.client import Client

        client = Client()
        components = {
            kind: _component(client, kind, flavor, configuration)
            for kind, (flavor, configuration) in _components(state).items()
        }
        _activate(client, components)


def _components(state: State) -> dict[str, tuple[str, dict[str, str]]]:
    """Kind of component to its flavor and configuration."""
    return {
        "orchestrator": ("local", {}),
        "artifact_store": ("local", {"path": str(state.artifacts)}),
        "experiment_tracker": ("mlflow", {"tracking_uri": state.tracking_uri}),
        # It has no settings: it follows the experiment tracker of its stack.
        "model_registry": ("mlflow", {}),
    }


def _component(client: "Client", kind: str, flavor: str, configuration: dict[str, str]) -> str:
    """The id of the component, which exists and points into the state folder afterwards."""
    from zenml.enums import StackComponentType

    found = client.list_stack_components(name=NAME, type=kind, size=1, hydrate=True).items
    if not found:
        new = client.create_stack_component(NAME, flavor, StackComponentType(kind), configuration)
        return str(new.id)
    present = found[0].configuration
    if any(present.get(key) != value for key, value in configuration.items()):
        client.update_stack_component(
            found[0].id, StackComponentType(kind), configuration=configuration
        )
    return str(found[0].id)


def _activate(client: "Client", components: dict[str, str]) -> None:
    from zenml.enums import StackComponentType

    wanted = {StackComponentType(kind): id_ for kind, id_ in components.items()}
    found = client.list_stacks(name=NAME, size=1, hydrate=True).items
    if not found:
        client.create_stack(NAME, wanted)
    elif {kind: str(parts[0].id) for kind, parts in found[0].components.items()} != wanted:
        client.update_stack(
            found[0].id, component_updates={kind: [id_] for kind, id_ in wanted.items()}
        )
    if not found or client.active_stack_model.id != found[0].id:
        client.activate_stack(NAME)


def _create_mlflow_database(state: State) -> None:
    """Creates or upgrades MLflow's tables, once a version; two processes at once would clash."""
    version = importlib.metadata.version("mlflow")
    stamp = state.root / "mlflow.version"
    if state.mlflow_database.exists() and stamp.exists() and stamp.read_text() == version:
        return
    # MLflow's own way to upgrade is a command, which does these two calls.
    from mlflow.store.db.utils import _upgrade_db, create_sqlalchemy_engine_with_retry
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    if state.mlflow_database.exists():
        _upgrade_db(create_sqlalchemy_engine_with_retry(state.tracking_uri))
    # The Default experiment gets its folder here; it would be the working directory's otherwise.
    SqlAlchemyStore(state.tracking_uri, str(state.mlflow_artifacts))
    write_whole(str(stamp), version.encode())


def hush() -> None:
    """Keeps what ZenML says off the screen, tracebacks of failing steps too; its log has them.

    To be called after bootstrap(): ZenML sets up its console when it is imported.
    """
    from zenml.logger import ZenMLConsoleHandler

    for handler in logging.getLogger().handlers:
        if isinstance(handler, ZenMLConsoleHandler):
            handler.setLevel(logging.CRITICAL + 1)


@contextmanager
def _quiet(debug: bool) -> Iterator[None]:
    """Keeps ZenML's warnings about the active stack, news to nobody, off the console."""
    logger = logging.getLogger("zenml")
    level = logger.level
    if not debug:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
