"""regraft schedule: what is declared and said, the units, and the service end to end."""

import json
import logging
import os
import plistlib
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
from typer.testing import CliRunner

from regraft.cli import app
from regraft.core.errors import AlreadyRunning, ScheduleError
from regraft.core.state import open_state
from regraft.operations.schedule import (
    ScheduleEntry,
    Start,
    add,
    list_entries,
    load_record,
    read_heartbeat,
    render,
)
from regraft.operations.schedule.runs import ServiceSettings

ROOT = Path(__file__).resolve().parents[2]
ODD = Path('/srv/my photos/100% of "them" $HOME')
START = Start(
    (str(ODD / "python"), "-m", "regraft.cli", "50%", "$x", "a\\b"), ODD, ODD / "a log", 30
)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with a space in its name, as the working directory."""
    folder = tmp_path / "my project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def said(*arguments: str) -> str:
    done = CliRunner().invoke(app, ["schedule", *arguments], catch_exceptions=False)
    assert done.exit_code == 0
    return done.output


def test_a_command_is_declared_listed_and_removed(here):
    added = said(
        *("add", "--cron", "0 3 * * 1", "--timezone", "Europe/Berlin"),
        *("--command", "train 'my photos' --set tune.epochs=3", "--set", "jitter_s=60"),
    )
    assert added.startswith("train-my-photos: ")
    assert "train 'my photos' --set tune.epochs=3" in added
    assert " Mon " in added
    assert "`regraft schedule run`" in added
    (kept,) = list_entries(open_state(here / ".regraft"))
    assert (kept.folder, kept.jitter_s, kept.takes_state) == (str(here), 60, True)
    assert kept.arguments == ("train", "my photos", "--set", "tune.epochs=3")
    listed = said("list")
    [row] = [line.split() for line in listed.splitlines() if line.startswith("train-my-photos ")]
    assert row[:8] == ["train-my-photos", *("0", "3", "*", "*", "1"), "Europe/Berlin", "Mon"]
    assert "regraft schedule run" in listed
    told = json.loads(said("list", "--json"))
    assert told["entries"][0]["command"] == "train 'my photos' --set tune.epochs=3"
    assert datetime.fromisoformat(told["entries"][0]["next_run"]) > datetime.now(UTC)
    assert told["service"] == {"is_alive": False, "heartbeat": None}
    assert "train-my-photos" in said("remove", "train-my-photos")
    assert list_entries(open_state(here / ".regraft")) == []
    assert "train-my-photos" not in said("list")


def test_photos_that_do_not_exist_are_named_when_their_command_is_added(here):
    add_train = ("add", "--cron", "0 3 * * 1", "--command")
    assert f"no photos at {here / 'photos'} now" in said(*add_train, "train photos")
    assert f"no photos at {here / 'b'} now" in said(*add_train, "predict-batch . b --out c")
    (here / "photos").mkdir()
    for command in ("train photos", "doctor", "train torchvision:MNIST", "train s3://bucket"):
        assert "no photos" not in said(*add_train, command, "--name", f"a{len(command)}")


def test_the_state_folder_is_added_only_where_it_was_not_named(here):
    for command in ("train x --state other", "config show", "doctor", "models", "models prune"):
        said("add", "--cron", "0 3 * * *", "--command", command)
    kept = {each.command: each.takes_state for each in list_entries(open_state(here / ".regraft"))}
    assert kept == {
        **{"train x --state other": False, "config show": False},
        **{"doctor": True, "models": True, "models prune": True},
    }


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("trian x", r"'trian'\. .*\btrain\?"),
        ("schedule run", "'schedule'"),
        ("train x --sett a=b", "`regraft train`.*'train x --sett a=b'"),
        ("train", "`regraft train`.*'train': .*'PHOTOS'"),
        ("models prun", "`regraft models`.*'models prun': .*'prun'"),
        ("train --help", "'train --help'"),
    ],
)
def test_a_command_line_that_regraft_would_refuse_is_refused_today(here, command, expected):
    with pytest.raises(ScheduleError, match=expected):
        said("add", "--cron", "0 3 * * *", "--command", command)
    assert not list_entries(open_state(here / ".regraft"))


def test_zenml_is_asked_for_only_where_it_has_a_store(here):
    with pytest.raises(ScheduleError, match=r"\btrain-x\b.*ZenML"):
        said("add", "--cron", "0 3 * * *", "--command", "train x", "--set", "backend=zenml")
    said("add", "--cron", "0 3 * * *", "--command", "train x", "--set", "backend=local")


def test_an_unknown_kind_of_unit_is_refused(here):
    with pytest.raises(ScheduleError, match=r"systemd, cron, launchd.*--kind.*'upstart'"):
        said("render", "--kind", "upstart")


def test_a_unit_runs_this_python_on_this_state_folder(here):
    text = said("render", "--kind", "systemd", "--state", "a state")
    assert f'schedule run --state "{here}/a state"' in text
    assert f"ExecStart={sys.executable} -P -m regraft.cli " in text
    assert f"WorkingDirectory={here}\n" in text


def test_systemd_reads_odd_paths_as_they_are():
    text = render("systemd", START)
    odd = str(ODD).replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    words = (f'"{odd}/python"', "-m", "regraft.cli", '"50%%"', '"$$x"', r'"a\\b"')
    assert f"ExecStart={' '.join(words)}\n" in text
    assert f"WorkingDirectory={str(ODD).replace('%', '%%')}\n" in text
    for line in ("Restart=on-failure", "KillMode=mixed", "TimeoutStopSec=45"):
        assert f"\n{line}\n" in text


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd on this machine")
def test_systemd_itself_accepts_the_unit(tmp_path):
    folder = tmp_path / "50% odd"
    folder.mkdir()
    program = folder / "my python"
    program.symlink_to(sys.executable)
    unit = tmp_path / "regraft.service"
    command = (str(program), "-c", "print('$x %h')")
    unit.write_text(render("systemd", Start(command, folder, folder / "log")), encoding="utf-8")
    done = subprocess.run(
        ["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False
    )
    ours = [line for line in done.stderr.splitlines() if "regraft.service" in line]
    assert (done.returncode, ours) == (0, []), done.stderr


def test_cron_gets_lines_that_the_shell_reads_as_they_are_meant():
    lines = [line for line in render("cron", START).splitlines() if not line.startswith("#")]
    boot, look = lines
    assert boot.startswith("@reboot cd ")
    assert look.startswith("*/10 * * * * cd ")
    for line in lines:
        assert not re.search(r"(?<!\\)%", line)  # cron would end the line there
    words = shlex.split(boot.removeprefix("@reboot ").replace("\\%", "%"))
    command = [*words[: words.index(">>")]]
    assert command == ["cd", str(ODD), "&&", *START.command]
    assert words[words.index(">>") :] == [">>", str(ODD / "a log"), "2>&1"]


def test_launchd_gets_a_property_list_that_starts_the_service_again():
    text = render("launchd", START)
    plist = plistlib.loads(text.encode())
    assert plist["ProgramArguments"] == list(START.command)
    assert plist["WorkingDirectory"] == str(ODD)
    assert plist["KeepAlive"] == {"SuccessfulExit": False}
    assert plist["RunAtLoad"] is True
    assert plist["ExitTimeOut"] == 45
    assert "LaunchAgents/regraft.operations.schedule.plist" in text


def wait_until(happened, timeout_s=60.0):
    deadline = time.monotonic() + timeout_s
    while not happened():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.05)


@pytest.fixture
def restored_process():
    """Puts back what a service sets in its process: who gets signals, and where its lines go."""
    signals = (signal.SIGTERM, signal.SIGINT)
    handlers, logger = (
        [signal.getsignal(number) for number in signals],
        logging.getLogger("regraft"),
    )
    log = (logger.handlers, logger.level, logger.propagate)
    yield
    logger.handlers, logger.level, logger.propagate = log
    for number, handler in zip(signals, handlers, strict=True):
        signal.signal(number, handler)


# What a command line is run by here: it says what it was given, and fails at `config check`.
PROGRAM = "import sys; print('said', *sys.argv[1:]); sys.exit(2 * ('check' in sys.argv))"


def test_the_service_runs_what_was_missed_says_what_failed_and_stops_when_told(
    here, monkeypatch, restored_process
):
    """In this process and with a small program; the slow tier has both of them real."""
    monkeypatch.setattr("regraft.cli.schedule.PROGRAM", (sys.executable, "-I", "-S", "-c", PROGRAM))
    quick = partial(ServiceSettings, tick_s=0.02)
    monkeypatch.setattr("regraft.operations.schedule.runs.ServiceSettings", quick)
    state, happened = open_state(here / ".regraft"), []
    declare_missed(state, here)
    page = state.reports / "status.html"

    def stop_service():
        try:
            wait_until(
                lambda: load_record(state, "show").ended and load_record(state, "broken").ended
            )
            wait_until(lambda: page.exists() and "exit code 2" in page.read_text(encoding="utf-8"))
            happened.append("all")
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    waiting = threading.Thread(target=stop_service)
    waiting.start()
    told = said("run")
    waiting.join()
    assert happened == ["all"]
    record, broken = load_record(state, "show"), load_record(state, "broken")
    assert (record.outcome, record.exit_code) == ("done", 0)
    assert Path(record.log).read_text(encoding="utf-8") == "said config show\n"
    assert (broken.outcome, broken.exit_code) == ("failed", 2)
    assert re.search(r"\bbroken\b.*\bexit code 2\b", page.read_text(encoding="utf-8"))
    assert re.search(r"\bshow: ", told)
    assert read_heartbeat(state).status == "stopped"
    assert re.search(r"^show .*\bdone\b", said("list"), re.MULTILINE)
    assert not json.loads(said("list", "--json"))["service"]["is_alive"]


def declare_missed(state, folder):
    """Two commands that were due last Monday: one that works, and one that fails."""
    added = (datetime.now(UTC) - timedelta(days=8)).isoformat()
    for name, command in (("show", "config show"), ("broken", "config check gone.yaml")):
        place = ("Europe/Berlin", command, str(folder), added)
        add(state, ScheduleEntry(name, "0 3 * * 1", *place, takes_state=False))


def deaf():
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # as `nohup regraft schedule run &` leaves it


@pytest.mark.slow
def test_the_service_runs_a_real_command_that_was_missed_and_stops_when_told(here):
    state = open_state(here / ".regraft")
    declare_missed(state, here)
    (here / "regraft").mkdir()  # not ours, and not to be taken for ours
    (here / "regraft" / "cli.py").write_text("raise SystemExit(1)", encoding="utf-8")
    command = [sys.executable, "-P", "-m", "regraft.cli", "schedule", "run"]
    service = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=deaf)
    try:
        wait_until(lambda: load_record(state, "show").ended and load_record(state, "broken").ended)
        record = load_record(state, "show")
        second = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert second.returncode == 11
        assert AlreadyRunning.__name__ in second.stderr
        assert f" {service.pid} " in second.stderr
        assert f" {service.pid} " in said("list")
        assert json.loads(said("list", "--json"))["service"]["is_alive"]
    finally:
        service.send_signal(signal.SIGTERM)
        _, told = service.communicate(timeout=60)
    assert service.returncode == 0
    assert (record.outcome, record.exit_code) == ("done", 0), Path(record.log).read_text()
    assert "tune" in Path(record.log).read_text(encoding="utf-8")
    assert re.search(r"\bshow: ", told)
    page = (state.reports / "status.html").read_text(encoding="utf-8")
    assert re.search(r"\bbroken\b.*\bexit code 2\b", page)
    assert read_heartbeat(state).status == "stopped"
    assert re.search(r"^show .*\bdone\b", said("list"), re.MULTILINE)
    assert not json.loads(said("list", "--json"))["service"]["is_alive"]
