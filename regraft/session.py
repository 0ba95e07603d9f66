"""A state folder opened for this process, and what runs DAGs on it: for the CLI and the API."""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regraft.core.state import State, activate, existing_state, open_state
from regraft.core.state import readable_state as open_readable

if TYPE_CHECKING:
    from regraft.operations.workflows.runner import PipelineRunner
    from regraft.operations.workflows.schedule import Scheduler


def new_state(root: Path, debug: bool = False) -> State:
    """Return the state folder, created if it is new, with ZenML and MLflow pointed at it."""
    state = open_state(root, debug)
    activate(state)
    return state


def known_state(root: Path, debug: bool = False) -> State:
    """Return the state folder of earlier runs, with ZenML and MLflow pointed at it.

    Raises:
        StateError: there is none, or it is not writable.
    """
    state = existing_state(root, debug)
    activate(state)
    return state


def readable_state(root: Path, debug: bool = False) -> State:
    """Return the state folder as known_state() does; it may be write-protected.

    Raises:
        StateError: there is none.
    """
    state = open_readable(root, debug)
    activate(state)
    return state


def runner_for(state: State) -> "PipelineRunner":
    """Return what runs the DAGs: ZenML on the private stack of the state folder."""
    from regraft.orchestration.runner import ZenRunner

    return ZenRunner(state, find_dag)


def scheduler_for(state: State) -> "Scheduler":
    """Return what runs DAGs at fixed times: the orchestrator of the state folder."""
    from regraft.orchestration.schedules import ZenScheduler

    return ZenScheduler(state, find_dag)


def find_dag(name: str) -> Callable[..., Any]:
    """Return the DAG of pipelines/NAME.py; it is imported now, which starts ZenML."""
    dag: Callable[..., Any] = getattr(importlib.import_module(f"pipelines.{name}"), name)
    return dag
