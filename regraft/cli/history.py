"""regraft history: everything that happened to a model, what serves now and what served when."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, date, datetime, time
from typing import TYPE_CHECKING, Annotated

import typer

from regraft.cli.ledger import ModelArgument
from regraft.cli.options import DEFAULT_STATE, JsonOption, StateOption, is_debug
from regraft.core.errors import ConfigError, ModelNotFound

if TYPE_CHECKING:
    from regraft.core.state import State
    from regraft.operations.status import Event
    from regraft.registry.ledger import Entry

COLUMNS = ("when", "who", "action", "champion", "verdict", "reason")
AsOfOption = Annotated[
    str,
    typer.Option(
        "--as-of",
        metavar="DATE",
        help="Say what served then: 2026-11-24 (the end of that day, UTC) or an ISO 8601 time.",
    ),
]
LimitOption = Annotated[
    int, typer.Option("--limit", min=0, help="How many of the newest are told; 0 = all.")
]


@dataclass(frozen=True)
class Recorded:
    """What the registry says of a model: nothing, where there is none of that name.

    served: the version that served at the time that was asked for, None for none.
    moved: whether something else serves than the last entry says.
    """

    name: str
    entries: "tuple[Entry, ...]" = ()
    faults: tuple[str, ...] = ()
    served: int | None = None
    moved: bool = False
    is_registered: bool = False


def history(
    name: ModelArgument = "",
    as_of: AsOfOption = "",
    state: StateOption = DEFAULT_STATE,
    as_json: JsonOption = False,
    limit: LimitOption = 0,
) -> None:
    """Lists everything that happened to a model, oldest first, and what serves now or served then.

    Decisions about what serves, retrainings and why or why not, and looks at new photos.
    """
    moment = moment_of(as_of) if as_of else None
    from regraft.core.state import existing_state
    from regraft.operations import journal
    from regraft.operations.status import timeline

    opened = existing_state(state, is_debug())
    url = str(opened.journal)
    recorded = _recorded(opened, name, {one.name for one in journal.attempts(url)}, moment)
    name = recorded.name
    events = timeline(recorded.entries, journal.attempts(url, name), journal.watches(url, name))
    told = [event for event in events if not moment or event.moment <= moment]
    if not recorded.is_registered and told:
        recorded = replace(recorded, served=told[-1].champion)
    told = told[-limit:]
    if as_json:
        _print_json(recorded, told, moment)
        return
    _print_table([_row(event) for event in told])
    when = f"Served at {moment:%Y-%m-%d %H:%M:%S %Z}" if moment else "Serves now"
    typer.echo(f"{when}: {name} {_version(recorded.served)}")
    if recorded.faults:
        typer.echo(f"Not as it was written: {' '.join(recorded.faults)}", err=True)
    if not moment and recorded.moved:
        typer.echo("That is not what the last entry says; the next decision will record it.")


def _recorded(state: "State", name: str, tried: set[str], moment: datetime | None) -> Recorded:
    """What the registry says; where there is none yet, it is not made, and MLflow not imported.

    Args:
        tried: the models that the journal knows.
    """
    if not state.mlflow_database.exists():
        return Recorded(_only(name, tried, state))
    from regraft.core.state import activate

    activate(state)
    from regraft.core.config import TrackingConfig
    from regraft.registry.champion import champion_at, serving_version
    from regraft.registry.ledger import meant, read
    from regraft.registry.versions import names

    tracking = TrackingConfig(uri=state.tracking_uri)
    registered = names(tracking)
    if name not in registered and (name in tried or (not registered and tried)):
        return Recorded(_only(name, tried, state))
    name = meant(tracking, name)
    ledger, serves = read(tracking, name), serving_version(tracking, name)
    served = champion_at(ledger.entries, moment) if moment else serves
    moved = bool(ledger.entries) and serves != ledger.entries[-1].after
    return Recorded(name, ledger.entries, ledger.faults, served, moved, is_registered=True)


def _only(name: str, tried: set[str], state: "State") -> str:
    """The model of that name that the journal knows; "" is the only one that there is.

    Raises:
        ModelNotFound: there is none, or there are several.
    """
    if name in tried:
        return name
    if not name and len(tried) == 1:
        return next(iter(tried))
    wanted = f"the model {name}" if name else "one model"
    found = ", ".join(sorted(tried)) or "none"
    remedy = "Name one of these." if tried else "Run `regraft train` first."
    raise ModelNotFound(f"Expected {wanted} in {state.root}, found {found}. {remedy}")


def _print_json(recorded: Recorded, told: "Sequence[Event]", moment: datetime | None) -> None:
    entries = [
        e for e in recorded.entries if not moment or datetime.fromisoformat(e.when) <= moment
    ]
    answer = {
        "model": recorded.name,
        "as_of": moment.isoformat() if moment else None,
        "champion": recorded.served,
        "entries": [asdict(entry) for entry in entries],
        "faults": recorded.faults,
        "events": [asdict(event) for event in told],
    }
    typer.echo(json.dumps(answer, indent=1))


def moment_of(text: str) -> datetime:
    """The time that is meant, with a zone: a date is the end of that day, no zone is UTC.

    >>> moment_of("2026-11-24").isoformat(), moment_of("2026-11-24T12:00+01:00").isoformat()
    ('2026-11-24T23:59:59.999999+00:00', '2026-11-24T12:00:00+01:00')

    Raises:
        ConfigError: it is neither.
    """
    try:
        return datetime.combine(date.fromisoformat(text), time.max, UTC)
    except ValueError:
        pass  # then it has a time of day
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(
            "Expected a date such as 2026-11-24 or a time such as 2026-11-24T18:30:00 for --as-of, "
            f"got {text!r}. Write one of these; without a zone it is UTC."
        ) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _row(event: "Event") -> tuple[str, ...]:
    when = f"{event.moment:%Y-%m-%d %H:%M:%S}"
    before, after = _version(event.before), _version(event.champion)
    champion = f"{before} -> {after}" if event.moved else after
    return when, event.who, event.what, champion, event.verdict, event.said


def _version(version: int | None) -> str:
    return "none" if version is None else f"v{version}"


def _print_table(rows: list[tuple[str, ...]]) -> None:
    if not rows:
        typer.echo("Nothing was decided by then.")
        return
    table = [COLUMNS, *rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        typer.echo("  ".join(cells).rstrip())
