"""SIGINT, SIGTERM and SIGHUP interrupt a command, whatever it computes and has inherited."""

import signal
import subprocess
import sys
import time

import pytest

BEGIN = """
import hashlib, signal, sys, time
from regraft.cli.interruption import interruptible
signal.signal(signal.SIGALRM, lambda *_: print("alarm", flush=True))
"""
SLEEP = """
with interruptible():
    try:
        print("ready", flush=True)
        time.sleep(60)
    except KeyboardInterrupt as error:
        print(error, flush=True)
        raise
"""
# A call like torch's, outside Python, that no handler can interrupt, and that takes far too long.
COMPUTE = """
with interruptible():
    print("ready", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 10**10 // 8)
"""
# As ZenML does: an exception of its own, and the handler before it only after that.
CATCH = """
with interruptible():
    try:
        print("ready", flush=True)
        time.sleep(60)
    except KeyboardInterrupt:
        raise RuntimeError("the step failed")
"""


def start(body: str, *ignored: signal.Signals) -> subprocess.Popen[str]:
    def ignore():
        for number in ignored:
            signal.signal(number, signal.SIG_IGN)

    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, "-c", BEGIN + body], preexec_fn=ignore, **pipes)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize(
    ("number", "ignored"),
    [
        (signal.SIGINT, ()),
        (signal.SIGTERM, ()),
        (signal.SIGHUP, ()),
        (signal.SIGINT, (signal.SIGINT,)),  # `regraft ... &` in a script
        (signal.SIGTERM, (signal.SIGTERM,)),
    ],
)
def test_a_signal_interrupts_with_its_own_exit_code_and_a_sentence(number, ignored):
    process = start(SLEEP, *ignored)
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 128 + number
    assert out == f"{number.name}\n"
    assert err.startswith(f"Interrupted by {number.name}: ")
    assert "same command again to resume" in err
    assert "Traceback" not in err


def test_the_sentence_comes_at_once_and_the_second_signal_ends_a_long_computation():
    process = start(COMPUTE)
    assert process.stderr is not None
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    assert process.stderr.readline().startswith("Interrupted by SIGINT")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 143
    assert time.monotonic() - began < 5


def test_an_error_that_an_interruption_caused_is_the_interruption():
    process = start(CATCH)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 143


def test_nohup_and_other_signals_have_their_way():
    process = start(SLEEP, signal.SIGHUP)
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGALRM)
    assert process.stdout is not None
    assert process.stdout.readline() == "alarm\n"
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 143
    assert err.count("Interrupted") == 1
