"""Answers of a model server are checked; the slow tier runs real servers."""

import http.server
import ipaddress
import json
import threading

import pytest

from regraft.core.errors import RegistryError
from regraft.registry import serving
from regraft.registry.serving import request_predictions

TABLE = {"predictions": [{"label": "cat", "confidence": 0.5}]}


@pytest.fixture
def answering():
    """Yield the URL of a server with a settable status and body for all answers."""
    answer = {"status": 200, "body": json.dumps(TABLE)}

    class Fixed(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(answer["status"])
            self.end_headers()
            self.wfile.write(answer["body"].encode())

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Fixed) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", answer
        server.shutdown()


def test_a_table_of_predictions_is_returned(answering):
    url, _ = answering
    assert request_predictions(url, [b"photo"]).to_dict("records") == TABLE["predictions"]


def test_a_refusal_ends_with_the_message_of_the_server(answering):
    url, answer = answering
    answer |= {"status": 400, "body": json.dumps({"message": "not this one", "stack_trace": "x"})}
    with pytest.raises(RegistryError, match=r"(?s)http://127.*HTTP 400.*not this one$"):
        request_predictions(url, [b"photo"])


@pytest.mark.parametrize("body", ["[1.0, 2.0]", '{"predictions": [1.0, 2.0]}', "no json", "{}"])
def test_an_answer_without_a_table_is_in_the_error(answering, body):
    url, answer = answering
    answer["body"] = body
    with pytest.raises(RegistryError) as refused:
        request_predictions(url, [b"photo"])
    assert url in str(refused.value)
    assert body in str(refused.value)


def test_servers_listen_on_this_machine_only():
    assert ipaddress.ip_address(serving._HOST).is_loopback
