"""regraft schedule: what is declared and said, the units, and the service end to end."""

import json
import plistlib
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from commands import app
from regraft.errors import ScheduleError
from regraft.schedule import Declaration, Start, add, declarations, last_beat, record_of, render
from regraft.state import open_state

ROOT = Path(__file__).resolve().parents[2]
ODD = Path('/srv/my photos/100% of "them" $HOME')
START = Start((str(ODD / "python"), "-m", "commands", "50%", "$x", "a\\b"), ODD, ODD / "a log", 30)


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
    assert added.startswith("train-my-photos: regraft train 'my photos' --set tune.epochs=3, next ")
    assert "Mon " in added
    assert "`regraft schedule run` must run" in added
    (kept,) = declarations(open_state(here / ".regraft"))
    assert (kept.folder, kept.jitter_s, kept.takes_state) == (str(here), 60, True)
    assert kept.arguments == ("train", "my photos", "--set", "tune.epochs=3")
    listed = said("list")
    assert re.search(r"^train-my-photos +0 3 \* \* 1 +Europe/Berlin +Mon ", listed, re.MULTILINE)
    assert "The service was never run. Start it: regraft schedule run" in listed
    told = json.loads(said("list", "--json"))
    assert told["declared"][0]["command"] == "train 'my photos' --set tune.epochs=3"
    assert datetime.fromisoformat(told["declared"][0]["next_run"]) > datetime.now(UTC)
    assert told["service"] == {"lives": False, "heartbeat": None}
    assert said("remove", "train-my-photos") == "train-my-photos is not declared any more.\n"
    assert "Nothing is declared" in said("list")


def test_the_state_folder_is_added_only_where_it_was_not_named(here):
    for command in ("train x --state other", "config show", "doctor", "models", "models prune"):
        said("add", "--cron", "0 3 * * *", "--command", command)
    kept = {each.command: each.takes_state for each in declarations(open_state(here / ".regraft"))}
    assert kept == {
        **{"train x --state other": False, "config show": False},
        **{"doctor": True, "models": True, "models prune": True},
    }


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("trian x", "got 'trian'. Did you mean train?"),
        ("schedule run", "got 'schedule'"),
        ("train x --sett a=b", "`regraft train` understands, got 'train x --sett a=b': No such op"),
        ("train", "`regraft train` understands, got 'train': Missing argument 'photos'"),
        ("models prun", "`regraft models` understands, got 'models prun': No such command 'prun'"),
        ("train --help", "a command that does something, got 'train --help', which only tells"),
    ],
)
def test_a_command_line_that_regraft_would_refuse_is_refused_today(here, command, expected):
    with pytest.raises(ScheduleError, match=re.escape(expected)):
        said("add", "--cron", "0 3 * * *", "--command", command)
    assert not declarations(open_state(here / ".regraft"))


def test_zenml_is_asked_for_only_where_it_has_a_store(here):
    expected = "to hand train-x over to ZenML, but ZenML has no store in this state folder yet"
    with pytest.raises(ScheduleError, match=expected):
        said("add", "--cron", "0 3 * * *", "--command", "train x", "--set", "keeper=zenml")
    said("add", "--cron", "0 3 * * *", "--command", "train x", "--set", "keeper=here")


def test_an_unknown_kind_of_unit_is_refused(here):
    with pytest.raises(ScheduleError, match="one of systemd, cron, launchd for --kind, got 'upst"):
        said("render", "--kind", "upstart")


def test_a_unit_runs_this_python_on_this_state_folder(here):
    text = said("render", "--kind", "systemd", "--state", "a state")
    assert f'schedule run --state "{here}/a state"' in text
    assert f"ExecStart={sys.executable} -P -m commands " in text
    assert f"WorkingDirectory={here}\n" in text


def test_systemd_reads_odd_paths_as_they_are():
    text = render("systemd", START)
    odd = str(ODD).replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    assert f'ExecStart="{odd}/python" -m commands "50%%" "$$x" "a\\\\b"\n' in text
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
    assert "LaunchAgents/regraft.schedule.plist" in text


def wait_until(happened, timeout_s=60.0):
    deadline = time.monotonic() + timeout_s
    while not happened():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.05)


def deaf():
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # as `nohup regraft schedule run &` leaves it


def test_the_service_runs_a_real_command_that_was_missed_and_stops_when_told(here):
    state = open_state(here / ".regraft")
    added = (datetime.now(UTC) - timedelta(days=8)).isoformat()
    place = ("Europe/Berlin", "config show", str(here), added)
    add(state, Declaration("show", "0 3 * * 1", *place, takes_state=False))
    broken = ("Europe/Berlin", "config check gone.yaml", str(here), added)
    add(state, Declaration("broken", "0 3 * * 1", *broken, takes_state=False))
    (here / "commands").mkdir()  # not ours, and not to be taken for ours
    (here / "commands" / "__main__.py").write_text("raise SystemExit(1)", encoding="utf-8")
    command = [sys.executable, "-P", "-m", "commands", "schedule", "run"]
    service = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=deaf)
    try:
        wait_until(lambda: record_of(state, "show").ended and record_of(state, "broken").ended)
        record = record_of(state, "show")
        second = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert second.returncode == 11
        assert f"AlreadyRuns: Expected to run the schedule alone, but process {service.pid}" in (
            second.stderr
        )
        assert f"The service runs: process {service.pid} on " in said("list")
    finally:
        service.send_signal(signal.SIGTERM)
        _, told = service.communicate(timeout=60)
    assert service.returncode == 0
    assert (record.outcome, record.exit_code) == ("done", 0), Path(record.log).read_text()
    assert "tune" in Path(record.log).read_text(encoding="utf-8")
    assert "show: begun, process" in told
    assert "The schedule has stopped" in told
    page = (state.reports / "status.html").read_text(encoding="utf-8")
    assert "The run of broken that was due" in page
    assert "failed, exit code 2" in page
    assert last_beat(state).doing == "stopped"
    listed = said("list")
    assert "done" in listed
    assert "The service was stopped" in listed
