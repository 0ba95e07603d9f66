"""Commands that only read records import no library that trains or computes."""

import json
import subprocess
import sys

import pytest

from tests.pipeline.tiny_train import NAME
from tests.unit.test_cli import RUN_EACH

pytestmark = pytest.mark.pipeline

HEAVY = {"torch", "torchvision", "timm", "sklearn"}
# doctor is the last: the modules of all commands before it are there too.
COMMANDS = (
    ("cache", "info"),
    ("models",),
    ("history", NAME),
    ("explain", NAME),
    ("ledger", "verify", NAME),
    ("card", NAME),
    ("card", NAME, "--format", "html"),
    ("status",),
    ("doctor",),
)


@pytest.fixture(scope="module")
def answers(shared_world, shell):
    """For each of COMMANDS: exit code, characters printed, modules imported by then."""
    lines = [[*command, "--state", str(shared_world.state.root)] for command in COMMANDS]
    command = [sys.executable, "-c", RUN_EACH, json.dumps(lines)]
    cwd = shared_world.folder
    done = subprocess.run(command, cwd=cwd, env=shell, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    return dict(zip(COMMANDS, answers, strict=True))


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_command_that_reads_records_imports_no_network(answers, command):
    code, n_printed, modules = answers[command]
    assert code == 0
    assert n_printed > 0
    assert not HEAVY & set(modules)
    assert ("zenml" in modules) == (command == ("doctor",))


def test_the_listing_of_the_cache_needs_no_registry(answers):
    assert not {"mlflow", "pandas", "numpy"} & set(answers["cache", "info"][2])
