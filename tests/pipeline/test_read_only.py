"""Commands that only read need no write permission on the state folder."""

import json
import os
import shlex
import subprocess
import sys

import pytest

from tests.pipeline.tiny_train import NAME
from tests.unit.test_cli import RUN_EACH

pytestmark = [pytest.mark.pipeline, pytest.mark.slow]

READERS = (
    ("cache", "info"),
    ("schedule", "list"),
    ("models",),
    ("history", NAME),
    ("explain", NAME),
    ("ledger", "verify", NAME),
    ("card", NAME),
    ("status",),
    ("doctor",),
)
WRITERS = (("models", "prune"), ("promote", NAME), ("train", "nowhere"), ("rollback", NAME))


@pytest.fixture(scope="module")
def answers(shared_world, shell):
    """For each command on a write-protected state folder: exit code and characters printed."""
    root = shared_world.state.root
    before = sorted((path, path.stat().st_mtime_ns) for path in root.rglob("*"))
    lines = [[*command, "--state", str(root)] for command in (*READERS, *WRITERS)]
    command = protected([sys.executable, "-c", RUN_EACH, json.dumps(lines)], root)
    run = {"cwd": shared_world.folder, "env": shell, "capture_output": True, "text": True}
    try:
        done = subprocess.run(command, timeout=200, **run)
    finally:
        if os.getuid():
            subprocess.run(["chmod", "-R", "u+w", str(root)], check=True)
    if "unshare:" in done.stderr or "mount:" in done.stderr:
        pytest.skip(f"root ignores permissions, and may not mount here: {done.stderr}")
    assert sorted((path, path.stat().st_mtime_ns) for path in root.rglob("*")) == before
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(answers) == len(lines), done.stderr
    by_command = dict(zip((*READERS, *WRITERS), answers, strict=True))
    return {command: (code, n, done.stderr) for command, (code, n, _) in by_command.items()}


def protected(command: list[str], root) -> list[str]:
    """The command on a write-protected folder; root needs a read-only file system for that."""
    if os.getuid():
        subprocess.run(["chmod", "-R", "a-w", str(root)], check=True)
        return command
    folder = shlex.quote(str(root))
    mount = f"mount --bind {folder} {folder} && mount -o remount,ro,bind {folder}"
    return ["unshare", "--mount", "sh", "-c", f"{mount} && exec {shlex.join(command)}"]


@pytest.mark.parametrize("command", READERS, ids=" ".join)
def test_a_reading_command_answers(answers, command):
    code, n_printed, err = answers[command]
    assert code == (7 if command == ("doctor",) else 0), err  # which reports the protection
    assert n_printed > 0


@pytest.mark.parametrize("command", WRITERS, ids=" ".join)
def test_a_writing_command_is_refused(answers, command):
    assert answers[command][:2] == (7, 0), answers[command][2]
