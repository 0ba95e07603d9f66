"""Unit files for systemd, cron and launchd that start and restart the service."""

import plistlib
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from regraft.operations.schedule.runs import STOP_S

Kind = Literal["systemd", "cron", "launchd"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True)
class Start:
    """How the service is started.

    command: the words of the command line; the first is an absolute path.
    folder: absolute working directory.
    log: absolute path of the log file, for systems without a journal.
    stop_s: seconds that a run has to end when the service is stopped; see `schedule run --stop-s`.
    """

    command: tuple[str, ...]
    folder: Path
    log: Path
    stop_s: float = STOP_S


def render(kind: Kind, start: Start) -> str:
    """Return the text of a unit file; its comments say where to install it."""
    return {"systemd": _systemd, "cron": _cron, "launchd": _launchd}[kind](start)


def _systemd(start: Start) -> str:
    command = " ".join(_systemd_word(word) for word in start.command)
    # KillMode=mixed: only the service gets SIGTERM; it interrupts its runs itself.
    return f"""\
# ~/.config/systemd/user/regraft.service, then: systemctl --user enable --now regraft
# To keep the service running while nobody is logged in: loginctl enable-linger
[Unit]
Description=Regraft schedule

[Service]
Type=exec
ExecStart={command}
WorkingDirectory={str(start.folder).replace("%", "%%")}
Restart=on-failure
RestartSec=30
KillMode=mixed
TimeoutStopSec={start.stop_s + 15:.0f}

[Install]
WantedBy=default.target
"""


def _systemd_word(word: str) -> str:
    """Return the word quoted for ExecStart; see systemd.syntax(7) and systemd.service(5)."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    plain = re.fullmatch(r"[\w@./:=+,-]+", word)
    return word if plain else f'"{escaped}"'


def _cron(start: Start) -> str:
    command = f"cd {shlex.quote(str(start.folder))} && {shlex.join(start.command)}"
    redirect = f">> {shlex.quote(str(start.log))} 2>&1"
    return f"""\
# Install with: crontab -e
# Cron starts the service at boot and again every ten minutes. While a service is running, the
# second one ends at once. The service decides when each run starts.
@reboot {_cron_line(f"{command} {redirect}")}
*/10 * * * * {_cron_line(f"{command} > /dev/null 2>&1")}
"""


def _cron_line(command: str) -> str:
    return command.replace("%", "\\%")  # cron reads a bare % as the end of the line


def _launchd(start: Start) -> str:
    plist = {
        "Label": "regraft.operations.schedule",
        "ProgramArguments": list(start.command),
        "WorkingDirectory": str(start.folder),
        "RunAtLoad": True,
        "KeepAlive": {"SuccessfulExit": False},
        "ThrottleInterval": 30,
        "ExitTimeOut": int(start.stop_s) + 15,
        "StandardOutPath": str(start.log),
        "StandardErrorPath": str(start.log),
    }
    head, _, rest = plistlib.dumps(plist).decode().partition("?>\n")
    path = "~/Library/LaunchAgents/regraft.operations.schedule.plist"
    return f"{head}?>\n<!-- {path}, then: launchctl load {path} -->\n{rest}"
