"""Ready texts by which an operating system starts the service, and starts it again."""

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

    command: in words, the first an absolute path. folder: absolute, where it runs.
    log: absolute, the file for what it says where the system keeps no journal.
    stop_s: seconds that a run has to end when the service is stopped, as `schedule run` has it.
    """

    command: tuple[str, ...]
    folder: Path
    log: Path
    stop_s: float = STOP_S


def render(kind: Kind, start: Start) -> str:
    """The text of a unit, and in its comments where it belongs."""
    return {"systemd": _systemd, "cron": _cron, "launchd": _launchd}[kind](start)


def _systemd(start: Start) -> str:
    command = " ".join(_systemd_word(word) for word in start.command)
    # mixed: the service alone is told to stop, and interrupts its runs itself.
    return f"""\
# ~/.config/systemd/user/regraft.service, then: systemctl --user enable --now regraft
# So that it runs while nobody is logged in: loginctl enable-linger
[Unit]
Description=Regraft's schedule

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
    """As systemd.syntax(7) and systemd.service(5) read it: $ and % would stand for others."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    plain = re.fullmatch(r"[\w@./:=+,-]+", word)
    return word if plain else f'"{escaped}"'


def _cron(start: Start) -> str:
    command = f"cd {shlex.quote(str(start.folder))} && {shlex.join(start.command)}"
    said = f">> {shlex.quote(str(start.log))} 2>&1"
    return f"""\
# crontab -e. The times of the runs are Regraft's; cron starts the service with the machine, and
# looks every ten minutes whether it still runs. Where it does, the second one ends at once.
@reboot {_cron_line(f"{command} {said}")}
*/10 * * * * {_cron_line(f"{command} > /dev/null 2>&1")}
"""


def _cron_line(command: str) -> str:
    return command.replace("%", "\\%")  # a bare one would end the line


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
    where = "~/Library/LaunchAgents/regraft.operations.schedule.plist"
    return f"{head}?>\n<!-- {where}, then: launchctl load {where} -->\n{rest}"
