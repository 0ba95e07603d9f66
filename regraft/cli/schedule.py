"""regraft schedule: which command runs when, and the service that runs the commands."""

import json
import logging
import shlex
import signal
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any
from zoneinfo import ZoneInfo

import typer
from typer.core import TyperGroup

from regraft.cli.interruption import release_signals
from regraft.cli.options import DEFAULT_STATE, JsonOption, StateOption, is_debug
from regraft.core.errors import RegraftError, ScheduleError
from regraft.session import scheduler_for

if TYPE_CHECKING:
    from regraft.core.state import State
    from regraft.operations.schedule import Heartbeat, Kind, Record, ScheduleEntry
    from regraft.operations.workflows.schedule import ParsedCommand

# -P: a folder named `regraft` in the working directory of a run must not shadow the package.
PROGRAM = (sys.executable, "-P", "-m", "regraft.cli")
_START = "Start it: regraft schedule run"
COLUMNS = ("name", "cron", "time zone", "next run", "UTC", "last run", "outcome")
NameOption = Annotated[
    str, typer.Option(metavar="TEXT", help="Name of the entry; default: made of the command.")
]
TimezoneOption = Annotated[
    str, typer.Option(help="Such as Europe/Berlin; default: the machine's.", metavar="ZONE")
]
EntrySetOption = Annotated[
    list[str],
    typer.Option(
        "--set",
        metavar="FIELD=VALUE",
        help="missed=run-once|skip, grace_s=, jitter_s=, timeout_s=, backend=local|zenml.",
    ),
]

schedule_app = typer.Typer(
    help="Run commands at fixed times, on this machine or by the orchestrator.",
    no_args_is_help=True,
)


@schedule_app.command()
def add(
    cron: Annotated[
        str, typer.Option(metavar="CRON", help='Such as "0 3 * * 1", Mondays at three.')
    ],
    command: Annotated[
        str, typer.Option(metavar="TEXT", help='What follows `regraft`: "retrain photos/".')
    ],
    timezone: TimezoneOption = "",
    name: NameOption = "",
    set_: EntrySetOption = [],  # noqa: B006 - typer copies it
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Schedule a command; it will run in the current folder."""
    from regraft.core.state import open_state
    from regraft.operations.schedule import check
    from regraft.operations.workflows.schedule import add_entry, new_entry

    zone = timezone or _machine_timezone()
    entry = new_entry(command, cron, zone, name, set_, datetime.now(UTC))
    check(entry, _schedulable_commands())
    context = _parse_command(entry.arguments)
    opened = open_state(state, is_debug())
    is_chosen = any(setting.startswith("backend=") for setting in set_)
    entry = add_entry(entry, _parsed(context), is_chosen, opened, scheduler_for(opened))
    typer.echo(_format_added(entry, opened))
    for place in _missing_photos(context):
        typer.echo(f"There are no photos at {place} now. Without them, the command will fail.")


@schedule_app.command("list")
def list_(state: StateOption = DEFAULT_STATE, as_json: JsonOption = False) -> None:
    """List all entries with their next and last run, and whether the service is running."""
    from regraft.cli.table import print_table
    from regraft.core.state import readable_state
    from regraft.operations.schedule import next_due, read_heartbeat, read_schedule

    opened, now = readable_state(state, is_debug()), datetime.now(UTC)
    listed = read_schedule(opened)
    rows = [(entry, next_due(entry, record, now), record) for entry, record in listed.entries]
    heartbeat = read_heartbeat(opened)
    for sentence in listed.broken:
        typer.echo(sentence, err=True)
    if as_json:
        entries = [
            asdict(entry) | {"next_run": when.isoformat() if when else None, "last": asdict(record)}
            for entry, when, record in rows
        ]
        service = {
            "is_alive": heartbeat is not None and heartbeat.is_alive(now),
            "heartbeat": asdict(heartbeat) if heartbeat else None,
        }
        typer.echo(json.dumps({"entries": entries, "service": service}, indent=1))
        return
    if rows:
        print_table(COLUMNS, [_row(*row, now) for row in rows])
    elif not listed.broken:
        typer.echo('Nothing is scheduled. regraft schedule add --cron "0 3 * * 1" --command ...')
    typer.echo(_format_service(heartbeat, now))


@schedule_app.command()
def remove(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the entry.")],
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Remove an entry; a run that is active continues to its end."""
    from regraft.core.state import existing_state
    from regraft.operations.workflows.schedule import remove_entry

    opened = existing_state(state, is_debug())
    remove_entry(name, opened, scheduler_for(opened))
    typer.echo(f"{name} was removed from the schedule.")


@schedule_app.command()
def run(
    stop_s: Annotated[
        float,
        typer.Option(
            "--stop-s", min=0, metavar="S", help="Seconds that a run has to end when stopped."
        ),
    ] = 30.0,
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Run the service in the foreground, until it gets SIGTERM or Ctrl-C."""
    from regraft.cli.session import configure_logging
    from regraft.core.state import open_state
    from regraft.operations.schedule.runs import ServiceSettings
    from regraft.operations.schedule.service import serve

    signals: list[int] = []

    def handle_signal(number: int, frame: FrameType | None) -> None:
        signals.append(number)

    release_signals()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, handle_signal)
    configure_logging("%(asctime)s %(message)s")
    opened = open_state(state, is_debug())
    settings = ServiceSettings(PROGRAM, stop_s=stop_s, on_run_end=lambda: _refresh(opened))
    serve(opened, settings, lambda: datetime.now(UTC), lambda: bool(signals))


def _refresh(state: "State") -> None:
    """Write the status page, which shows failed runs; an error must not end the service."""
    from regraft.operations.status import refresh

    try:
        refresh(state, datetime.now(UTC))
    except (RegraftError, OSError, ValueError, TypeError) as error:
        logging.getLogger("regraft.schedule").warning("%s: %s", type(error).__name__, error)


@schedule_app.command()
def render(
    kind: Annotated[str, typer.Option(metavar="KIND", help="systemd, cron or launchd.")],
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Print a unit file with which the operating system starts and restarts the service."""
    from regraft.core.state import open_state
    from regraft.operations.schedule import KINDS, Start
    from regraft.operations.schedule import render as render_unit

    kinds: dict[str, Kind] = {each: each for each in KINDS}
    if kind not in kinds:
        raise ScheduleError(f"Expected one of {', '.join(kinds)} for --kind, got {kind!r}.")
    opened = open_state(state, is_debug())
    command = (*PROGRAM, "schedule", "run", "--state", str(opened.root))
    log = opened.schedule / "service.log"
    typer.echo(render_unit(kinds[kind], Start(command, opened.root.parent, log)), nl=False)


def _machine_timezone() -> str:
    """Return the IANA name of the machine's time zone."""
    from tzlocal import get_localzone_name

    return str(get_localzone_name() or "UTC")


def _root_command() -> Any:  # noqa: ANN401 - typer does not export the class
    """Return the whole command line as a click command."""
    from regraft.cli import app

    return typer.main.get_command(app)


def _schedulable_commands() -> list[str]:
    """Return the names of all commands except `schedule` itself."""
    return [name for name in _root_command().commands if name != "schedule"]


def _parse_command(words: tuple[str, ...]) -> typer.Context:
    """Return the context of a command line, parsed as the command itself would parse it.

    Raises:
        ScheduleError: the command would reject the command line.
    """
    command, name, rest = _root_command(), words[0], list(words)
    try:
        while rest and isinstance(command, TyperGroup):
            _, command, rest = command.resolve_command(command.context_class(command), rest)
        context: typer.Context = command.make_context(name, rest)
    except typer.TyperException as error:
        raise ScheduleError(
            f"Expected a command line that `regraft {words[0]}` accepts, got "
            f"{shlex.join(words)!r}: {error.format_message()}"
        ) from None
    except typer.Exit:
        raise ScheduleError(
            f"Expected a command that does some work, got {shlex.join(words)!r}, which only "
            "prints a text."
        ) from None
    return context


def _parsed(context: typer.Context) -> "ParsedCommand":
    from regraft.operations.workflows.retrain import RetrainRequest
    from regraft.operations.workflows.schedule import ParsedCommand

    source = context.get_parameter_source("state")
    takes_state = source is not None and source.name == "DEFAULT"
    if context.info_name != "retrain":
        return ParsedCommand(takes_state)
    given = context.params
    request = RetrainRequest(given["photos"], given["config"], tuple(given["set_"]), given["name"])
    return ParsedCommand(takes_state, request)


def _missing_photos(context: typer.Context) -> list[str]:
    """Return the absolute local paths of photos in the command that do not exist."""
    from regraft.core.files import absolute, is_url

    given = context.params.get("photos") or ()
    places = [given] if isinstance(given, str) else given
    local = [
        absolute(place)
        for place in places
        if not (is_url(place) or place.startswith("torchvision:"))
    ]
    return [place for place in local if not Path(place).exists()]


def _format_added(entry: "ScheduleEntry", state: "State") -> str:
    from regraft.operations.schedule import next_fire_times, read_heartbeat

    now = datetime.now(UTC)
    first = next(iter(next_fire_times(entry, now, 1)), now)
    text = f"{entry.name}: regraft {entry.command}, next {_local_time(first, entry)}"
    if entry.backend == "zenml":
        return f"{text}, by ZenML's orchestrator."
    heartbeat = read_heartbeat(state)
    if heartbeat and heartbeat.is_alive(now):
        return f"{text}, by the service that is running."
    return f"{text}. For that, `regraft schedule run` must run: regraft schedule render --help"


def _local_time(when: datetime, entry: "ScheduleEntry") -> str:
    return f"{when.astimezone(ZoneInfo(entry.timezone)):%a %Y-%m-%d %H:%M}"


def _row(
    entry: "ScheduleEntry", when: datetime | None, record: "Record", now: datetime
) -> tuple[str, ...]:
    local = _local_time(when, entry) if when else "never"
    utc = f"{when:%m-%d %H:%M}" if when else ""
    if when and when < now:
        utc += " missed"
    started = _local_time(datetime.fromisoformat(record.started), entry) if record.started else ""
    code = f" ({record.exit_code})" if record.outcome == "failed" and record.exit_code else ""
    outcome = "by ZenML" if entry.backend == "zenml" else f"{record.outcome}{code}"
    if record.n_not_started:
        outcome += f", {record.n_not_started} not started"
    return (entry.name, entry.cron, entry.timezone, local, utc, started, outcome)


def _format_service(heartbeat: "Heartbeat | None", now: datetime) -> str:
    if heartbeat is None:
        return f"The service has never run. {_START}"
    process = f"process {heartbeat.pid} on {heartbeat.host}"
    if heartbeat.is_alive(now):
        active = f", active: {', '.join(heartbeat.running)}" if heartbeat.running else ""
        age_s = heartbeat.age_s(now)
        return f"The service is running: {process}, last heartbeat {age_s:.0f} s ago{active}"
    problem = "was stopped" if heartbeat.status == "stopped" else "does not answer"
    last = datetime.fromisoformat(heartbeat.time)
    return (
        f"The service {problem}: {process}, last heartbeat {last:%Y-%m-%d %H:%M:%S} UTC. {_START}"
    )
