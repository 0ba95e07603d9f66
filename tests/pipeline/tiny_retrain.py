"""Retrainings of a tiny world: changes of the photos, and processes that are killed.

A process is forked from the test process, which has imported everything, so that it costs no
import. zenml is imported in functions: no test module may import it when it is collected.
"""

import os
import shutil
import signal
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path

import torch
from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore as RegistryStore
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore as TrackingStore
from threadpoolctl import threadpool_limits

from regraft.core.state import activate, environment
from regraft.operations import journal
from regraft.operations.journal import Attempt
from tests.pipeline.conftest import reset_zenml
from tests.pipeline.tiny_challenger import draw_photos
from tests.pipeline.tiny_train import NAME, World


def past(world: World) -> list[Attempt]:
    """Every attempt in the world's journal, oldest first."""
    return journal.read_attempts(str(world.state.journal), NAME)


def add_photos(world: World, n: int, seed: int = 7):
    """Add n photos of each colour, all different from the existing photos."""
    scratch = world.folder / "more"
    draw_photos(scratch, n, seed=seed)
    for path in sorted(scratch.rglob("*.png")):
        shutil.move(path, world.photos / path.parent.name / f"more-{seed}-{path.name}")
    shutil.rmtree(scratch)


def forget_connections():
    """Drop the database connections that a forked process inherits from its parent."""
    for store in (RegistryStore, TrackingStore):
        for engine in store._engine_map.values():
            engine.dispose(close=False)


def run(world: World, *settings: str, dies_after: str = "", limit_s: float | None = None):
    """The process of one retraining, after it ended; its exit code is -SIGKILL if it was killed.

    Args:
        dies_after: the stage after whose work it kills itself, before ZenML is told; "" is none.
        limit_s: seconds after which it is killed from outside; None lets it live.
    """
    import pipelines.approval
    import pipelines.retrain  # noqa: F401 - imported before the fork, so that a child need not

    reset_zenml()  # which closes what this process has open
    process = get_context("fork").Process(target=_child, args=(world.folder, settings, dies_after))
    process.start()
    process.join(limit_s)
    if process.is_alive():
        os.kill(process.pid, signal.SIGKILL)
    process.join(120)
    return process


def _child(folder: Path, settings: tuple[str, ...], dies_after: str):
    """Run one retraining, as `regraft retrain` does."""
    forget_connections()
    world = World(folder)
    os.environ.update(environment(world.state, debug=False))
    reset_zenml()
    activate(world.state)
    # The threads of the parent's pools are not in this process, and OpenMP would wait for them.
    torch.set_num_threads(1)
    with threadpool_limits(1):
        if dies_after:
            _die_after(dies_after)
        world.retrain(*settings)


def _die_after(stage: str):
    """Kills this process once the stage has done its work, before its result is stored."""
    from zenml.steps import BaseStep

    work: Callable[..., object] = BaseStep.call_entrypoint

    def work_and_die(step: BaseStep, *arguments: object, **options: object) -> object:
        result = work(step, *arguments, **options)
        if step.name == stage:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    BaseStep.call_entrypoint = work_and_die
