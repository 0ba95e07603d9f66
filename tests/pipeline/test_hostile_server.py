"""A real `mlflow models serve` refuses every hostile request and opens no file or connection.

test_registry.py checks the same inside this process, where Python reports the path of each opened
file.
"""

import ctypes
import http.client
import json
import os
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import hostile
import numpy as np
import psutil
import pytest
from tiny_challenger import put, tracking_in, trained

from regraft.model.embed import NO_STORE, logits, probabilities
from regraft.model.pixels import photos_of
from regraft.registry.serving import request_predictions, start_server
from tests.pipeline.conftest import one_thread

pytestmark = [pytest.mark.pipeline, pytest.mark.slow]

MAX_GROWTH_BYTES = 400 * 10**6  # the largest of the images would take 3.6 GB in memory
SAMPLE_S = 0.05
IN_OPEN, IN_NONBLOCK = 0x20, os.O_NONBLOCK  # of <sys/inotify.h>


@dataclass(frozen=True)
class Reply:
    """The answer of the server to a request."""

    request: tuple[str, bytes]
    status: int
    text: str


@dataclass
class Observation:
    """The effects of the hostile requests, and the predictions of the server after them.

    files: names in the canary's folder that any process opened. connections: to the listening port.
    "with_control": measured again after this process opened the canary and connected.
    rss_before, rss_max: resident bytes of the server's process group.
    """

    replies: list[Reply] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    files_with_control: list[str] = field(default_factory=list)
    connections: int = 0
    connections_with_control: int = 0
    rss_before: int = 0
    rss_max: int = 0
    probabilities: np.ndarray | None = None


@pytest.fixture(scope="module")
def observed(tmp_path_factory):
    """Send every hostile request to a server and observe the server from outside."""
    folder = tmp_path_factory.mktemp("hostile")
    watched_folder = folder / "watched"
    watched_folder.mkdir()
    canary = watched_folder / "canary.jpg"
    canary.write_text(hostile.SECRET)
    os.mkfifo(watched_folder / "pipe")
    photo = [Path(photos_of(trained().splits.test)[0].path).read_bytes()]
    seen = Observation()
    with ExitStack() as stack:
        stack.enter_context(one_thread())
        version = put(trained(), tracking_in(folder))
        url = stack.enter_context(start_server(Path(version.bundle_url).parents[1])).wait()
        port, count = stack.enter_context(counting_listener())
        request_predictions(url, photo)  # loads everything that is loaded only once
        group = process_group(url)
        seen.rss_before = resident_bytes(group)
        opened = stack.enter_context(opened_in(watched_folder))
        with sampled_maximum(group) as maximum:
            for kind, body in hostile.requests(canary, watched_folder, port):
                status, text = post(url, kind, body)
                seen.replies.append(Reply((kind, body), status, text))
        seen.rss_max = maximum()
        seen.files, seen.connections = opened(), count()
        canary.read_text()
        socket.create_connection(("127.0.0.1", port)).close()
        seen.files_with_control, seen.connections_with_control = opened(), count(at_least=1)
        answer = request_predictions(url, photo)
        seen.probabilities = answer.filter(like="prob:").to_numpy()
    return seen


def post(url: str, kind: str, body: bytes) -> tuple[int, str]:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
    try:
        connection.request("POST", "/invocations", body, {"Content-Type": kind})
        answer = connection.getresponse()
        return answer.status, answer.read().decode(errors="replace")
    finally:
        connection.close()


@contextmanager
def counting_listener():
    """Yield a port on loopback and a function that returns its number of connections."""
    accepted = []

    def accept():
        with suppress(OSError):  # closed at the end of the block
            while True:
                connection, _ = listener.accept()
                accepted.append(connection)
                connection.close()

    def count(at_least: int = 0, limit_s: float = 10) -> int:
        end = time.monotonic() + limit_s
        while len(accepted) < at_least and time.monotonic() < end:
            time.sleep(0.01)
        return len(accepted)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1], count
        listener.shutdown(socket.SHUT_RDWR)


@contextmanager
def opened_in(folder: Path):
    """Yield a function that returns the files of the folder that any process has opened.

    "" is the folder itself. This uses inotify, which no setting of the file system turns off.
    """
    libc, names = ctypes.CDLL(None, use_errno=True), []
    queue = libc.inotify_init1(IN_NONBLOCK)
    assert queue >= 0, os.strerror(ctypes.get_errno())
    assert libc.inotify_add_watch(queue, os.fsencode(folder), IN_OPEN) >= 0

    def opened() -> list[str]:
        with suppress(BlockingIOError):
            while events := os.read(queue, 2**16):
                names.extend(names_of(events))
        return list(names)

    try:
        yield opened
    finally:
        os.close(queue)


def names_of(events: bytes) -> Iterator[str]:
    """Yield the names in a sequence of `struct inotify_event`."""
    at = 0
    while at < len(events):
        *_, length = struct.unpack_from("iIII", events, at)
        at += 16 + length
        yield os.fsdecode(events[at - length : at].rstrip(b"\0"))


def process_group(url: str) -> int:
    """Return the group of the process that listens at the URL."""
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if any(c.laddr.port == urlsplit(url).port for c in process.net_connections("tcp")):
                return os.getpgid(process.pid)
    raise AssertionError(f"no process listens at {url}")


def resident_bytes(group: int) -> int:
    total = 0
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if os.getpgid(process.pid) == group:
                total += process.memory_info().rss
    return total


@contextmanager
def sampled_maximum(group: int):
    """Yield a function that returns the maximum of the group's resident bytes."""
    samples, is_over = [], threading.Event()

    def sample():
        while not is_over.wait(SAMPLE_S):
            samples.append(resident_bytes(group))

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield lambda: max(samples)
    finally:
        is_over.set()
        thread.join()


def test_every_hostile_request_is_refused_with_a_message(observed):
    assert len(observed.replies) >= 30
    for reply in observed.replies:
        assert 400 <= reply.status < 500, (reply.status, reply.request[1][:200])
        assert len(message_of(reply.text).split()) >= 3, (reply.text, reply.request[1][:200])


def message_of(text: str) -> str:
    """Return the message of a refusal, without MLflow's JSON."""
    try:
        said = json.loads(text)
    except ValueError:
        return text
    return str(said.get("message") or said.get("detail") or "")


def test_no_answer_contains_the_canary(observed):
    assert [reply.request for reply in observed.replies if hostile.SECRET in reply.text] == []


def test_no_request_makes_the_server_open_a_file_that_it_names(observed):
    assert observed.files == []
    assert observed.files_with_control == ["canary.jpg"]  # the watch works


def test_no_request_makes_the_server_open_a_connection(observed):
    assert observed.connections == 0
    assert observed.connections_with_control == 1  # the listener counts


def test_memory_does_not_grow_by_the_claimed_size_of_an_image(observed):
    assert observed.rss_before > 50 * 10**6  # the measured process is the server
    assert observed.rss_max - observed.rss_before < MAX_GROWTH_BYTES


def test_a_valid_request_is_still_answered_correctly_afterwards(observed):
    made = trained()
    scores = logits(made.challenger.classifier, photos_of(made.splits.test)[:1], NO_STORE)
    expected = probabilities(scores, made.report.temperature).numpy()
    assert observed.probabilities == pytest.approx(expected, abs=1e-5)
