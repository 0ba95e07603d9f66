"""A real server for a model: `mlflow models serve`, as a user would start it, started and ended.

It is given nothing of this process but where programs and libraries lie: no password, no token, no
address of a store, no home. So nothing it prints can tell one, and it serves from the model alone.
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
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pandas as pd
import psutil

from regraft.core.errors import RegistryError

# Measured on two cores: 7 to 8 s for the tiniest network, 8.1 s of computing (8.7 s for
# efficientnet-lite0), nearly all of it importing MLflow and torch; 36 s where five other programs
# wanted the cores. Three times that, for a slow disk too.
START_TIMEOUT_S = 120.0
ANSWER_TIMEOUT_S = 60  # MLflow's own limit for a request
_HEALTH_TIMEOUT_S = 5.0  # guess; then it is asked again
_DEATH_TIMEOUT_S = 5.0  # guess; measured 0.1 s, what cannot die by then waits for a broken disk
_POLL_S = 0.1
_N_PORTS = 3  # guess: two of them may be taken by others while the model loads
_N_LOG_CHARACTERS = 2000
_NO_ANSWER = (OSError, http.client.HTTPException)
_HOST = "127.0.0.1"
# What a program needs to find its libraries and its device; nothing that may hold a secret.
_PASSED_ON = ("PATH", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "LANG")
# Ends the server's whole process group when our end of standard input closes: even if this process
# is killed, which then can end nothing itself.
_WATCHED = 'exec 3<&0; (cat <&3 >/dev/null; kill -KILL 0) & "$@" 3<&- </dev/null'


@contextmanager
def served(model: Path, timeout_s: float = START_TIMEOUT_S) -> Iterator[str]:
    """The URL of a server that answers for the model, as long as the block lives.

    It listens on this machine only, and is ended with all its processes however the block ends.

    Args:
        model: an MLflow model's folder, the one with the file MLmodel.
        timeout_s: seconds that each of at most three starts may take, > 0; another start follows
            only where another program took the port first.

    Raises:
        RegistryError: it does not come up; the message ends with what it printed last.
    """
    with tempfile.TemporaryDirectory() as scratch:
        for attempt in range(_N_PORTS):
            port, log = _free_port(), Path(scratch) / f"server-{attempt}.log"
            with _started(model.resolve(), port, log) as process:
                failure = _wait(process, port, timeout_s)
                if not failure:
                    yield f"http://{_HOST}:{port}"
                    return
            if f"[Errno {errno.EADDRINUSE}]" not in log.read_text(errors="replace"):
                break
        said = log.read_text(errors="replace").strip()[-_N_LOG_CHARACTERS:]
        raise RegistryError(
            f"Expected `mlflow models serve` to serve {model}, but {failure}. Run that command "
            f"yourself to see more. Its last lines: {said or 'none'}"
        )


def ask(url: str, images: list[bytes]) -> pd.DataFrame:
    """The server's answers, by one request over HTTP.

    Args:
        url: of served().
        images: N >= 1 image files as they are.

    Returns:
        label, confidence, "prob:CLASS" for each class in the model's order; N rows.

    Raises:
        RegistryError: it cannot be reached, takes more than ANSWER_TIMEOUT_S seconds, refuses (with
            what it said), or answers with something else than a table.
    """
    cells = [[base64.b64encode(image).decode()] for image in images]
    body = json.dumps({"dataframe_split": {"columns": ["image"], "data": cells}})
    try:
        status, answer = _exchange(url, "POST", "/invocations", body, ANSWER_TIMEOUT_S)
    except _NO_ANSWER as error:
        status, answer = 0, f"{type(error).__name__}: {error}"
    if status != http.HTTPStatus.OK:
        raise RegistryError(
            f"Expected answers to {len(images)} photos from {url}, got "
            f"{f'HTTP {status}' if status else 'none'}: {_message(answer)[-_N_LOG_CHARACTERS:]}"
        )
    told = _parsed(answer).get("predictions")
    if not isinstance(told, list) or not all(isinstance(row, dict) for row in told):
        raise RegistryError(
            f"Expected a table of predictions from {url}, got {answer[:200]!r}. Serve a model that "
            "`regraft train` made."
        )
    return pd.DataFrame.from_records(told)


@contextmanager
def _started(model: Path, port: int, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`mlflow models serve` in a process group of its own, at whose end nobody of it lives."""
    options = ["--env-manager", "local", "--host", _HOST, "--port", str(port), "--workers", "1"]
    limit = ["--timeout", str(ANSWER_TIMEOUT_S)]
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", str(model)]
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["/bin/sh", "-c", _WATCHED, "sh", *command, *options, *limit],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=log.parent,  # which is in front of its import path
            env=_environment(log.parent),
            start_new_session=True,
        )
    try:
        yield process
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kills the group, and waits until it is dead: a server holds nothing that it has to save."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    until = time.monotonic() + _DEATH_TIMEOUT_S
    while _group(process.pid) and time.monotonic() < until:
        time.sleep(_POLL_S / 10)


def _group(leader: int) -> list[psutil.Process]:
    """The processes of the group that live; the dead may stay in the list if nobody reaps them."""
    found = []
    for one in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if os.getpgid(one.pid) == leader and one.status() != psutil.STATUS_ZOMBIE:
                found.append(one)
    return found


def _environment(home: Path) -> dict[str, str]:
    """As little as lets this interpreter's mlflow run."""
    passed = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    programs = (str(Path(sys.executable).parent), passed.get("PATH", os.defpath))
    places = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return passed | {
        "PATH": os.pathsep.join(programs),  # MLflow looks for uvicorn there
        "PYTHONPATH": os.pathsep.join(str(Path(place).absolute()) for place in places if place),
        "PYTHONUSERBASE": site.getuserbase(),  # else looked for in the home below
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOME": str(home),
        "TMPDIR": str(home),
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
        "OMP_WAIT_POLICY": "passive",  # between requests it leaves the cores to others
    }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        return int(probe.getsockname()[1])


def _wait(process: subprocess.Popen[bytes], port: int, timeout_s: float) -> str:
    """Waits until the server is ready; "" if it is, else what is wrong."""
    until = time.monotonic() + timeout_s
    while time.monotonic() < until:
        if process.poll() is not None:
            return f"it ended with exit code {process.returncode}"
        if _listens(process.pid, port) and _is_ready(port):
            return ""
        time.sleep(_POLL_S)
    return f"it was not ready after {timeout_s:g} s"


def _listens(leader: int, port: int) -> bool:
    """Whether it is our server that listens there, and not another program's."""
    try:
        connections = [c for one in _group(leader) for c in one.net_connections("inet")]
    except psutil.Error:  # one of them has just ended
        return False
    return any(c.status == psutil.CONN_LISTEN and c.laddr.port == port for c in connections)


def _is_ready(port: int) -> bool:
    url = f"http://{_HOST}:{port}"
    try:
        return _exchange(url, "GET", "/health", "", _HEALTH_TIMEOUT_S)[0] == http.HTTPStatus.OK
    except _NO_ANSWER:
        return False


def _exchange(url: str, method: str, path: str, body: str, timeout_s: float) -> tuple[int, str]:
    """Status and text of the answer; not by way of a proxy, which urllib would take."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=timeout_s)
    try:
        connection.request(method, path, body.encode(), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.read().decode(errors="replace")
    finally:
        connection.close()


def _message(answer: str) -> str:
    """What MLflow says of an error, without the traceback that it adds."""
    return str(_parsed(answer).get("message", answer))


def _parsed(answer: str) -> dict[str, Any]:
    """The JSON object, an empty one if it is none."""
    try:
        told = json.loads(answer)
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}
