"""The files and URLs that a request may read."""

import http.server
import os
import threading

import pytest

from regraft.core.errors import ConfigError, UnusablePhoto
from regraft.data.ingest.decode import decode, read_bytes
from regraft.data.ingest.read_policy import SCHEMES, ReadPolicy, read_allowed

LOCAL = ReadPolicy(("file",), max_bytes=10)


@pytest.fixture
def place(tmp_path):
    path = tmp_path / "photo"
    path.write_bytes(b"0123456789")
    return str(path)


@pytest.fixture
def web():
    """The URL of a server that sends each answer until the client disconnects."""
    served = []

    class Endless(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            served.append(self.path)
            self.send_response(200)
            self.end_headers()
            if self.command == "HEAD":
                return
            try:
                while True:
                    self.wfile.write(bytes(65536))
            except OSError:
                pass

        do_HEAD = do_GET

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Endless) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/x.jpg", served
        server.shutdown()


def test_nothing_is_opened_unless_it_is_allowed(place, web):
    url, served = web
    for text in (place, f"file://{place}", url, f"FILE://{place}"):
        with pytest.raises(UnusablePhoto, match="not allowed"):
            read_allowed(text, ReadPolicy())
    assert served == []


def test_local_paths_are_read_in_each_spelling(place):
    for text in (place, f"file://{place}", f"FILE://{place}"):
        assert read_allowed(text, LOCAL) == b"0123456789"


def test_a_scheme_that_is_not_listed_opens_nothing(place, web):
    url, served = web
    chained = f"simplecache::{url}", f"reference://x::file://{place}", f"zip://x::{place}"
    for text in (url, url.upper(), f"local://{place}", *chained, "reference://x", "memory://x"):
        with pytest.raises(UnusablePhoto, match="not allowed"):
            read_allowed(text, LOCAL)
    with pytest.raises(UnusablePhoto, match="not allowed"):
        read_allowed(f"simplecache::{url}", ReadPolicy(SCHEMES))
    with pytest.raises(UnusablePhoto, match="missing"):
        read_allowed(f"simplecache::{place}", LOCAL)  # the name of a file
    assert served == []


def test_a_file_over_the_limit_is_refused(place):
    assert read_allowed(place, ReadPolicy(("file",), 10))
    with pytest.raises(UnusablePhoto, match="too large"):
        read_allowed(place, ReadPolicy(("file",), 9))


def test_an_answer_without_an_end_is_cut_at_the_limit(web):
    url, served = web
    with pytest.raises(UnusablePhoto, match="too large"):
        read_allowed(url, ReadPolicy(("http",), 10_000))
    assert served


def test_only_regular_files_are_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for text in ("/dev/zero", "/dev/null", str(tmp_path / "pipe"), str(tmp_path)):
        with pytest.raises(UnusablePhoto, match="unreadable"):
            read_allowed(text, LOCAL)
        with pytest.raises(UnusablePhoto, match="unreadable"):
            read_bytes(text)


def test_an_invalid_location_always_raises_the_same_error(tmp_path):
    web = ReadPolicy(("file", "http", "s3"))
    for text in ("http://127.0.0.1:99999/x", "http://[::1/x.jpg", "a\0b", "", str(tmp_path / "no")):
        with pytest.raises(UnusablePhoto):
            read_allowed(text, web)


@pytest.mark.parametrize(
    "config",
    [
        {"image_schemes": ["ftp"]},
        {"image_schemes": "file"},
        {"image_schemes": ["file", "reference"]},
        *({"image_max_bytes": size} for size in (0, -1, 1.5, "10", True)),
    ],
)
def test_a_setting_outside_the_list_is_refused(config):
    with pytest.raises(ConfigError):
        ReadPolicy.from_model_config(config)


def test_a_setting_is_what_mlflow_stores():
    policy = ReadPolicy(("file", "s3"), 7)
    assert ReadPolicy.from_model_config(policy.model_config()) == policy
    assert ReadPolicy.from_model_config(None) == ReadPolicy()
    assert ReadPolicy().schemes == ()


@pytest.mark.parametrize(
    "head",
    [
        *(b"", b"BM", b"GIF89a", b"\xff\xd8\xff", b"II*\0", b"MM\0*", b"RIFF....WEBP"),
        *(
            b"\x89PNG\r\n\x1a\n",
            b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
            b"BM" + bytes(12) + b"\x28\0\0\0",
        ),
        b"\x89PNG\r\n\x1a\n\0\0\0\x04",
    ],
)
def test_no_error_quotes_what_the_file_holds(head):
    secret = b"root:*:2"
    with pytest.raises(UnusablePhoto) as refused:
        decode(head + secret * 40, 10**6)
    text = str(refused.value)
    assert not [
        part for part in ("root", ":*", "oot", str(int.from_bytes(b"root"))) if part in text
    ]
    assert str(int.from_bytes(b"root", "little")) not in text
