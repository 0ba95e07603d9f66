"""Notifications: real receivers on this machine, and targets that fail."""

import errno
import hmac
import json
import logging
import os
import re
import shlex
import socket
import ssl
import subprocess
import sys
import threading
import time
from contextlib import closing
from datetime import UTC, datetime
from email import message_from_bytes
from email.policy import default
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import get_args

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult

from regraft.core.config import NotifyConfig, Target, load_config
from regraft.core.errors import ConfigError
from regraft.core.outcomes import AttemptOutcome
from regraft.operations.journal import Attempt, Watch
from regraft.operations.notify import (
    Failure,
    Message,
    attempt_message,
    send,
    signature,
    watch_message,
)
from regraft.operations.notify.message import sample_message

# From a module that apprise imports for PGP.
pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
SECRET = "geheim-7f3a"
TOLD = Message("promote", "clothes", "clothes: v8 serves", "It is better.", {"accuracy": 0.9}, NOON)


class Heard(logging.Handler):
    """All log lines that reach the root logger, including debug lines."""

    def __init__(self):
        super().__init__(logging.DEBUG)
        self.text = ""

    def emit(self, record):
        self.text += f"{record.name} {record.getMessage()}\n"


@pytest.fixture(autouse=True)
def heard(monkeypatch):
    """The log of a test, without a proxy; fails if a secret is in the log."""
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("REGRAFT_TEST_SECRET", f"{SECRET}\n")
    monkeypatch.setattr("regraft.operations.notify.webhook._FIRST_WAIT_S", 0.05)
    handler, root = Heard(), logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield handler
    root.removeHandler(handler)
    root.setLevel(level)
    assert SECRET not in handler.text
    assert "hidden-path" not in handler.text


class Receiver(ThreadingHTTPServer):
    """A server that stores its requests, and answers with its codes in order; the last repeats."""

    def __init__(self, *codes: int):
        super().__init__(("127.0.0.1", 0), _Answers)
        self.codes, self.got = list(codes), []
        self.url = f"http://127.0.0.1:{self.server_port}/hidden-path?token=hidden-path"


class _Answers(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.got.append((dict(self.headers), body))
        codes = self.server.codes
        code = codes.pop(0) if len(codes) > 1 else codes[0]
        if not code:  # lets the client wait
            time.sleep(1.5)
            return
        self.send_response(code)
        self.send_header("Location", self.server.url)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *arguments):
        pass


@pytest.fixture
def receiver():
    """A function that starts a receiver with these codes; 0 = no answer in time."""
    begun = []

    def start(*codes: int) -> Receiver:
        server = Receiver(*codes)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        begun.append(server)
        return server

    yield start
    for server in begun:
        server.shutdown()
        server.server_close()


def webhook(url: str, **settings) -> NotifyConfig:
    settings = {"timeout_s": 5, "secret_env": "REGRAFT_TEST_SECRET", **settings}
    return NotifyConfig(targets=(Target(kind="webhook", to=url, **settings),))


def failure_of(config: NotifyConfig, message: Message = TOLD) -> Failure:
    """The only failure; it contains no secret and no address, and its text contains its fields."""
    [failure] = send(config, message)
    assert SECRET not in repr(failure)
    assert "hidden-path" not in repr(failure)
    assert all(part in str(failure) for part in (failure.kind, failure.where, failure.why))
    assert failure.kind == config.targets[0].kind
    assert failure.why
    return failure


def numbers(failure: Failure) -> list[float]:
    return [float(number) for number in re.findall(r"\d+(?:\.\d+)?", failure.why)]


def test_webhook_is_signed_over_the_bytes_that_arrive(receiver):
    server = receiver(200)
    assert send(webhook(server.url), TOLD) == ()
    [(headers, body)] = server.got
    expected = "sha256=" + hmac.new(SECRET.encode(), body, sha256).hexdigest()
    assert hmac.compare_digest(headers["X-Regraft-Signature"], expected)
    assert not hmac.compare_digest(headers["X-Regraft-Signature"], signature("another", body))
    assert not hmac.compare_digest(signature(SECRET, body + b" "), expected)
    said = json.loads(body)
    assert said == {
        "delivery_id": headers["X-Regraft-Delivery"],
        "timestamp": "2026-11-24T12:00:00+00:00",
        "event": "promote",
        "model": "clothes",
        "title": "clothes: v8 serves",
        "text": "It is better.",
        "facts": {"accuracy": 0.9},
    }
    assert headers["Content-Type"] == "application/json"


def test_webhook_without_a_secret_is_not_signed(receiver):
    server = receiver(204)
    assert send(webhook(server.url, secret_env=""), TOLD) == ()
    assert "X-Regraft-Signature" not in server.got[0][0]


def test_webhook_is_tried_again_with_the_same_delivery(receiver):
    server = receiver(500, 429, 200)
    assert send(webhook(server.url), TOLD) == ()
    assert len({headers["X-Regraft-Delivery"] for headers, _ in server.got}) == 1
    assert len({body for _, body in server.got}) == 1
    assert len(server.got) == 3


def test_webhook_gives_up_and_says_why_without_its_address(receiver, caplog):
    server = receiver(503)
    failure = failure_of(webhook(server.url))
    assert (failure.kind, failure.where) == ("webhook", "127.0.0.1")
    assert numbers(failure) == [503, 3]  # the last answer, and the number of tries
    assert len(server.got) == 3
    [warning] = [record for record in caplog.records if record.name == "regraft.notify"]
    assert warning.levelname == "WARNING"
    assert str(failure) in warning.getMessage()
    assert "promote" in warning.getMessage()
    # The error text of the HTTP client would repeat parts of the address.
    unasked = failure_of(webhook("http://a b/hidden-path"))
    assert unasked.why.endswith("(InvalidURL)")
    assert "a b" not in unasked.why


@pytest.mark.parametrize("code", [302, 307, 400, 401, 404])
def test_redirect_or_refusal_is_a_failure_at_once(receiver, code):
    server = receiver(code)
    failure = failure_of(webhook(server.url))
    assert (failure.where, numbers(failure)) == ("127.0.0.1", [code])
    assert len(server.got) == 1


def test_receiver_that_is_late_costs_no_more_than_its_time_out(receiver):
    server = receiver(0)
    began = time.monotonic()
    assert "time" in failure_of(webhook(server.url, timeout_s=0.4)).why
    assert time.monotonic() - began < 1.2
    assert len(server.got) == 1


def test_receiver_that_drips_is_left_alone_after_the_time_out():
    """Each byte arrives in time, but the answer never ends: only the total time-out stops it."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        stop = threading.Event()

        def drip():
            connection, _ = server.accept()
            with connection:
                connection.sendall(b"HTTP/1.1 200 OK\r\n")
                while not stop.wait(0.05):
                    connection.sendall(b"X")

        thread = threading.Thread(target=drip, daemon=True)
        thread.start()
        began = time.monotonic()
        url = f"http://127.0.0.1:{server.getsockname()[1]}/"
        assert "0.3 s" in failure_of(webhook(url, timeout_s=0.3)).why
        assert time.monotonic() - began < 2
        stop.set()
        thread.join()


# Prints the modules that `import regraft.operations.notify` imports, then has a target that never
# answers.
PROCESS = """
import sys, time
import regraft.operations.notify
print(*sys.modules)
from datetime import UTC, datetime
from regraft.core.config import NotifyConfig, Target
from regraft.operations.notify import Message, send
from regraft.operations.notify import webhook
webhook.post = lambda *a: time.sleep(60)
target = Target(kind='webhook', to='http://127.0.0.1/', timeout_s=0.1)
message = Message('failed', 'm', 't', 'x', {}, datetime.now(UTC))
print(send(NotifyConfig(targets=(target,)), message)[0].why)
"""


@pytest.fixture(scope="module")
def process():
    """A separate process after its end, and its duration in seconds."""
    began, command = time.monotonic(), [sys.executable, "-c", PROCESS]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    return done, time.monotonic() - began


def test_process_ends_though_a_target_still_holds_its_thread(process):
    done, seconds = process
    assert done.returncode == 0, done.stderr
    assert "0.1 s" in done.stdout.splitlines()[1]
    assert seconds < 30  # the target holds its thread for 60


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_receiver_that_is_not_there_fails_quickly():
    began = time.monotonic()
    refused = failure_of(webhook(f"http://127.0.0.1:{free_port()}/hidden-path"))
    unknown = failure_of(webhook("http://nowhere.invalid/hidden-path"))
    assert (refused.where, unknown.where) == ("127.0.0.1", "nowhere.invalid")
    assert refused.why == unknown.why
    assert "connection" in refused.why
    assert numbers(refused) == [3]
    assert time.monotonic() - began < 6


def test_one_failing_target_keeps_no_other_from_being_told(receiver):
    broken, server = receiver(404), receiver(200)
    targets = (*webhook(broken.url).targets, *webhook(server.url).targets)
    assert len(send(NotifyConfig(targets=targets), TOLD)) == 1
    assert len(server.got) == 1


def test_target_is_told_only_of_what_it_wants_to_hear(receiver):
    server = receiver(200)
    assert send(webhook(server.url, of=("failed", "drift")), TOLD) == ()
    assert server.got == []


def test_missing_secret_is_a_failure_and_nothing_is_sent(receiver, tmp_path):
    server = receiver(200)
    gone = tmp_path / "gone"
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe\x00")
    for file in (gone, binary):
        failure = failure_of(webhook(server.url, secret_env="", secret_file=str(file)))
        assert str(file) in failure.why
    assert "REGRAFT_NO_SUCH" in failure_of(webhook(server.url, secret_env="REGRAFT_NO_SUCH")).why
    assert server.got == []


def test_secret_is_read_from_its_file_when_it_is_needed(receiver, tmp_path):
    server = receiver(200)
    file = tmp_path / "key"
    config = webhook(server.url, secret_env="", secret_file=str(file))
    file.write_text("first\n", encoding="utf-8")
    send(config, TOLD)
    file.write_text("second\n", encoding="utf-8")
    send(config, TOLD)
    for (headers, body), key in zip(server.got, ("first", "second"), strict=True):
        assert headers["X-Regraft-Signature"] == signature(key, body)


def command(line: str, **settings) -> NotifyConfig:
    return NotifyConfig(targets=(Target(kind="command", to=line, **settings),))


def test_command_reads_the_happening_and_has_no_shell(tmp_path):
    out = tmp_path / "said"
    code = (
        "import sys; open(sys.argv[1], 'wb').write(sys.stdin.buffer.read() + sys.argv[2].encode())"
    )
    line = shlex.join([sys.executable, "-c", code, str(out), "$HOME; echo"])
    assert send(command(line), TOLD) == ()
    said = out.read_bytes()
    assert said == TOLD.payload() + b"$HOME; echo"
    shell = shlex.join(["sh", "-c", f"cat > {shlex.quote(str(out))}"])
    assert send(command(shell), TOLD) == ()
    assert json.loads(out.read_bytes())["model"] == "clothes"


def test_command_that_fails_is_told_by_its_name(caplog):
    failed = failure_of(command("sh -c 'echo hidden-path >&2; exit 3'"))
    assert (failed.where, numbers(failed)) == ("sh", [3])
    absent = failure_of(command("/no/such/program --token x"))
    assert absent.where == "program"
    assert os.strerror(errno.ENOENT) in absent.why
    assert "token" not in absent.why
    assert send(command("true"), TOLD) == ()  # which reads nothing


def test_command_that_hangs_is_killed_with_all_its_children(tmp_path):
    pid = tmp_path / "pid"
    line = f"sh -c 'sleep 60 & echo $! > {pid}; wait'"
    began = time.monotonic()
    assert numbers(failure_of(command(line, timeout_s=0.5))) == [0.5]
    assert time.monotonic() - began < 5
    assert gone(int(pid.read_text(encoding="utf-8")))


def gone(pid: int) -> bool:
    """Whether the process ends; it may stay a zombie without a parent that waits for it."""
    import psutil

    for _ in range(100):
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == "zombie":
            return True
        time.sleep(0.02)
    return False


class Box:
    """An SMTP handler that stores the messages."""

    def __init__(self):
        self.letters = []

    async def handle_DATA(self, server, session, envelope):
        self.letters.append((envelope, session.login_data if hasattr(session, "login_data") else 0))
        return "250 OK"


def authenticate(server, session, envelope, mechanism, data):
    ok = (data.login, data.password) == (b"ada", SECRET.encode())
    return AuthResult(success=ok, handled=ok)


@pytest.fixture
def smtp():
    """A function that starts a real SMTP server, and returns its handler and port."""
    begun = []

    def start(**settings):
        box = Box()
        controller = Controller(box, hostname="127.0.0.1", port=free_port(), **settings)
        controller.start()
        begun.append(controller)
        return box, controller.port

    yield start
    for controller in begun:
        controller.stop()


def email(port: int, more: str = "", scheme: str = "smtp", **settings) -> NotifyConfig:
    to = f"{scheme}://localhost:{port}/?from=regraft@example.org&to=ada@example.org{more}"
    return NotifyConfig(targets=(Target(kind="email", to=to, timeout_s=5, **settings),))


def test_email_arrives_as_plain_text(smtp):
    box, port = smtp()
    message = Message("failed", "Größe", "Größe:\nbad", "It broke — truly.", {"n": 3}, NOON)
    assert send(email(port, ",bob@example.org&tls=none"), message) == ()
    letters = [message_from_bytes(envelope.content, policy=default) for envelope, _ in box.letters]
    receivers = {one for envelope, _ in box.letters for one in envelope.rcpt_tos}
    assert receivers == {"ada@example.org", "bob@example.org"}
    letter = letters[0]
    assert letter["Subject"] == "Größe: bad"
    assert letter["From"].addresses[0].addr_spec == "regraft@example.org"
    text = letter.get_body(("plain",)).get_content()
    assert "It broke — truly." in text
    assert "n: 3" in text
    assert "2026-11-24 12:00:00 UTC" in text


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate for localhost, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    files = ["-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")]
    subprocess.run([*command.split(), *names, *files], check=True, capture_output=True)
    return folder / "cert.pem", folder / "key.pem"


def tls(certificate) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*map(str, certificate))
    return context


def test_email_logs_in_behind_starttls(smtp, certificate, monkeypatch):
    box, port = smtp(
        tls_context=tls(certificate), require_starttls=True, authenticator=authenticate
    )
    config = email(port, "&user=ada", secret_env="REGRAFT_TEST_SECRET")
    failure = failure_of(config)
    assert failure.where == "localhost"
    assert "certificate" in failure.why
    assert box.letters == []
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    assert send(config, TOLD) == ()
    assert len(box.letters) == 1
    monkeypatch.setenv("REGRAFT_TEST_SECRET", "another")
    assert numbers(failure_of(config)) == [535]


def test_email_goes_by_tls_from_the_first_byte(smtp, certificate, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    box, port = smtp(ssl_context=tls(certificate))
    assert send(email(port, scheme="smtps"), TOLD) == ()
    assert len(box.letters) == 1


def test_email_that_cannot_go_says_why(smtp):
    _, port = smtp()
    assert failure_of(email(port)).where == "localhost"  # this server has no STARTTLS
    refused = failure_of(email(free_port(), "&tls=none"))
    assert refused.where == "localhost"
    assert os.strerror(errno.ECONNREFUSED) in refused.why


def test_apprise_target_is_told_by_its_secret_alone(receiver, monkeypatch):
    server = receiver(200)
    address = f"json://127.0.0.1:{server.server_port}/hidden-path"
    monkeypatch.setenv("REGRAFT_TEST_SECRET", address)
    config = NotifyConfig(targets=(Target(kind="apprise", secret_env="REGRAFT_TEST_SECRET"),))
    assert send(config, TOLD) == ()
    said = json.loads(server.got[0][1])
    assert said["title"] == "clothes: v8 serves"
    assert "It is better." in said["message"]
    server.codes = [401]
    assert numbers(failure_of(config)) == [401]
    monkeypatch.setenv("REGRAFT_TEST_SECRET", f"nonsense-{SECRET}")
    failure = failure_of(config)
    assert "secret" in failure.why
    assert (failure.where, numbers(failure)) == ("", [])


def test_fault_of_ours_is_a_failure_too(monkeypatch):
    def broken(*arguments):
        raise TypeError(f"hidden-path {SECRET}")

    monkeypatch.setattr("regraft.operations.notify.webhook.post", broken)
    assert failure_of(webhook("http://127.0.0.1/")).where == "127.0.0.1"


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ({"kind": "webhook"}, r"webhook.*http://.*https://.*\bto\b"),
        ({"kind": "webhook", "to": "ftp://a/b"}, r"webhook.*http://.*https://.*\bto\b"),
        ({"kind": "webhook", "to": "http://me@host/"}, r"\bto\b.*\buser\b.*secret_file"),
        ({"kind": "webhook", "to": "http://a:b@host/"}, "contains a password"),
        ({"kind": "webhook", "to": "http://host:port/"}, r"\bto\b.*\bhost\b.*\bport\b"),
        ({"kind": "webhook", "to": "http://h", "secret_file": "key"}, "secret_file.*absolute"),
        (
            {"kind": "webhook", "to": "http://h", "secret_file": "/k", "secret_env": "K"},
            "secret_file.*secret_env",
        ),
        ({"kind": "email", "to": "mailto:me"}, r"mail.*smtp://.*smtps://.*\bto\b"),
        ({"kind": "email", "to": "smtp://host/?to=a@b"}, r"smtp://HOST/\?from=.*&to="),
        ({"kind": "email", "to": "smtp://h/?from=a@b&to=c"}, r"smtp://HOST/\?from=.*&to="),
        (
            {"kind": "email", "to": "smtp://h/?from=a@b&to=a@b&cc=d"},
            r"\bcc\b.*\bto\b.*from, to, user, tls",
        ),
        ({"kind": "email", "to": "smtp://h/?from=a@b&to=a@b&tls=no"}, r"\btls\b.*none.*STARTTLS"),
        (
            {"kind": "email", "to": "smtp://h/?from=a@b&to=a@b&tls=none", "secret_env": "K"},
            "password.*tls=none",
        ),
        ({"kind": "webhook", "to": "env:MY HOOK"}, r"\bto\b.*environment variable.*env:"),
        ({"kind": "command", "to": "file:hook"}, r"\bto\b.*absolute.*file:"),
        ({"kind": "command"}, r"command.*\bto\b.*/usr/bin/logger"),
        ({"kind": "command", "to": "sh -c 'x"}, r"\bto\b.*No closing quotation"),
        ({"kind": "command", "to": "x", "secret_env": "K"}, "command.*secret"),
        ({"kind": "apprise"}, r"apprise.*secret_file.*secret_env.*\bto\b"),
        (
            {"kind": "apprise", "to": "json://h", "secret_env": "K"},
            r"apprise.*secret_file.*secret_env.*\bto\b",
        ),
    ],
)
def test_target_that_cannot_be_meant_is_refused_with_its_place(target, told):
    with pytest.raises(ConfigError) as refused:
        load_config(None, (f"notify.targets={json.dumps([target])}",))
    place, _, reason = str(refused.value).partition("notify.targets.0")
    assert place == "--set: "
    assert re.search(told, reason, re.DOTALL)


@pytest.mark.parametrize(
    "broken", ["https://h/T0ken", [{"to": "https://h/T0ken"}], {"T0ken": "https://h/T0ken"}]
)
def test_error_about_a_target_never_quotes_its_address(broken):
    with pytest.raises(ConfigError) as refused:
        load_config(None, (f"notify.targets={json.dumps(broken)}",))
    assert "notify.targets" in str(refused.value)
    assert "T0ken" not in str(refused.value)


def test_address_is_read_from_where_the_target_says_when_it_is_needed(
    receiver, tmp_path, monkeypatch
):
    file = tmp_path / "hook"
    monkeypatch.delenv("MY_HOOK", raising=False)
    for to in ("env:MY_HOOK", f"file:{file}"):
        assert failure_of(webhook(to)).why == f"expected its address in {to}, got none"
    server = receiver(204)
    monkeypatch.setenv("MY_HOOK", f"{server.url}\n")
    file.write_text(f"{server.url}\n")
    for to in ("env:MY_HOOK", f"file:{file}"):
        assert send(webhook(to), TOLD) == ()
    assert len(server.got) == 2
    monkeypatch.setenv("MY_HOOK", "ftp://h/T0ken")
    why = failure_of(webhook("env:MY_HOOK")).why
    assert why == "expected the address of a target of kind webhook in env:MY_HOOK"


def test_email_address_is_taken_apart():
    target = Target(kind="email", to="smtps://mail.example.org/?from=a@b.org&to=c@d.org,e@f.org")
    mail = target.mail
    assert (mail.host, mail.port, mail.security) == ("mail.example.org", 0, "ssl")
    assert (mail.sender, mail.receivers, mail.user) == (
        "a@b.org",
        ("c@d.org", "e@f.org"),
        "a@b.org",
    )


def attempt(**changes) -> Attempt:
    began, ended = "2026-11-24T11:58:00+00:00", "2026-11-24T12:00:00+00:00"
    known = {"outcome": "keep", "reason": "a tie", "version": 8, **changes}
    return Attempt("clothes", began, ended, "ada@engine", **known)


@pytest.mark.parametrize(
    ("outcome", "event", "title"),
    [
        ("promote", "promote", "version 8"),
        ("keep", "keep", "version 8"),
        ("hold", "keep", "version 8"),
        ("pending", "pending", "version 8"),
        ("skip", "skip", ""),
        ("postpone", "skip", ""),
        ("failed", "failed", "failed"),
        ("killed", "failed", "was killed"),
    ],
)
def test_every_outcome_of_a_retraining_has_an_event_type(outcome, event, title):
    message = attempt_message(attempt(outcome=outcome, accuracy=0.91, n_test=300))
    assert message.event == event
    assert message.title.startswith("clothes: ")
    assert title in message.title
    assert message.text == "a tie"
    assert message.when == NOON
    assert message.facts["accuracy"] == 0.91
    assert "n_photos" not in message.facts
    assert message.facts["seconds"] == 120.0


def test_no_two_outcomes_of_a_retraining_have_the_same_title():
    outcomes = get_args(AttemptOutcome)
    titles = {attempt_message(attempt(outcome=outcome)).title for outcome in outcomes}
    assert len(titles) == len(outcomes)


def test_watch_is_told_only_if_it_found_drift():
    seen = Watch(
        "clothes", NOON.isoformat(), "ada@e", 7, "/new", 40, True, 0.001, "darker", "p.html"
    )
    message = watch_message(seen)
    assert message.event == "drift"
    assert message.facts["page"] == "p.html"
    calm = Watch("clothes", NOON.isoformat(), "ada@e", 7, "/new", 40, False, 0.6, "as before")
    assert watch_message(calm) is None


def test_same_message_has_the_same_delivery_and_json_takes_every_number():
    again = Message("promote", "m", "t", "x", {"accuracy": float("nan")}, NOON)
    assert again.delivery_id == Message(**vars(again)).delivery_id
    assert again.delivery_id != sample_message("m", NOON).delivery_id
    assert json.loads(again.payload())["facts"]["accuracy"] == "nan"


def test_notify_is_imported_without_anything_heavy(process):
    imported = set(process[0].stdout.splitlines()[0].split())
    heavy = {"torch", "mlflow", "zenml", "apprise", "requests", "pandas", "numpy"}
    assert "regraft.operations.notify" in imported
    assert not heavy & imported
