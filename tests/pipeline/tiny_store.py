"""Stores that are filled once, and put back between tests for a hundredth of what filling costs.

A store stays in its place: MLflow and ZenML hold the databases open and record absolute paths.
"""

import multiprocessing
import os
import shutil
import sqlite3
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import pytest
import torch
from mlflow.tracking._tracking_service import utils
from tiny_challenger import Trained, put, tracking_in, trained

from regraft import registry
from regraft.core.config import (
    BehaviourConfig,
    Config,
    EvaluateConfig,
    PromoteConfig,
    TrackingConfig,
)
from regraft.core.relocate import relocate_database
from regraft.core.state import State, places
from regraft.evaluation.evaluate import evaluate
from regraft.promotion import Verdict, promote
from tests.pipeline.conftest import copy_of, reset_zenml
from tests.pipeline.tiny_retrain import forget_connections

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
WHO = "ada@engine"
# Twelve test photos are too few to show anything at 5 %; no server is started for a verdict.
RULE = PromoteConfig(min_photos=1, level=0.1, max_negative_flips=0.5, smoke_test=False)
HUMAN = RULE.model_copy(update={"approval": "human"})
_DATABASE, _TRANSIENT = ".db", (".lock", "-journal", "-wal", "-shm")
_shared = tempfile.TemporaryDirectory()


class SavedFolder:
    """A folder whose contents can be saved under a name and put back, its SQLite files included."""

    def __init__(self, root: Path, saves: Path):
        self.root, self._saves = root, saves

    def __contains__(self, name: str) -> bool:
        return (self._saves / name).exists()

    def save(self, name: str):
        _make_alike(self.root, self._saves / name)

    def restore(self, name: str):
        _make_alike(self._saves / name, self.root)


class Store(SavedFolder):
    """An MLflow store with a space in its path, laid out as in a state folder.

    Args:
        folder: of its own.
        template: the root of another one, of which it begins as a copy; None: an empty store.
    """

    def __init__(self, folder: Path, template: Path | None = None):
        self.tracking = tracking_in(folder)
        super().__init__(folder / "state folder", folder / "saved")
        if template:
            adopt(template, self.root)
        self.save("start")


class StateFolder(SavedFolder):
    """A bootstrapped state folder, which ZenML uses until another one is entered."""

    def __init__(self, state: State, saves: Path):
        super().__init__(state.root, saves)
        self.saves = saves
        self.state, self.tracking = state, TrackingConfig(uri=places(state).tracking.uri)


@contextmanager
def state_folder(template: Path, folder: Path) -> Iterator[StateFolder]:
    """A copy of the template for all tests of a module."""
    from regraft.orchestration.stack import bootstrap

    with pytest.MonkeyPatch.context() as patched:
        state = copy_of(template, folder / "state folder", patched)
        bootstrap(state)
        made = StateFolder(state, folder / "saved")
        made.save("bootstrapped")
        yield made
        reset_zenml()


def adopt(template: Path, root: Path):
    """Puts the MLflow store below one state folder in place of that below another."""
    _make_alike(template / "mlflow", root / "mlflow")
    _back_up(template / "mlflow.db", root / "mlflow.db")
    relocate_database(root / "mlflow.db", template, root)
    # By run: another copy of the template in this process has the same runs in another place.
    utils._artifact_repos_cache.clear()


def in_children(*functions: Callable[[], object], limit_s: float = 120) -> list[int]:
    """The exit codes of forked processes that call a function each; -9 of one that was killed.

    Forked, because a new process needs ten seconds to import ZenML, MLflow and torch.
    """
    if "zenml" in sys.modules:
        reset_zenml()  # which closes what this process has open
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=_call_in_child, args=(one,)) for one in functions]
    for child in children:
        child.start()
    for child in children:
        child.join(limit_s)
        if child.is_alive():
            child.kill()
            raise AssertionError(f"still alive after {limit_s:g} s")
    return [child.exitcode for child in children]


def _call_in_child(function: Callable[[], object]):
    warnings.simplefilter("ignore")
    forget_connections()
    torch.set_num_threads(1)  # the threads of the parent's pool are not in this process
    function()


def with_bias(made: Trained, change: Callable) -> Trained:
    """The same model with another bias of its head, evaluated anew."""
    weights = dict(made.challenger.classifier.weights)
    weights["head.bias"] = change(weights["head.bias"].clone())
    classifier = replace(made.challenger.classifier, weights=weights)
    challenger = replace(made.challenger, classifier=classifier)
    report = evaluate(challenger, made.report.transfer, made.splits, EvaluateConfig())
    return Trained(challenger, report, made.splits)


@cache
def weak_model() -> Trained:
    """Never says the first class: better than the largest class alone, worse than trained()."""

    def without_first(bias):
        bias[0] = -1e4
        return bias

    return with_bias(trained(), without_first)


@cache
def equal_model() -> Trained:
    """Other weights than trained(), the same answers."""
    return with_bias(trained(), lambda bias: bias + 1)


@cache
def registered_pair() -> Path:
    """A store where weak_model() is version 1 and trained() version 2; neither was judged."""
    tracking = _new_store("pair")
    put(weak_model(), tracking)
    put(trained(), tracking)
    return Path(tracking.artifacts_url).parent


@cache
def waiting_pair() -> Path:
    """As registered_pair(), but version 1 serves, and the verdict about version 2 waits."""
    tracking = _new_store("waiting", registered_pair())
    judge(tracking, 1, weak_model())
    judge(tracking, 2, trained(), HUMAN)
    return Path(tracking.artifacts_url).parent


def _new_store(name: str, template: Path | None = None) -> TrackingConfig:
    folder = Path(_shared.name) / name
    folder.mkdir()
    return Store(folder, template).tracking


def rules(rule: PromoteConfig, tracking: TrackingConfig) -> Config:
    return Config(promote=rule, tracking=tracking, behaviour=BehaviourConfig(n_photos=0))


def judge(
    tracking: TrackingConfig, number: int, made: Trained, rule: PromoteConfig = RULE
) -> Verdict:
    """The verdict about a registered version, carried out; it is the challenger then."""
    version = registry.find(tracking, tracking.name, str(number))
    registry.set_alias(tracking, version, registry.CHALLENGER)
    return promote(version, made.splits, rules(rule, tracking), WHO, NOW, made.report)


def _make_alike(source: Path, target: Path):
    """Makes the folder hold what the other one holds; what is the same already is left alone."""
    target.mkdir(parents=True, exist_ok=True)
    wanted, present = _entries(source), _entries(target)
    for path in sorted(present.keys() - wanted.keys(), reverse=True):  # files before their folder
        shutil.rmtree(target / path) if present[path] is None else (target / path).unlink()
    for path, stamp in sorted(wanted.items()):
        if stamp is None:
            (target / path).mkdir(exist_ok=True)
        elif path.endswith(_DATABASE):
            _back_up(source / path, target / path)
        elif present.get(path) != stamp:
            shutil.copy2(source / path, target / path)


def _entries(root: Path) -> dict[str, tuple[int, int] | None]:
    """Of each path below, None for a folder, else size and time of change."""
    found: dict[str, tuple[int, int] | None] = {}
    for folder, folders, files in os.walk(root):
        at = os.path.relpath(folder, root)
        found |= {os.path.normpath(os.path.join(at, name)): None for name in folders}
        for name in files:
            if not name.endswith(_TRANSIENT):
                stat = os.stat(os.path.join(folder, name))
                found[os.path.normpath(os.path.join(at, name))] = stat.st_size, stat.st_mtime_ns
    return found


def _back_up(source: Path, target: Path):
    """Into the file as it is: whoever has it open goes on to read and write it."""
    with closing(sqlite3.connect(source)) as old, closing(sqlite3.connect(target)) as new:
        old.backup(new)
