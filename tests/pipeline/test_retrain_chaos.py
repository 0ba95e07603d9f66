"""Retrainings that are killed with SIGKILL at random moments, and the next one that finishes them.

The children are forked from a server that has imported ZenML, MLflow and torch, so that a kill
falls into the retraining and not into its imports.
"""

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

from regraft import registry
from regraft.registry.ledger import read
from regraft.split.memory import recall
from regraft.state import environment, marked_runs, open_state

pytestmark = [pytest.mark.pipeline, pytest.mark.timeout(3000)]

NO_STAGE = ("finished", "before it began", "before its run", "after its end")


@pytest.fixture(scope="module")
def forked(tmp_path_factory):
    """Where children come from: a process that has imported all that a retraining needs."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.pipeline.tiny_retrain"])
    forkserver._forkserver._stop()  # another file's would have imported other things
    with pytest.MonkeyPatch.context() as patched:
        here = Path(__file__).parent
        patched.setenv("PYTHONPATH", f"{here}{os.pathsep}{here.parent.parent}")
        nowhere = open_state(tmp_path_factory.mktemp("nowhere"))
        for name, value in environment(nowhere, debug=False).items():
            patched.setenv(name, value)
        forkserver.ensure_running()
    yield context
    forkserver._forkserver._stop()


def run(forked, world: World, limit_s: float | None = None) -> int | None:
    """The exit code of a retraining, -9 if it was killed after limit_s seconds."""
    from tests.pipeline.tiny_retrain import child

    process = forked.Process(target=child, args=(str(world.folder),))
    process.start()
    process.join(limit_s)
    if process.is_alive():
        os.kill(process.pid, signal.SIGKILL)
    process.join(120)
    return process.exitcode


@pytest.mark.parametrize(
    "kills",
    [
        pytest.param((5,), id="five"),
        pytest.param((1,) * 25 + (5,) * 3, id="forty", marks=pytest.mark.long),
    ],
)
def test_killed_at_random_moments_the_next_retraining_repairs_and_finishes(world, forked, kills):
    """After each round of kills one is let live, and finishes what all of them have begun."""
    dice, n_batches, whole_s = random.Random(5), 0, 0.0
    for _ in range(2):  # the first one is slower than all others
        n_batches = grown(world, n_batches)
        began = time.monotonic()
        code = run(forked, world)
        assert code == 0
        whole_s = time.monotonic() - began
    where: Counter[str] = Counter()
    for n_wanted in kills:
        n_killed = 0
        while n_killed < n_wanted:
            is_fresh = code == 0  # else there is something left to do
            if is_fresh:
                n_batches = grown(world, n_batches)
            before, began = len(past(world)), time.monotonic()
            code = run(forked, world, dice.uniform(0, whole_s))
            assert code in (0, -signal.SIGKILL)
            where[stage_of(world, code, before)] += 1
            n_killed += code == -signal.SIGKILL
            if code == 0 and is_fresh:  # the machine is less busy than it was
                whole_s = min(whole_s, time.monotonic() - began)
        code = run(forked, world)
        assert code == 0
        check(world, 60 + 9 * n_batches)
    print(f"killed within {whole_s:.1f} s:", dict(where))
    promoted = [attempt.verdict for attempt in past(world) if attempt.outcome == "promoted"]
    assert len(set(promoted)) == len(promoted)
    if len(kills) > 1:
        assert len(where.keys() - set(NO_STAGE)) >= 6, where  # the kills were spread


def grown(world: World, n_batches: int) -> int:
    """How often photos have come, after nine more have."""
    add_photos(world, 3, seed=100 + n_batches)
    return n_batches + 1


def stage_of(world: World, code: int, n_before: int) -> str:
    """How far the newest pipeline run came before the kill."""
    if code == 0:
        return "finished"
    from zenml.client import Client

    if not (world.state.locks / f"retrain {NAME}.json").exists():
        return "before it began" if len(past(world)) == n_before else "after its end"
    newest = Client().list_pipeline_runs(sort_by="desc:created", size=1).items[0]
    steps = Client().get_pipeline_run(newest.id).steps
    return list(steps)[-1] if newest.status.value == "running" and steps else "before its run"


def check(world: World, n_photos: int):
    """After a round everything is as if nobody had been killed."""
    last = past(world)[-1]
    # Killed after the verdict and before its own record, it leaves the next one nothing to do.
    assert last.outcome in ("promoted", "kept", "held", "skipped"), last
    assert last.n_photos == n_photos
    ledger = read(world.tracking, NAME)
    assert not ledger.faults
    assert not ledger.pending
    registered = MlflowClient(tracking_uri=world.state.tracking_uri).get_registered_model(NAME)
    assert int(registered.aliases["champion"]) == ledger.entries[-1].after
    newest = registry.find(world.tracking, NAME, "challenger")
    assert registry.tags(world.tracking, newest)["verdict"] in ("promote", "keep", "hold")
    assert len(learned_by(world, newest)) == n_photos - n_judging(world)
    assert not marked_runs(world.state)
    assert {path.suffix for path in world.state.locks.iterdir()} == {".lock"}
    # Whoever was killed after the verdict: the journal tells of it all the same.
    told = [one.verdict for one in past(world) if one.was_trained]
    assert told == list(dict.fromkeys(entry.verdict for entry in ledger.entries))[1:]
    from zenml.client import Client

    runs = Client().list_pipeline_runs(size=200).items
    assert not [one.name for one in runs if one.status.value in ("running", "initializing")]


def learned_by(world: World, version: registry.RegisteredVersion) -> set[str]:
    return set(registry.load_manifest(world.tracking, version).sha256)


def n_judging(world: World) -> int:
    """Photos on the test side, by the split's memory."""
    sides = recall(str(world.state.splits / NAME))
    return int((sides.side == "test").sum())
