"""Apply mutations to a copy of the working tree, one at a time, and run the tests that guard.

Each run of pytest is a fork of this process, which has imported the heavy libraries once: to import
torch and MLflow takes longer than most tests. Nothing of the product is imported here, so a fork
imports all of it from the copy.
"""

import importlib
import importlib.util
import multiprocessing
import os
import re
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .table import Mutation

ROOT = Path(__file__).parents[2]
PACKAGES = ("regraft", "pipelines", "steps", "materializers")
HEAVY = (
    *("pytest", "torch", "torchvision", "timm", "pandas", "pyarrow.parquet", "scipy.stats"),
    *("sklearn.linear_model", "sklearn.metrics", "mlflow.pyfunc", "matplotlib.pyplot"),
)
# Not copied: what is no source, and what would take long to copy.
LEFT_OUT = shutil.ignore_patterns(
    *(".git", ".venv", ".regraft", "build", "dist", "*.egg-info"),
    *("__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache"),
)
TIMEOUT_S = 600.0  # of the tests of one mutation; guess
_FAILED = re.compile(r"^(?:FAILED|ERROR) (\S+)", re.MULTILINE)
_ALL_PASSED, _SOME_FAILED, _OTHER_CODE = 0, 1, 70  # exit codes: of pytest, and one of our own
_N_SHOWN = 3000  # characters of pytest's output in an error


class MutationError(Exception):
    """A mutation that cannot be applied, or tests that fail without any."""


@dataclass(frozen=True)
class Result:
    """What the tests said of one mutation.

    caught_by: node id of the first test that failed, "" if the mutation survived.
    seconds: that its tests took, >= 0.
    """

    mutation: Mutation
    caught_by: str
    seconds: float


def check_mutation(mutation: Mutation, root: Path = ROOT) -> None:
    """Check that the mutation can be applied to the sources under `root`.

    Raises:
        MutationError: its old text does not occur exactly once, or the new text is the old one.
    """
    if mutation.old == mutation.new:
        raise MutationError(f"{mutation.name}: the new text is the old one.")
    path = root / mutation.file
    n_found = path.read_text(encoding="utf-8").count(mutation.old) if path.is_file() else 0
    if n_found != 1:
        raise MutationError(
            f"{mutation.name}: expected its old text once in {mutation.file}, found it {n_found} "
            "times. Correct tests/mutations/table.py."
        )


def copy_tree(folder: Path) -> Path:
    """Return the copy of the working tree that was made in the folder."""
    return Path(shutil.copytree(ROOT, folder.resolve() / "tree", ignore=LEFT_OUT))


def preload() -> None:
    """Import what all tests need and no mutation changes, for the forks to find."""
    os.environ |= {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}  # else a thread
    for name in HEAVY:
        importlib.import_module(name)


def run_control(tree: Path, mutations: Iterable[Mutation]) -> None:
    """Run all guarding tests on the copy as it is.

    Raises:
        MutationError: the copy's code is not what is imported, or a test fails or is not found.
    """
    tests = sorted({test for mutation in mutations for test in mutation.tests})
    done = _pytest(tree, tests)
    if done.code != _ALL_PASSED:
        raise MutationError(f"The tests must pass without a mutation:\n{done.output[-_N_SHOWN:]}")


def run_mutation(tree: Path, mutation: Mutation) -> Result:
    """Return what the guarding tests say of one mutation; the copy is restored afterwards.

    Raises:
        MutationError: it cannot be applied, or its tests cannot even be collected.
    """
    check_mutation(mutation, tree)
    began = time.monotonic()
    with _mutated(tree / mutation.file, mutation):
        done = _pytest(tree, mutation.tests)
    seconds = time.monotonic() - began
    if done.code == _ALL_PASSED:
        return Result(mutation, "", seconds)
    failed = _FAILED.search(done.output)
    if done.code != _SOME_FAILED or failed is None:
        raise MutationError(f"{mutation.name}: pytest broke off:\n{done.output[-_N_SHOWN:]}")
    return Result(mutation, failed[1], seconds)


def format_table(results: Sequence[Result]) -> str:
    """Return a line a result: mutation, first failing test or SURVIVED, tier, seconds."""
    rows = [("mutation", "caught by", "tier", "seconds")]
    rows += [
        (one.mutation.name, one.caught_by or "SURVIVED", one.mutation.tier, f"{one.seconds:.1f}")
        for one in results
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [" | ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    return "\n".join(lines)


@contextmanager
def _mutated(path: Path, mutation: Mutation) -> Iterator[None]:
    source = path.read_text(encoding="utf-8")
    _write(path, source.replace(mutation.old, mutation.new))
    try:
        yield
    finally:
        _write(path, source)


def _write(path: Path, source: str) -> None:
    """Write the source, and remove its byte code: Python compares only seconds and lengths."""
    path.write_text(source, encoding="utf-8")
    for stale in path.parent.glob(f"__pycache__/{path.stem}.*.pyc"):
        stale.unlink()


@dataclass(frozen=True)
class _Done:
    """The exit code and the output of a run of pytest."""

    code: int
    output: str


def _pytest(tree: Path, tests: Sequence[str]) -> _Done:
    """Run the tests in the copy, whatever their markers; stop at the first that fails."""
    output = tree.parent / "output.txt"
    fork = multiprocessing.get_context("fork").Process(target=_fork, args=(tree, tests, output))
    fork.start()
    fork.join(TIMEOUT_S)
    if fork.exitcode is None:
        fork.kill()
        fork.join()
    return _Done(fork.exitcode or 0, output.read_text(encoding="utf-8", errors="replace"))


def _fork(tree: Path, tests: Sequence[str], output: Path) -> None:
    """Be a process that was started in the copy, run its tests there, and end."""
    import pytest

    with output.open("wb") as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())
    os.chdir(tree)
    sys.path.insert(0, str(tree))
    os.environ["PYTHONPATH"] = str(tree)  # for the processes that tests start
    for package in PACKAGES:
        found = importlib.util.find_spec(package)
        places = list(found.submodule_search_locations or ()) if found else []
        if places != [str(tree / package)]:
            print(f"Expected {package} to be imported from {tree}, got {places}.")
            sys.exit(_OTHER_CODE)
    options = ["-x", "-q", "-m", "", "-rfE", "--tb=no", "-p", "no:cacheprovider"]
    options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # of a plugin that is loaded
    sys.exit(int(pytest.main([*options, *tests])))
