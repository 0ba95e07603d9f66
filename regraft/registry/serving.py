"""Serve a model with `mlflow models serve` in a process of its own, and send requests to it.

The server process gets only the environment variables that it needs to find programs and libraries:
no password, no token, no address of a store, no home folder. So its output cannot contain a secret,
and it serves from the model's files alone.
"""

import base64
import errno
import http.client
import json
import os
import signal
import site
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pandas as pd
import psutil

from regraft.core.errors import RegistryError

# Measured on two cores: 7 to 8 s for the smallest network and 8.7 s for efficientnet-lite0, most of
# it for importing MLflow and torch; 36 s with five other programs on the cores. Three times that,
# for a slow disk.
START_TIMEOUT_S = 120.0
ANSWER_TIMEOUT_S = 60  # MLflow's own limit for a request
_HEALTH_TIMEOUT_S = 5.0  # guess; the health check is repeated
_DEATH_TIMEOUT_S = 5.0  # guess; measured 0.1 s, a process that needs longer waits for a broken disk
_POLL_S = 0.1
_N_PORTS = 3  # guess: other programs may take two of them while the model loads
_N_LOG_CHARACTERS = 2000
_NO_ANSWER = (OSError, http.client.HTTPException)
_HOST = "127.0.0.1"
# What a program needs to find its libraries and its device. None of these may contain a secret.
_PASSED_ON = ("PATH", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "LANG")
# Kills the process group of the server when our end of its standard input closes. This works even
# if our process is killed.
_WATCHED = 'exec 3<&0; (cat <&3 >/dev/null; kill -KILL 0) & "$@" 3<&- </dev/null'


class StartingServer:
    """A model server that starts while its caller does other work; see start_server()."""

    def __init__(self, model: Path, scratch: Path, timeout_s: float, stack: ExitStack) -> None:
        self._model, self._scratch, self._timeout_s = model.resolve(), scratch, timeout_s
        self._stack = stack
        self._launch(0)

    def wait(self) -> str:
        """Return the server's URL as soon as it answers.

        Raises:
            RegistryError: the server does not start. The message ends with its last output.
        """
        for attempt in range(1, _N_PORTS + 1):
            failure = _wait(self._process, self._port, self._timeout_s)
            if not failure:
                return f"http://{_HOST}:{self._port}"
            output = self._log.read_text(errors="replace")
            if f"[Errno {errno.EADDRINUSE}]" not in output or attempt == _N_PORTS:
                break
            self._launch(attempt)
        raise RegistryError(
            f"Expected `mlflow models serve` to serve {self._model}, but {failure}. Run that "
            "command yourself to see more. Its last output: "
            f"{output.strip()[-_N_LOG_CHARACTERS:] or 'none'}"
        )

    def _launch(self, attempt: int) -> None:
        self._port, self._log = _free_port(), self._scratch / f"server-{attempt}.log"
        self._process = self._stack.enter_context(_started(self._model, self._port, self._log))


@contextmanager
def start_server(model: Path, timeout_s: float = START_TIMEOUT_S) -> Iterator[StartingServer]:
    """Start a server for the model, do not wait for it, and kill its processes at block exit.

    The server listens on this machine only.

    Args:
        model: folder of an MLflow model, with the file MLmodel.
        timeout_s: limit for each of at most three starts, counted from StartingServer.wait(), in
            seconds, > 0. Another start follows only if another program took the port first.
    """
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        yield StartingServer(model, Path(scratch), timeout_s, stack)


def request_predictions(url: str, images: list[bytes]) -> pd.DataFrame:
    """Return the predictions of a model server for the images, from one HTTP request.

    Args:
        url: from StartingServer.wait().
        images: N >= 1 image files.

    Returns:
        label, confidence, "prob:CLASS" for each class in the model's order; N rows.

    Raises:
        RegistryError: the server cannot be reached, needs more than ANSWER_TIMEOUT_S seconds,
            refuses the request (the message contains its answer), or does not answer with a table.
    """
    cells = [[base64.b64encode(image).decode()] for image in images]
    body = json.dumps({"dataframe_split": {"columns": ["image"], "data": cells}})
    try:
        status, answer = _exchange(url, "POST", "/invocations", body, ANSWER_TIMEOUT_S)
    except _NO_ANSWER as error:
        status, answer = 0, f"{type(error).__name__}: {error}"
    if status != http.HTTPStatus.OK:
        received = f"HTTP {status}" if status else "no answer"
        raise RegistryError(
            f"Expected predictions for {len(images)} photos from {url}, got {received}: "
            f"{_message(answer)[-_N_LOG_CHARACTERS:]}"
        )
    predictions = _parsed(answer).get("predictions")
    if not isinstance(predictions, list) or not all(isinstance(row, dict) for row in predictions):
        raise RegistryError(
            f"Expected a table of predictions from {url}, got {answer[:200]!r}. Serve a model that "
            "`regraft train` registered."
        )
    return pd.DataFrame.from_records(predictions)


@contextmanager
def _started(model: Path, port: int, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Start `mlflow models serve` in a process group of its own; kill the group at block exit."""
    options = ["--env-manager", "local", "--host", _HOST, "--port", str(port), "--workers", "1"]
    limit = ["--timeout", str(ANSWER_TIMEOUT_S)]
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", str(model)]
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["/bin/sh", "-c", _WATCHED, "sh", *command, *options, *limit],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=log.parent,  # Python puts it first on the import path
            env=_environment(log.parent),
            start_new_session=True,
        )
    try:
        yield process
    finally:
        _kill_group(process)


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill the process group and wait until it has ended; a server has no state to save."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    deadline = time.monotonic() + _DEATH_TIMEOUT_S
    while _group(process.pid) and time.monotonic() < deadline:
        time.sleep(_POLL_S / 10)


def _group(leader: int) -> list[psutil.Process]:
    """Return the running processes of the group, without zombies."""
    members = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if os.getpgid(process.pid) == leader and process.status() != psutil.STATUS_ZOMBIE:
                members.append(process)
    return members


def _environment(home: Path) -> dict[str, str]:
    """Return the minimum of variables that the installed mlflow needs to run."""
    passed = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    programs = (str(Path(sys.executable).parent), passed.get("PATH", os.defpath))
    folders = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return passed | {
        "PATH": os.pathsep.join(programs),  # MLflow searches uvicorn there
        "PYTHONPATH": os.pathsep.join(str(Path(path).absolute()) for path in folders if path),
        "PYTHONUSERBASE": site.getuserbase(),  # Python would search it in the home folder below
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOME": str(home),
        "TMPDIR": str(home),
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
        "OMP_WAIT_POLICY": "passive",  # leaves the cores free between requests
    }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        return int(probe.getsockname()[1])


def _wait(process: subprocess.Popen[bytes], port: int, timeout_s: float) -> str:
    """Wait until the server is ready; return "" if it is, otherwise the failure."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if process.poll() is not None:
            return f"it ended with exit code {process.returncode}"
        if _listens(process.pid, port) and _is_ready(port):
            return ""
        time.sleep(_POLL_S)
    return f"it was not ready after {timeout_s:g} s"


def _listens(leader: int, port: int) -> bool:
    """Return whether a process of the group listens on the port, not another program."""
    try:
        connections = [c for process in _group(leader) for c in process.net_connections("inet")]
    except psutil.Error:  # a process of the group has just ended
        return False
    return any(c.status == psutil.CONN_LISTEN and c.laddr.port == port for c in connections)


def _is_ready(port: int) -> bool:
    url = f"http://{_HOST}:{port}"
    try:
        return _exchange(url, "GET", "/health", "", _HEALTH_TIMEOUT_S)[0] == http.HTTPStatus.OK
    except _NO_ANSWER:
        return False


def _exchange(url: str, method: str, path: str, body: str, timeout_s: float) -> tuple[int, str]:
    """Return status and text of the answer. Unlike urllib, this does not use a proxy."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=timeout_s)
    try:
        connection.request(method, path, body.encode(), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.read().decode(errors="replace")
    finally:
        connection.close()


def _message(answer: str) -> str:
    """Return MLflow's error message without the traceback that MLflow adds."""
    return str(_parsed(answer).get("message", answer))


def _parsed(answer: str) -> dict[str, Any]:
    """Return the JSON object, an empty one if the text is not a JSON object."""
    try:
        parsed = json.loads(answer)
    except ValueError:
        return {}
    return parsed if isinstance(parsed, dict) else {}
