"""Retrainings that are killed with SIGKILL, and the next one that repairs and finishes them.

Some kill themselves when a stage has done its work and nobody has been told of it, some are killed
from outside at a random moment. They are forked after the imports, so that a kill falls into the
retraining.
"""

import random
import signal
import time
from collections import Counter
from datetime import UTC, datetime

import pytest
from mlflow import MlflowClient
from tiny_challenger import draw_photos, weights_file
from tiny_retrain import add_photos, past, run
from tiny_train import NAME, World

from regraft import registry
from regraft.core.state import marked_runs, places
from regraft.data.split.memory import load_assignments
from regraft.registry.ledger import read_ledger
from tests.pipeline.conftest import copy_of, one_thread, reset_zenml

pytestmark = pytest.mark.pipeline

NO_STAGE = ("finished", "before it began", "before its run", "after its end")
# Stages before and after the verdict; each of the latter needs new photos to be reached again.
BEFORE = (
    "begin",
    "ingest",
    "split",
    "advise",
    "find_champion",
    "choose_start",
    "load_pretrained",
    "freeze",
    "fine_tune",
    "interpolate",
    "measure_transfer",
    "evaluate",
    "register",
    "promote",
)
AFTER = ("mirror", "sum_up", "conclude")
CHEAP = (
    "tune.epochs=1",
    "registry.n_parity=1",
    "evaluate.n_gallery=0",
    "behaviour.n_photos=0",
    "drift.n_permutations=1000",
    "retrain.interpolations=[0.5]",
)
N_PER_CLASS = 12


@pytest.fixture
def untrained(template, tmp_path, monkeypatch):
    """Photos, weights and a bootstrapped state without any training."""
    world = World(tmp_path / "world")
    draw_photos(world.photos, N_PER_CLASS)
    weights_file(world.weights)
    copy_of(template, world.folder / "state", monkeypatch)
    with one_thread():
        yield world
    reset_zenml()


def test_killed_after_a_stage_the_next_retraining_repairs_and_finishes(untrained):
    """The first model. The kill in `promote` leaves a verdict, which the next attempt records."""
    world = untrained
    stages = ("split", "fine_tune", "register", "promote", "conclude")
    killed = kill_after(world, stages)
    finish(world, *CHEAP)
    check(world, 3 * N_PER_CLASS, n_before=0)
    told = past(world)
    assert [attempt.outcome for attempt in told] == [
        "killed",
        "killed",
        "killed",
        "promote",  # the attempt that was killed in `promote`
        "skip",  # the attempt that was killed in `conclude`, after its record
        "skip",
    ]
    for attempt, process in zip(told, killed[:4], strict=False):
        assert str(process.pid) in attempt.reason
    promoted = told[3]
    assert (promoted.version, promoted.champion) == (1, 1)
    assert promoted.settings["tune.epochs"] == "1"
    (entry,) = read_ledger(world.tracking, NAME).entries
    assert (entry.verdict, entry.when) == (promoted.verdict, promoted.ended)
    assert told[4].advice.delta.n_changed == 0
    assert (told[5].advice, told[5].fingerprint) == (None, told[4].fingerprint)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_after_any_stage_the_next_retraining_repairs_and_finishes(world):
    for at, stages in enumerate([BEFORE, *([stage] for stage in AFTER)]):
        add_photos(world, 3, seed=100 + at)
        kill_after(world, stages)
        finish(world, *CHEAP)
        check(world, 60 + 9 * (at + 1), n_before=1)
    assert set(BEFORE + AFTER) == set(_stages())


def finish(world: World, *settings: str):
    """Run one retraining to its end.

    One that finds nothing new makes no pipeline run, and only a run sweeps what a kill left behind.
    """
    from regraft.orchestration.runs import sweep_stuck

    assert run(world, *settings).exitcode == 0
    if past(world)[-1].advice is None:
        sweep_stuck(world.state, datetime.now(UTC))


def kill_after(world: World, stages) -> list:
    """The processes that were killed, each after one of the stages."""
    killed = [run(world, *CHEAP, dies_after=stage) for stage in stages]
    assert [process.exitcode for process in killed] == [-signal.SIGKILL] * len(killed)
    return killed


def _stages() -> list[str]:
    """The stages of the newest pipeline run that trained."""
    from zenml.client import Client

    runs = Client().list_pipeline_runs(sort_by="desc:created", size=100).items
    return max((list(Client().get_pipeline_run(one.id).steps) for one in runs), key=len)


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_killed_at_random_moments_the_next_retraining_repairs_and_finishes(world):
    """Forty kills. After each round, one retraining runs to its end and finishes the work."""
    kills = (1,) * 25 + (5,) * 3
    dice, n_batches, whole_s = random.Random(5), 0, 0.0
    for _ in range(2):  # the first one is slower than all others
        n_batches = grown(world, n_batches)
        began = time.monotonic()
        code = run(world).exitcode
        assert code == 0
        whole_s = time.monotonic() - began
    where: Counter[str] = Counter()
    for n_wanted in kills:
        n_killed = 0
        while n_killed < n_wanted:
            is_fresh = code == 0  # else the last attempt left work
            if is_fresh:
                n_batches = grown(world, n_batches)
            before, began = len(past(world)), time.monotonic()
            code = run(world, limit_s=dice.uniform(0, whole_s)).exitcode
            assert code in (0, -signal.SIGKILL)
            where[stage_of(world, code, before)] += 1
            n_killed += code == -signal.SIGKILL
            if code == 0 and is_fresh:  # the machine is less busy than it was
                whole_s = min(whole_s, time.monotonic() - began)
        finish(world)
        code = 0
        check(world, 60 + 9 * n_batches, n_before=1)
    print(f"killed within {whole_s:.1f} s:", dict(where))
    promoted = [attempt.verdict for attempt in past(world) if attempt.outcome == "promote"]
    assert len(set(promoted)) == len(promoted)
    assert len(where.keys() - set(NO_STAGE)) >= 6, where  # the kills were spread


def grown(world: World, n_batches: int) -> int:
    """Add nine photos, and return the number of batches."""
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


def check(world: World, n_photos: int, n_before: int):
    """Check that the state is the same as without kills.

    Args:
        n_before: verdicts that the ledger has of other commands.
    """
    last = past(world)[-1]
    # An attempt that was killed between verdict and record leaves the next one no work.
    assert last.outcome in ("promote", "keep", "hold", "skip"), last
    assert last.n_photos == n_photos
    ledger = read_ledger(world.tracking, NAME)
    assert not ledger.faults
    assert not ledger.pending
    client = MlflowClient(tracking_uri=places(world.state).tracking.uri)
    aliases = client.get_registered_model(NAME).aliases
    assert int(aliases["champion"]) == ledger.entries[-1].after
    newest = registry.find(world.tracking, NAME, "challenger")
    assert registry.get_tags(world.tracking, newest)["verdict"] in ("promote", "keep", "hold")
    learned = set(registry.load_manifest(world.tracking, newest).sha256)
    assert len(learned) == n_photos - n_judging(world)
    assert not marked_runs(world.state)
    assert {path.suffix for path in world.state.locks.iterdir()} == {".lock"}
    # The journal holds the attempts that were killed after their verdict, too.
    told = [one.verdict for one in past(world) if one.was_trained]
    assert told == list(dict.fromkeys(entry.verdict for entry in ledger.entries))[n_before:]
    from zenml.client import Client

    runs = Client().list_pipeline_runs(size=200).items
    assert not [one.name for one in runs if one.status.value in ("running", "initializing")]


def n_judging(world: World) -> int:
    """Photos on the test split, by the split's memory."""
    sides = load_assignments(str(world.state.splits / NAME))
    return int((sides.split == "test").sum())
