"""regraft schedule: what is to be run when, and the service that runs it on this machine."""

import json
import logging
import shlex
import signal
import socket
import sys
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any
from zoneinfo import ZoneInfo

import typer
from typer.core import TyperGroup

from regraft.cli.options import DEFAULT_STATE, JsonOption, StateOption, is_debug
from regraft.core.errors import RegraftError, ScheduleError

if TYPE_CHECKING:
    from collections.abc import Callable

    from regraft.core.config import Config
    from regraft.core.state import State
    from regraft.operations.schedule import Declaration, Heartbeat, Kind, Record

# -P: a folder named `commands` in the folder where a command runs is none of ours.
PROGRAM = (sys.executable, "-P", "-m", "regraft.cli")
_START = "Start it: regraft schedule run"
COLUMNS = ("name", "cron", "time zone", "next run", "UTC", "last run", "how it ended")
NameOption = Annotated[str, typer.Option(help="Of the declaration; left out: the command's.")]
TimezoneOption = Annotated[
    str, typer.Option(help="Such as Europe/Berlin; left out: the machine's.", metavar="ZONE")
]
FineOption = Annotated[
    list[str],
    typer.Option(
        "--set",
        help="missed=run-once|skip, grace_s=, jitter_s=, timeout_s=, keeper=here|zenml.",
    ),
]

schedule_app = typer.Typer(
    help="Run commands when their time comes, on this machine or by the orchestrator.",
    no_args_is_help=True,
)


@schedule_app.command()
def add(
    cron: Annotated[str, typer.Option(help='Such as "0 3 * * 1", Mondays at three.')],
    command: Annotated[str, typer.Option(help='What follows `regraft`: "retrain photos/".')],
    timezone: TimezoneOption = "",
    name: NameOption = "",
    set_: FineOption = [],  # noqa: B006 - typer copies it
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Declares that a command is to be run, in this folder, whenever the cron expression says."""
    from regraft.core.state import open_state
    from regraft.operations.schedule import Declaration, check, name_for, with_settings, words_of
    from regraft.operations.schedule import add as keep

    plain = Declaration(
        name=name or name_for(command),
        cron=cron,
        timezone=timezone or _own_zone(),
        command=shlex.join(words_of(command)),
        folder=str(Path.cwd()),
        added=datetime.now(UTC).isoformat(),
        host=socket.gethostname(),
    )
    wanted = with_settings(plain, set_)
    check(wanted, _known())
    wanted = replace(wanted, takes_state=_takes_state(wanted.arguments))
    opened = open_state(state, is_debug())
    is_told = any(each.startswith("keeper=") for each in set_)
    kept = _placed(wanted, opened, is_told)
    keep(opened, kept)
    typer.echo(_told_of(kept, opened))


@schedule_app.command("list")
def list_(state: StateOption = DEFAULT_STATE, as_json: JsonOption = False) -> None:
    """Lists what is declared, when it runs next, how it ended last, and if the service lives."""
    from regraft.core.state import existing_state
    from regraft.operations.schedule import declarations, last_beat, next_due, record_of

    opened, now = existing_state(state, is_debug()), datetime.now(UTC)
    rows = []
    for each in declarations(opened):
        record = record_of(opened, each.name)
        rows.append((each, next_due(each, record, now), record))
    heartbeat = last_beat(opened)
    if as_json:
        declared = [
            asdict(each) | {"next_run": when.isoformat() if when else None, "last": asdict(record)}
            for each, when, record in rows
        ]
        lives = heartbeat is not None and heartbeat.lives(now)
        said = asdict(heartbeat) if heartbeat else None
        service = {"lives": lives, "heartbeat": said}
        typer.echo(json.dumps({"declared": declared, "service": service}, indent=1))
        return
    if rows:
        _print_table([_row(*row, now) for row in rows])
    else:
        typer.echo('Nothing is declared. regraft schedule add --cron "0 3 * * 1" --command ...')
    typer.echo(_of_the_service(heartbeat, now))


@schedule_app.command()
def remove(
    name: Annotated[str, typer.Argument(help="Of the declaration.")],
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Forgets a declaration; a run that has begun goes on to its end."""
    from regraft.core.state import existing_state
    from regraft.operations.schedule import find
    from regraft.operations.schedule import remove as forget

    opened = existing_state(state, is_debug())
    if find(opened, name).keeper == "zenml":
        _enter_zenml(opened)
        from pipelines.schedule import take_back

        take_back(name)  # first: else nobody would know of the one that still fires
    forget(opened, name)
    typer.echo(f"{name} is not declared any more.")


@schedule_app.command()
def run(
    stop_s: Annotated[
        float, typer.Option("--stop-s", min=0, help="Seconds that a run has to end when stopped.")
    ] = 30.0,
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Runs what is declared, in the foreground, until it gets SIGTERM or Ctrl-C."""
    from regraft.core.state import open_state
    from regraft.operations.schedule.runs import ServiceSettings
    from regraft.operations.schedule.service import serve

    asked: list[int] = []

    def ask(number: int, frame: FrameType | None) -> None:
        asked.append(number)

    # Runs begin with what their parent ignores: after `nohup ... &` they would ignore Ctrl-C too.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, ask)
    _talk()
    opened = open_state(state, is_debug())
    settings = ServiceSettings(PROGRAM, stop_s=stop_s, when_ended=lambda: _refresh(opened))
    serve(opened, settings, lambda: datetime.now(UTC), lambda: bool(asked))


def _refresh(state: "State") -> None:
    """The status page, which tells of runs that failed; whatever hinders it ends no service."""
    from regraft.operations.status import refresh

    try:
        refresh(state, datetime.now(UTC))
    except (RegraftError, OSError, ValueError, TypeError) as error:
        logging.getLogger("regraft.schedule").warning("%s: %s", type(error).__name__, error)


@schedule_app.command()
def render(
    kind: Annotated[str, typer.Option(help="systemd, cron or launchd.")],
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Prints a unit by which the operating system starts the service, and starts it again."""
    from regraft.core.state import open_state
    from regraft.operations.schedule import KINDS, Start
    from regraft.operations.schedule import render as text_of

    kinds: dict[str, Kind] = {each: each for each in KINDS}
    if kind not in kinds:
        raise ScheduleError(f"Expected one of {', '.join(kinds)} for --kind, got {kind!r}.")
    opened = open_state(state, is_debug())
    command = (*PROGRAM, "schedule", "run", "--state", str(opened.root))
    log = opened.schedule / "service.log"
    typer.echo(text_of(kinds[kind], Start(command, opened.root.parent, log)), nl=False)


def _own_zone() -> str:
    """The IANA name of the machine's time zone."""
    from tzlocal import get_localzone_name

    return str(get_localzone_name() or "UTC")


def _root() -> Any:  # noqa: ANN401 - of a class that typer keeps to itself
    """The whole command line, as typer reads it."""
    from regraft.cli import app

    return typer.main.get_command(app)


def _known() -> list[str]:
    """The commands that may be scheduled: all but the schedule itself."""
    return [name for name in _root().commands if name != "schedule"]


def _parsed(words: tuple[str, ...]) -> typer.Context:
    """The command line as the command itself would read it, so that a slip is found today.

    Raises:
        ScheduleError: the command would refuse it.
    """
    command, name, rest = _root(), words[0], list(words)
    try:
        while rest and isinstance(command, TyperGroup):
            _, command, rest = command.resolve_command(command.context_class(command), rest)
        context: typer.Context = command.make_context(name, rest)
    except typer.TyperException as error:
        raise ScheduleError(
            f"Expected a command line that `regraft {words[0]}` understands, got "
            f"{shlex.join(words)!r}: {error.format_message()}"
        ) from None
    except typer.Exit:
        raise ScheduleError(
            f"Expected a command that does something, got {shlex.join(words)!r}, which only tells."
        ) from None
    return context


def _takes_state(words: tuple[str, ...]) -> bool:
    """Whether the command wants to know the state folder, and was not told."""
    context = _parsed(words)
    source = context.get_parameter_source("state")
    return source is not None and source.name == "DEFAULT"


def _placed(declaration: "Declaration", state: "State", is_told: bool) -> "Declaration":
    """The declaration with its keeper; one for the orchestrator is handed over to it.

    Args:
        is_told: whether the user has chosen the keeper.
    """
    here = replace(declaration, keeper="here")
    if is_told and declaration.keeper == "here":
        return here
    why = "ZenML has no store in this state folder yet"
    if state.zenml_database.exists():
        _enter_zenml(state)
        from pipelines.schedule import can_schedule, hand_over

        why = "the active orchestrator cannot schedule"
        if can_schedule():
            if call := _call_of(declaration, state):
                hand_over(declaration, *call)
                return replace(declaration, keeper="zenml")
            why = f"{declaration.arguments[0]} is no pipeline of its own"
    if is_told:
        raise ScheduleError(
            f"Expected to hand {declaration.name} over to ZenML, but {why}. Leave keeper=zenml "
            "out, and `regraft schedule run` runs it on this machine."
        )
    return here


def _call_of(
    declaration: "Declaration", state: "State"
) -> "tuple[Callable[..., Any], Config] | None":
    """The pipeline that the command would run, and what with; None if it is more than that."""
    context = _parsed(declaration.arguments)
    if context.info_name != "retrain":
        return None
    from pipelines.retrain import retrain
    from regraft.cli.retrain import as_before

    given = context.params
    settings = tuple(given["set_"])
    return retrain, as_before(given["photos"], given["config"], settings, given["name"], state)


def _enter_zenml(state: "State") -> None:
    """ZenML with the store of this state folder, and whatever stack is active there."""
    from regraft.core.state import activate

    activate(state)


def _told_of(declaration: "Declaration", state: "State") -> str:
    from regraft.operations.schedule import last_beat, upcoming

    now = datetime.now(UTC)
    first = next(iter(upcoming(declaration, now, 1)), now)
    said = f"{declaration.name}: regraft {declaration.command}, next {_local(first, declaration)}"
    if declaration.keeper == "zenml":
        return f"{said}, by ZenML's orchestrator."
    heartbeat = last_beat(state)
    if heartbeat and heartbeat.lives(now):
        return f"{said}, by the service that runs."
    return f"{said}. For that `regraft schedule run` must run: regraft schedule render --help"


def _local(when: datetime, declaration: "Declaration") -> str:
    return f"{when.astimezone(ZoneInfo(declaration.timezone)):%a %Y-%m-%d %H:%M}"


def _row(
    declaration: "Declaration", when: datetime | None, record: "Record", now: datetime
) -> tuple[str, ...]:
    local = _local(when, declaration) if when else "never"
    utc = f"{when:%m-%d %H:%M}" + (" missed" if when < now else "") if when else ""
    began = _local(datetime.fromisoformat(record.began), declaration) if record.began else ""
    code = f" ({record.exit_code})" if record.outcome == "failed" and record.exit_code else ""
    ended = "by ZenML" if declaration.keeper == "zenml" else f"{record.outcome}{code}"
    left_out = f", {record.n_left_out} left out" if record.n_left_out else ""
    cells = (declaration.name, declaration.cron, declaration.timezone, local, utc, began)
    return (*cells, ended + left_out)


def _of_the_service(heartbeat: "Heartbeat | None", now: datetime) -> str:
    if heartbeat is None:
        return f"The service was never run. {_START}"
    who = f"process {heartbeat.pid} on {heartbeat.host}"
    if heartbeat.lives(now):
        doing = f", running {', '.join(heartbeat.running)}" if heartbeat.running else ""
        return f"The service runs: {who}, heard {heartbeat.age_s(now):.0f} s ago{doing}"
    how = "was stopped" if heartbeat.doing == "stopped" else "does not answer"
    since = datetime.fromisoformat(heartbeat.time)
    return f"The service {how}: {who}, last heard {since:%Y-%m-%d %H:%M:%S} UTC. {_START}"


def _print_table(rows: list[tuple[str, ...]]) -> None:
    table = [COLUMNS, *rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        typer.echo("  ".join(cells).rstrip())


def _talk() -> None:
    """A line with its time for each thing that happens."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    logger = logging.getLogger("regraft")
    logger.handlers = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False
