"""Retrainings that are killed with SIGKILL at random moments, and the next one that finishes them.

The children are forked from a server that has imported ZenML, MLflow and torch, so that a kill
falls into the retraining and not into its imports.
"""

import json
import multiprocessing
import os
import random
import signal
import time
from collections import Counter
from multiprocessing import forkserver
from pathlib import Path

import pytest
from mlflow import MlflowClient
from test_retrain_command import add_photos, past
from tiny_train import NAME, World

import pipelines.retrain  # noqa: F401 - imported before the fork, so that a child need not
from regraft.registry.ledger import read
from regraft.state import activate, environment

pytestmark = [pytest.mark.pipeline, pytest.mark.timeout(1500)]

N_KILLS = 40
N_ROUNDS = 8  # each ends with one that is let live


def child(folder: str):
    """One retraining, as `regraft retrain` makes it."""
    world = World(Path(folder))
    os.environ.update(environment(world.state, debug=False))
    from tests.pipeline.conftest import reset_zenml

    reset_zenml()
    activate(world.state)
    import torch

    torch.set_num_threads(1)
    world.retrain()


@pytest.fixture(scope="module")
def forked():
    """Where children come from: a process that has imported this file and opened nothing."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    with pytest.MonkeyPatch.context() as patched:
        here = Path(__file__).parent
        patched.setenv("PYTHONPATH", f"{here}{os.pathsep}{here.parent.parent}")
        forkserver.ensure_running()
    yield context
    forkserver._forkserver._stop()


def run(forked, world: World, limit_s: float | None = None) -> int | None:
    """The exit code of a retraining, -9 if it was killed after limit_s seconds."""
    process = forked.Process(target=child, args=(str(world.folder),))
    process.start()
    process.join(limit_s)
    if process.is_alive():
        os.kill(process.pid, signal.SIGKILL)
    process.join(120)
    return process.exitcode


def test_killed_at_random_moments_the_next_retraining_repairs_and_finishes(world, forked):
    dice = random.Random(5)
    began = time.monotonic()
    add_photos(world, 3, seed=100)
    assert run(forked, world) == 0
    whole_s = time.monotonic() - began
    where: Counter[str] = Counter()
    for turn in range(N_ROUNDS):
        add_photos(world, 3, seed=101 + turn)
        for _ in range(N_KILLS // N_ROUNDS):
            before = len(past(world))
            code = run(forked, world, dice.uniform(0, whole_s))
            where[stage_of(world, code, before)] += 1
        assert run(forked, world) == 0
        check(world, turn)
    print("killed:", dict(where))
    assert sum(where.values()) == N_KILLS
    assert len(where) >= 4, where  # the kills were spread


def stage_of(world: World, code: int, n_before: int) -> str:
    """How far the newest pipeline run came before the kill."""
    if code == 0:
        return "finished"
    from zenml.client import Client

    if not (world.state.runs / f"retrain {NAME}.json").exists():
        return "before it began" if len(past(world)) == n_before else "after its end"
    newest = Client().list_pipeline_runs(sort_by="desc:created", size=1).items[0]
    steps = Client().get_pipeline_run(newest.id).steps
    return list(steps)[-1] if newest.status.value == "running" and steps else "before its run"


def check(world: World, turn: int):
    """After a round everything is as if nobody had been killed."""
    attempts = past(world)
    last = attempts[-1]
    assert last.outcome in ("promoted", "kept", "held"), last
    assert last.n_photos == 60 + 9 * (turn + 2)
    ledger = read(world.tracking, NAME)
    assert not ledger.faults
    assert not ledger.pending
    registered = MlflowClient(tracking_uri=world.state.tracking_uri).get_registered_model(NAME)
    assert int(registered.aliases["champion"]) == ledger.entries[-1].after == last.champion
    assert int(registered.aliases["challenger"]) == last.version
    judged = [entry.verdict for entry in ledger.entries if entry.action in ("promote", "keep")]
    assert last.verdict in judged
    markers = [json.loads(path.read_text()) for path in world.state.runs.glob("*.json")]
    assert not [marker for marker in markers if marker["name"].startswith("retrain")]
    from zenml.client import Client

    runs = Client().list_pipeline_runs(size=200).items
    assert not [one.name for one in runs if one.status.value in ("running", "initializing")]
