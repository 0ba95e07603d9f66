"""Kill processes with SIGKILL during a promotion or a rollback, and let processes race.

The children are forked from the test process, which has imported everything, so a child costs a
fraction of a second. Some are killed at a random time. Others kill themselves at the n-th SQL
statement, also inside a transaction of SQLite.
"""

import multiprocessing
import os
import random
import signal
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from functools import partial
from itertools import count
from multiprocessing.connection import Connection
from statistics import median

import pytest
from mlflow import MlflowClient
from sqlalchemy import event
from sqlalchemy.engine import Engine
from tiny_challenger import tracking_in
from tiny_retrain import forget_connections

from regraft import registry
from regraft.core.config import TrackingConfig
from regraft.core.errors import ChampionMoved
from regraft.registry.champion import (
    ChampionChange,
    move_champion,
    reconcile,
    roll_back,
    serving_version,
)
from regraft.registry.champion_history import rollback_candidates
from regraft.registry.ledger import list_entries, list_faults, read_ledger

pytestmark = pytest.mark.pipeline

N_VERSIONS = 9
N_RANDOM_KILLS = 40
# The point of the kill, as a fraction of the SQL statements of a change. Two of the five are before
# the ledger entry, two after it, and one after the change of the alias.
FIVE_PLACES = (0.0, 0.2, 0.5, 0.7, 0.86)
TWENTY_PLACES = tuple(part / 19 for part in range(20))
NOWHERE, ENTRY_ONLY, MOVED, FINISHED = "before the entry", "after the entry", "moved", "finished"


FORK = multiprocessing.get_context("fork")


@pytest.fixture
def tracking(tmp_path):
    """A store with versions 1 to 9 of the model "tiny"; version 1 is champion."""
    tracking = tracking_in(tmp_path)
    client = MlflowClient(tracking_uri=tracking.uri, registry_uri=tracking.uri)
    client.create_registered_model("tiny")
    for number in range(N_VERSIONS):
        client.create_model_version("tiny", "regraft:/nothing", tags={"content_hash": f"{number}"})
    promote(tracking, 1, None)
    return tracking


def promote(tracking: TrackingConfig, after: int, expected: int | None):
    move = ChampionChange("promote", after, "", "better", "chaos")
    return move_champion(tracking, "tiny", move, expected, datetime.now(UTC))


def act(tracking: TrackingConfig, after: int, before: int | None, is_rollback: bool):
    if is_rollback:
        roll_back(tracking, "tiny", "chaos", "worse", datetime.now(UTC))
    else:
        promote(tracking, after, before)


def die_at(number: int) -> Iterator[int]:
    """Kill this process just before its n-th SQL statement or COMMIT from now on; 0: never."""
    counter = count(1)

    def step(*_: object):
        if next(counter) == number:
            os.kill(os.getpid(), signal.SIGKILL)

    event.listen(Engine, "before_cursor_execute", step)
    event.listen(Engine, "commit", step)
    return counter


def child(pipe: Connection, uri: str):
    """Open the store, report "ready", receive a change and make it, or die.

    Sends the number of SQL statements and commits, or "ChampionMoved".
    """
    forget_connections()
    tracking = TrackingConfig(uri=uri)
    assert serving_version(tracking, "tiny")
    pipe.send("ready")
    decision, dies_at = pipe.recv()
    counter = die_at(dies_at)
    try:
        act(tracking, *decision)
    except ChampionMoved:
        pipe.send("ChampionMoved")
    else:
        pipe.send(next(counter) - 1)


class Victim:
    """A process that is ready to change the champion."""

    def __init__(self, tracking):
        self.pipe, theirs = FORK.Pipe()
        self.process = FORK.Process(target=child, args=(theirs, tracking.uri))
        self.process.start()
        theirs.close()

    def go(self, decision: tuple[int, int, bool], dies_at: int = 0):
        self.pipe.send((decision, dies_at))

    def wait(self):
        assert self.pipe.recv() == "ready"

    def end(self):
        self.process.join(timeout=60)
        assert not self.process.is_alive()
        self.pipe.close()


class Victims:
    """Victims in turn; the next victim starts while the present victim is checked."""

    def __init__(self, tracking):
        self.new = partial(Victim, tracking)
        self.spare = self.new()

    def take(self) -> Victim:
        victim = self.spare
        victim.wait()
        self.spare = self.new()
        return victim

    def __enter__(self):
        return self

    def __exit__(self, *_: object):
        self.spare.process.kill()
        self.spare.end()


def decide(tracking, dice: random.Random) -> tuple[int, int, bool]:
    """Return (after, before, is_rollback) of the next change."""
    before = serving_version(tracking, "tiny")
    back = rollback_candidates(list_entries(tracking, "tiny"), before)
    if back and dice.random() < 0.5:
        return back[0], before, True
    return dice.choice([n for n in range(1, N_VERSIONS + 1) if n != before]), before, False


def check_killed(tracking, decision: tuple[int, int, bool], n_before: int) -> str:
    """Check the invariants after a kill and return how far the change came."""
    after, before, _ = decision
    champion = registry.get_aliases(tracking, "tiny")["champion"]
    assert champion in (before, after)
    assert list_faults(tracking, "tiny") == ()
    ledger = read_ledger(tracking, "tiny")
    assert len(ledger.entries) - n_before in (0, 1)
    if len(ledger.entries) == n_before:
        assert champion == before
        return NOWHERE
    assert ledger.entries[-1].after == after
    if champion == before:
        assert ledger.pending
        return ENTRY_ONLY
    return MOVED if ledger.pending else FINISHED


def recover(tracking, dice: random.Random, n_entries: int):
    """Check that the next command can reconcile the registry and change the champion."""
    reconcile(tracking, "tiny", datetime.now(UTC))
    told = list_entries(tracking, "tiny")
    assert len(told) == n_entries  # no change was recorded as made by hand
    called, back = registry.get_aliases(tracking, "tiny"), rollback_candidates(told, told[-1].after)
    assert called["champion"] == told[-1].after
    assert called.get("previous") == (back[0] if back else None)
    after, before, is_rollback = decide(tracking, dice)
    act(tracking, after, before, is_rollback)
    assert serving_version(tracking, "tiny") == after
    assert list_faults(tracking, "tiny") == ()


def killed(victims: Victims, tracking, dice, delay_s: float, dies_at: int = 0) -> str:
    """Kill a change after a delay or at a statement; return how far it came."""
    decision, n_before = decide(tracking, dice), len(list_entries(tracking, "tiny"))
    victim = victims.take()
    victim.go(decision, dies_at)
    if not dies_at:
        time.sleep(delay_s)
        victim.process.kill()
    victim.end()
    outcome = check_killed(tracking, decision, n_before)
    recover(tracking, dice, n_before + (outcome != NOWHERE))
    return outcome


def measure(victims: Victims, tracking, dice: random.Random, n_moves: int) -> tuple[float, int]:
    """Return the median seconds and SQL statements of changes without a kill."""
    times, statements = [], []
    for _ in range(n_moves):
        victim, decision = victims.take(), decide(tracking, dice)
        start = time.monotonic()
        victim.go(decision)
        statements.append(victim.pipe.recv())
        times.append(time.monotonic() - start)
        victim.end()
    return median(times), int(median(statements))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_after_a_kill_at_any_time_one_champion_serves_and_the_next_command_works(tracking):
    dice = random.Random(20261124)
    with Victims(tracking) as victims:
        duration_s, _ = measure(victims, tracking, dice, 3)
        # Up to four times the measured time: the machine may be busier now.
        longest = [duration_s * dice.choice((1, 2, 4)) for _ in range(N_RANDOM_KILLS)]
        delays = [dice.uniform(0, most_s) for most_s in longest]
        outcomes = Counter(killed(victims, tracking, dice, delay_s) for delay_s in delays)
    print(f"{N_RANDOM_KILLS} kills of changes that take {duration_s:.2f} s: {dict(outcomes)}")
    assert 0 < outcomes[NOWHERE] < N_RANDOM_KILLS, outcomes


@pytest.mark.parametrize(
    "places",
    [
        pytest.param(FIVE_PLACES, id="five"),
        pytest.param(TWENTY_PLACES, id="twenty", marks=pytest.mark.slow),
    ],
)
def test_after_a_kill_at_any_statement_one_champion_serves_and_the_next_command_works(
    tracking, places
):
    dice = random.Random(7)
    with Victims(tracking) as victims:
        _, n_statements = measure(victims, tracking, dice, 1)
        at = [round(1 + (n_statements - 1) * place) for place in places]
        outcomes = Counter(killed(victims, tracking, dice, 0, dies_at) for dies_at in at)
    print(f"{len(places)} kills spread over {n_statements} SQL statements: {dict(outcomes)}")
    for outcome in (NOWHERE, ENTRY_ONLY, MOVED):
        assert outcomes[outcome], outcomes


def test_one_of_eight_concurrent_promotions_succeeds(tracking):
    racers = [Victim(tracking) for _ in range(8)]
    for racer in racers:
        racer.wait()
    for number, racer in enumerate(racers, 2):
        racer.go((number, 1, False))
    said = {number: racer.pipe.recv() for number, racer in enumerate(racers, 2)}
    for racer in racers:
        racer.end()
    (winner,) = [number for number, word in said.items() if word != "ChampionMoved"]
    assert registry.get_aliases(tracking, "tiny") == {"champion": winner, "previous": 1}
    assert [e.after for e in list_entries(tracking, "tiny")] == [1, winner]
    assert list_faults(tracking, "tiny") == ()


def test_there_is_exactly_one_champion_at_any_time(tracking):
    """A thread reads the database all the time, besides MLflow."""
    path, seen, done = tracking.uri.removeprefix("sqlite:///"), [], threading.Event()
    query = "SELECT count(*), max(version) FROM registered_model_aliases WHERE alias = 'champion'"

    def watch():
        with closing(sqlite3.connect(path, timeout=60)) as connection:
            while not done.is_set():
                seen.append(connection.execute(query).fetchone())

    watcher = threading.Thread(target=watch)
    watcher.start()
    for before, after in ((1, 2), (2, 3)):
        promote(tracking, after, before)
    for before in (3, 2):
        act(tracking, 0, before, is_rollback=True)
    done.set()
    watcher.join()
    assert {n for n, _ in seen} == {1}
    assert {version for _, version in seen} == {1, 2, 3}
