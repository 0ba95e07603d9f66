"""README.md is correct: each command in it parses, each file and target in it exists."""

import re
import shlex
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest
import typer

from regraft.cli import app
from regraft.core.config import load_config

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```console\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
SPANS = re.findall(
    r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", README, flags=re.MULTILINE | re.DOTALL)
)
LINES = [line.removeprefix("$ ") for block in BLOCKS for line in block.splitlines()]
COMMANDS = sorted({line.strip().removeprefix(".venv/bin/") for line in [*LINES, *SPANS]})


def starting_with(word: str) -> list[str]:
    return [command for command in COMMANDS if command.split()[0] == word]


def assert_parses(arguments: list[str]):
    """Check that the command has every option and argument; nothing is run."""
    group = typer.main.get_command(app)
    context = group.make_context("regraft", list(arguments))
    name, command, rest = group.resolve_command(context, [*context._protected_args, *context.args])
    while hasattr(command, "commands") and rest:  # a group may be a command itself
        name, command, rest = command.resolve_command(context, rest)
    if rest or not hasattr(command, "commands"):
        command.make_context(name, rest, parent=context)


@pytest.mark.parametrize("command", starting_with("regraft"))
def test_every_regraft_command_parses(command):
    arguments = [word for word in shlex.split(command)[1:] if word != "..."]
    if set(arguments) - {"--debug"}:
        assert_parses(arguments)


@pytest.mark.parametrize("command", starting_with("regraft") + starting_with("--set"))
def test_every_setting_and_config_file_in_a_command_is_valid(command):
    words = shlex.split(command.replace("=...", "=champion"))
    pairs = list(pairwise(words))
    settings = tuple(value for option, value in pairs if option == "--set")
    files = [ROOT / value for option, value in pairs if option == "--config"]
    for file in files or [None]:
        load_config(file, settings)


@pytest.mark.parametrize("command", starting_with("make"))
def test_every_make_target_exists(command):
    done = subprocess.run(
        ["make", "--no-print-directory", "--dry-run", *shlex.split(command)[1:]],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr


def test_every_target_of_the_list_is_in_make_help():
    done = subprocess.run(
        ["make", "--no-print-directory", "help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    targets = {line.split()[0] for line in done.stdout.splitlines()}
    [listed] = re.findall(r"`make help` lists everything: `([^`]+)`", README)
    assert set(listed.split()) <= targets
    rules = re.findall(
        r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert targets == set(rules)


@pytest.mark.parametrize("command", starting_with("uv"))
def test_uv_has_every_option_of_a_command(command):
    words = shlex.split(command)
    uv = ROOT / ".venv" / "bin" / "uv"
    if not uv.exists():
        pytest.skip("uv is not in .venv: not set up by make")
    done = subprocess.run(
        [uv, *words[1:3], "--help"], capture_output=True, text=True, check=True, timeout=30
    )
    assert all(word in done.stdout for word in words if word.startswith("-"))


def test_the_expected_commands_are_in_the_readme():
    assert len(starting_with("regraft")) >= 5
    assert len(starting_with("make")) >= 3
    assert {"make demo", "regraft train PHOTOS"} <= set(COMMANDS)


@pytest.mark.parametrize(
    "place",
    sorted(
        {span for span in SPANS if re.fullmatch(r"[\w./-]+/[\w./-]*", span)}
        | set(re.findall(r"\]\(([^)#:]+)\)", README))
    ),
)
def test_every_named_file_exists(place):
    of_users = ("train/", "val/", "validation/", "test/", ".regraft/")
    assert place in of_users or (ROOT / place).exists()


def test_every_named_bundled_backbone_exists():
    from regraft.model.backbone.weights import BUNDLED

    assert set(re.findall(r"`bundled:(\w+)`", README)) <= set(BUNDLED)
