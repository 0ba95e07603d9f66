"""`regraft ARGUMENTS` in a process that is forked from the test process, which imported everything.

A new interpreter spends ten seconds on its imports, a fork none.
"""

import importlib
import json
import os
import signal
import sys
import time
from functools import wraps
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch
from threadpoolctl import threadpool_limits

from regraft.cli import main
from regraft.core.state import environment, open_state
from tests.pipeline.conftest import reset_zenml
from tests.pipeline.tiny_retrain import forget_connections
from tests.pipeline.tiny_train import Interruption


def fork(
    arguments: list[str], home: Path, cwd: Path, output: Path, interruption: Interruption | None
) -> BaseProcess:
    """The process of the command, running; its exit code is the command's.

    Args:
        arguments: of `regraft`; with --state, an absolute path.
        output: folder for the files stdout, stderr, and modules: a JSON list of what it imported.
        interruption: None lets it live.
    """
    reset_zenml()  # which closes what this process has open
    known = set(sys.modules)
    given = (arguments, home, cwd, output, interruption, known)
    process = get_context("fork").Process(target=_child, args=given)
    process.start()
    return process


def _child(
    arguments: list[str],
    home: Path,
    cwd: Path,
    output: Path,
    interruption: Interruption | None,
    known: set[str],
):
    forget_connections()
    _write_to(output)
    os.chdir(cwd)
    os.environ["HOME"] = str(home)
    state = open_state(Path(arguments[arguments.index("--state") + 1]))
    os.environ.update(environment(state, debug=False))
    reset_zenml()
    if interruption:
        _interrupt(interruption)
    sys.argv = ["regraft", *arguments]
    # The threads of the parent's pools are not in this process, and OpenMP would wait for them.
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            main()
    finally:
        (output / "modules").write_text(json.dumps(sorted(set(sys.modules) - known)))


def _write_to(output: Path):
    """Makes two files of stdout and stderr, for what writes by their numbers too."""
    for number, name in ((1, "stdout"), (2, "stderr")):
        file = (output / name).open("w", buffering=1)
        os.dup2(file.fileno(), number)
        setattr(sys, name, file)


def _interrupt(interruption: Interruption):
    """Makes this process send itself the signals right after the n-th call of the function."""
    place, _, name = interruption.function.rpartition(".")
    module = importlib.import_module(place)
    function, calls = getattr(module, name), []

    @wraps(function)
    def interrupted(*arguments, **options):
        result = function(*arguments, **options)
        calls.append(name)
        if len(calls) == interruption.call:
            for number in interruption.signals:
                _send(number)
        return result

    setattr(module, name, interrupted)


def _send(number: signal.Signals):
    """Returns once the signal is handled; its handler has to be one that replaces itself."""
    handler = signal.getsignal(number)
    os.kill(os.getpid(), number)
    while signal.getsignal(number) == handler:
        time.sleep(0.001)
