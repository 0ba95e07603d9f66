"""Every command follows the MLflow server that the first training of a state folder has chosen."""

import json
import logging
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
from contextlib import closing
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from tiny_challenger import draw_photos, weights_file
from tiny_train import NAME, SETTINGS, World

from regraft.cli import main
from regraft.core.state import places
from tests.pipeline.conftest import copy_of, one_thread, reset_zenml

pytestmark = [pytest.mark.pipeline, pytest.mark.slow]

TIMEOUT_S = 120


@pytest.fixture(scope="module")
def server(tmp_path_factory, shell):
    """The URL of a real `mlflow server` on loopback that stores the artifacts itself."""
    folder = tmp_path_factory.mktemp("mlflow server")
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port = listener.getsockname()[1]
    command = [
        *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)),
        *("--backend-store-uri", f"sqlite:///{folder}/server.db", "--workers", "1"),
        *("--serve-artifacts", "--artifacts-destination", str(folder / "files")),
    ]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, env=shell, stdout=log, stderr=log)
    url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + TIMEOUT_S
    try:
        while not answers(url):
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline, (folder / "log").read_text()
            time.sleep(0.2)
        yield url
    finally:
        process.terminate()
        process.wait(TIMEOUT_S)


def answers(url: str) -> bool:
    try:
        with urlopen(f"{url}/health", timeout=5) as reply:
            return reply.status == 200
    except (URLError, OSError):
        return False


@pytest.fixture(scope="module")
def trained(template, tmp_path_factory, server):
    """A world after `regraft train --set tracking.uri=SERVER`, and what the command printed."""
    folder = tmp_path_factory.mktemp("a world")
    world = World(folder)
    draw_photos(world.photos, 20)
    weights_file(world.weights)
    with pytest.MonkeyPatch.context() as patched, one_thread():
        state = copy_of(template, folder / "state", patched)
        for file in (state.mlflow_database, state.root / "mlflow.version"):
            file.unlink()
        shutil.rmtree(state.mlflow_artifacts)
        patched.chdir(tmp_path_factory.mktemp("working directory"))
        settings = [f"backbone.source=file:{world.weights}", *SETTINGS, f"tracking.uri={server}"]
        options = [word for setting in settings for word in ("--set", setting)]
        ended = run("train", str(world.photos), "--model", NAME, *options, *where(world))
        assert ended[0] == 0, ended
        yield world, ended[1]
        reset_zenml()


def where(world: World) -> tuple[str, str]:
    return "--state", str(world.folder / "state")


def run(*arguments: str) -> tuple[int, str, str]:
    """`regraft ARGUMENTS` in this process: exit code, stdout, stderr."""
    import io
    from contextlib import redirect_stderr, redirect_stdout

    logging.getLogger("regraft").handlers.clear()
    out, err, hook = io.StringIO(), io.StringIO(), sys.excepthook
    with pytest.MonkeyPatch.context() as patched, redirect_stdout(out), redirect_stderr(err):
        patched.setattr(sys, "argv", ["regraft", *arguments])
        try:
            main()
        except SystemExit as ended:
            return int(ended.code or 0), out.getvalue(), err.getvalue()
        finally:
            sys.excepthook = hook
    raise AssertionError("main() has no exit code")


def test_every_printed_command_ends_with_0(trained):
    _, printed = trained
    commands = [shlex.split(line) for line in printed.partition("Next:\n")[2].splitlines()]
    assert [command[1] for command in commands] == ["predict", "models", "doctor"]
    for _, *arguments in commands:
        code, out, err = run(*arguments)
        assert code == 0, (arguments, out, err)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("explain", NAME), r"champion"),
        (("history", NAME), r"promote"),
        (("card", NAME), rf"{NAME}"),
        (("ledger", "verify", NAME), r"1 entry, verified"),
        (("status",), rf"{NAME}: v1 is the champion"),
        (("what-if", NAME, "--set", "promote.min_gain=0.5"), r"\b1\b"),
        (("promote", f"{NAME}/1", "--dry-run"), r"dry run"),
        (("models", "prune", "--dry-run"), r"0 of"),
        (("rollback", NAME), r""),
        (("approve", NAME), r""),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_commands_read_the_server(trained, arguments, expected):
    world, _ = trained
    code, out, err = run(*arguments, *where(world))
    assert code == (6 if arguments[0] in ("rollback", "approve") else 0), (out, err)
    assert "Error" not in out
    assert re.search(expected, out)


def test_promote_and_watch_and_retrain_write_to_the_server(trained, tmp_path):
    world, _ = trained
    for arguments in (("promote", f"{NAME}/1"), ("watch", str(world.photos))):
        code, out, err = run(*arguments, *where(world))
        assert code == 0, (out, err)
    code, out, err = run("retrain", str(world.photos), "--model", NAME, *where(world))
    assert code in (0, 8), (out, err)
    assert run("models", "--json", *where(world))[0] == 0


def test_files_are_on_the_server_and_none_in_the_state_folder(trained):
    world, _ = trained
    state = world.state
    assert places(state).tracking.artifacts_url == ""
    assert not state.mlflow_database.exists()
    assert list(state.mlflow_artifacts.iterdir()) == []
    [row] = json.loads(run("models", "--json", *where(world))[1])
    assert row["version"] == 1


def test_another_store_for_the_same_state_folder_is_refused(trained, tmp_path):
    world, _ = trained
    for setting in (
        f"tracking.uri=sqlite:///{tmp_path}/m.db",
        f"tracking.artifacts_url={tmp_path}",
    ):
        code, out, err = run("train", str(world.photos), "--set", setting, *where(world))
        assert (code, out) == (2, "")
        assert re.search(r"^ConfigError: Expected tracking\.\w+=.*, got .*\. Omit ", err), err


def test_a_server_that_is_gone_is_told_at_once(trained, monkeypatch):
    from regraft.core.config import TrackingConfig
    from regraft.core.errors import RegistryError
    from regraft.registry.tracking import connect

    with pytest.raises(RegistryError, match=r"http://127\.0\.0\.1:9, got: .*Start it"):
        connect(TrackingConfig(uri="http://127.0.0.1:9"))
